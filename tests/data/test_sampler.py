"""Batches: determinism, what is held out, downsampling, and the thread that works ahead."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset, held_out_frames, motions_in, train_frames, views_in
from dimo_jax.data.sampler import Sampler, downsample, prefetch


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Frames whose colour names their motion, view and frame."""
    num_motions, num_views, num_frames = 7, 5, 21
    frames = np.zeros((num_motions, num_views, num_frames, 8, 8, 4), np.uint8)
    frames[..., 0] = 10 * np.arange(num_motions)[:, None, None, None, None]
    frames[..., 1] = 10 * np.arange(num_views)[:, None, None, None]
    frames[..., 2] = 10 * np.arange(num_frames)[:, None, None]
    frames[..., 3] = 255
    return Dataset(
        frames=frames,
        cameras=orbit(np.arange(5) * 40.0, 0.0, radius=2.0, fov_deg=33.9, height=8, width=8),
        names=tuple(f"m{i}" for i in range(7)),
        captions=("",) * 7,
        splits=("train",) * 5 + ("test",) * 2,
        view_names=tuple(f"v{i}" for i in range(5)),
        view_splits=("train", "test", "train", "train", "train"),
        frame_rate=12.0,
        object_name="blocks",
    )


def decode(batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The motion, view and frame that every image [M,V,F] came from."""
    color = batch.images[:, :, :, 0, 0].astype(int) // 10
    return color[..., 0], color[..., 1], color[..., 2]


def test_held_out_frames_are_every_fifth(dataset):
    assert held_out_frames(dataset, 5).tolist() == [4, 9, 14, 19]
    assert set(train_frames(dataset, 5)) | {4, 9, 14, 19} == set(range(21))
    assert len(train_frames(dataset, 5)) == 17
    assert len(held_out_frames(dataset, 0)) == 0
    assert motions_in(dataset, "test").tolist() == [5, 6]
    assert views_in(dataset, "test").tolist() == [1]


@pytest.mark.parametrize("every", [2, 3, 5, 7])
def test_held_out_frames_lie_between_frames_that_train(dataset, every):
    for num_frames in range(1, 41):
        short = dataclasses.replace(dataset, frames=dataset.frames[:, :, np.arange(num_frames) % 21])
        held, trained = held_out_frames(short, every), train_frames(short, every)
        assert sorted([*held, *trained]) == list(range(num_frames))
        assert {0, num_frames - 1} <= set(trained)
        assert all({frame - 1, frame + 1} <= set(trained) for frame in held)
        assert len(held) == max(num_frames - 1, 0) // every  # no more are lost than the last one
    twenty = dataclasses.replace(dataset, frames=dataset.frames[:, :, :20])
    assert held_out_frames(twenty, 5).tolist() == [4, 9, 14]


def test_images_cameras_and_times_belong_together_and_nothing_held_out_is_drawn(dataset):
    sampler = Sampler(dataset, seed=3)
    seen = [set(), set(), set()]
    for step in range(60):
        batch = sampler.sample(step)
        motions, views, frames = decode(batch)
        assert batch.images.shape == (4, 3, 2, 8, 8, 4)
        np.testing.assert_array_equal(motions, np.broadcast_to(batch.motions[:, None, None], motions.shape))
        np.testing.assert_array_equal(
            batch.cameras.world_to_camera[:, :, None], dataset.cameras.world_to_camera[views][:, :, :1]
        )
        np.testing.assert_array_equal(views, np.broadcast_to(views[:, :, :1], views.shape))
        np.testing.assert_allclose(batch.times, frames[:, 0] / 21, rtol=1e-6)
        assert batch.times.dtype == np.float32
        assert len(set(batch.motions)) == 4
        assert all(len(set(row)) == 3 for row in views[:, :, 0])
        assert all(len(set(row)) == 2 for row in frames[:, 0])
        np.testing.assert_array_equal(batch.novel, (views != 0) & (frames != 0))
        for values, found in zip(seen, (motions, views, frames)):
            values |= set(found.ravel())
    assert seen == [set(range(5)), {0, 2, 3, 4}, set(range(21)) - {4, 9, 14, 19}]


def test_a_batch_depends_on_seed_and_step_only(dataset):
    one, again = Sampler(dataset, seed=1), Sampler(dataset, seed=1)
    one.sample(0)
    np.testing.assert_array_equal(one.sample(5).images, again.sample(5).images)
    assert not np.array_equal(one.sample(5).images, Sampler(dataset, seed=2).sample(5).images)
    assert not np.array_equal(one.sample(5).images, one.sample(6).images)


def test_few_motions_repeat_and_motion_ids_choose(dataset):
    batch = Sampler(dataset, motion_ids=(6,)).sample(0)
    assert batch.motions.tolist() == [6, 6, 6, 6]
    np.testing.assert_array_equal(decode(batch)[0], 6)


def test_resolution_changes_images_and_intrinsics(dataset):
    batch = dataclasses.replace(Sampler(dataset, seed=1), resolution=4).sample(2)
    full = Sampler(dataset, seed=1).sample(2)
    assert batch.images.shape[3:5] == (4, 4)
    assert (batch.cameras.height, batch.cameras.width) == (4, 4)
    np.testing.assert_allclose(batch.cameras.focal, full.cameras.focal / 2)
    np.testing.assert_array_equal(batch.images[..., 0, 0, :], full.images[..., 0, 0, :])


def test_impossible_batches_are_refused(dataset):
    cases = {"batch_views": 5, "batch_frames": 18, "resolution": 16}
    for key, value in cases.items():
        with pytest.raises(UserError, match=f"{key}: found {value}"):
            Sampler(dataset, **{key: value})


def test_downsampling_averages_premultiplied_colour():
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0] = (200, 100, 0, 255)
    image[0, 1] = (7, 255, 255, 0)  # unseen colour must not bleed
    image[1, 0] = (100, 100, 100, 127)
    alpha = (255 + 127) / 4
    expected = [(200 * 255 + 100 * 127) / 382, 100, 100 * 127 / 382, alpha]
    np.testing.assert_array_equal(downsample(image, 1, 1)[0, 0], np.rint(expected))


def test_general_ratios_match_an_exact_enlargement():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 14, 10, 4)).astype(np.uint8)
    images[..., 3] = 255
    for height, width in ((5, 4), (7, 3), (9, 10)):
        enlarged = images.repeat(height, 1).repeat(width, 2).astype(float)
        exact = enlarged.reshape(3, height, 14, width, 10, 4).mean((2, 4))
        np.testing.assert_allclose(downsample(images, height, width), exact, atol=0.51)


def test_prefetch_yields_the_samplers_batches_in_order(dataset):
    sampler = Sampler(dataset, seed=4)
    stream = prefetch(sampler, 7, transfer=lambda batch: batch)
    for step in range(7, 12):
        np.testing.assert_array_equal(next(stream).images, sampler.sample(step).images)
    stream.close()


class Failing:
    """Raises at step 2."""

    def sample(self, step: int) -> int:
        if step == 2:
            raise UserError("frame 2 is gone")
        return step


def test_an_error_in_the_thread_reaches_the_consumer_at_its_step():
    stream = prefetch(Failing(), 0, transfer=lambda batch: batch)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(UserError, match="frame 2 is gone"):
        next(stream)


def test_closing_stops_the_thread(dataset):
    before = {thread for thread in threading.enumerate() if thread.name == "prefetch"}
    stream = prefetch(Sampler(dataset), 0, depth=1, transfer=lambda batch: batch)
    next(stream)
    started = {thread for thread in threading.enumerate() if thread.name == "prefetch"} - before
    assert len(started) == 1
    stream.close()
    deadline = time.monotonic() + 5
    while any(thread.is_alive() for thread in started) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.is_alive() for thread in started)


def test_the_reference_view_can_be_named(dataset):
    name = dataset.view_names[2]
    batch = Sampler(dataset, seed=3, reference_view=name).sample(0)
    _, views, frames = decode(batch)
    np.testing.assert_array_equal(batch.novel, (views != 2) & (frames != 0))
    assert 0 < batch.novel.sum() < batch.novel.size
    with pytest.raises(UserError, match=r"config.data.reference_view: found 'nope', expected a view of"):
        Sampler(dataset, reference_view="nope")
