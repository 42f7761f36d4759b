import numpy as np
import pytest

from dimo_jax.data.clips import ClipShards
from dimo_jax.metrics.generated import (
    compare_subject,
    is_dynamic,
    joint_error,
    judge_videos,
    measure_smoothness,
    warped_error,
)
from dimo_jax.rigs.drawn_maps import recover_drawn


@pytest.fixture(scope="module")
def shards(clip_shards):
    return ClipShards(clip_shards)


def test_true_pose_maps_give_the_true_points_and_stills_the_rest(shards):
    sample = shards.select("clip")[0]
    true, rig = shards.read(sample), shards.rigs["puppet"]
    lifted = recover_drawn(true.videos[:, 1], true.cameras, rig)
    error = joint_error(lifted.points, true.points, rig.diagonal)
    rest = joint_error(rig.rest[None], true.points, rig.diagonal)
    still = np.repeat(true.stills[:, 1, None], 4, axis=1)
    stood = joint_error(recover_drawn(still, true.cameras, rig).points, np.tile(rig.rest, (4, 1, 1)), rig.diagonal)
    assert error < 0.25 * rest
    assert stood < 0.25 * rest


def test_noise_throws_no_marker_far_off(shards):
    sample = shards.select("clip")[0]
    true, rig = shards.read(sample), shards.rigs["puppet"]
    noise = np.random.default_rng(0).integers(0, 256, true.videos[:, 1].shape).astype(np.uint8)
    lifted = recover_drawn(noise, true.cameras, rig)
    assert np.isfinite(lifted.points).all()
    assert joint_error(lifted.points, true.points, rig.diagonal) < 150


def test_warping_forgives_another_speed_and_no_other_pose():
    truth = np.linspace(0, 1, 9)[:, None, None] * np.ones((1, 2, 3))
    slow = truth[[0, 0, 1, 2, 3, 4, 5, 6, 8]]
    assert joint_error(slow, truth, 1.0) > 5
    assert warped_error(slow, truth, 1.0) < 0.4 * joint_error(slow, truth, 1.0)
    assert warped_error(truth, truth, 1.0) == 0
    assert warped_error(truth[::-1], truth, 1.0) > 30
    np.testing.assert_allclose(warped_error(0 * truth + 1, 0 * truth + 3, 2.0), 100 * np.sqrt(3), rtol=1e-9)


def test_figures_of_pictures_have_their_order(shards):
    sample = shards.select("clip")[0]
    true = shards.read(sample)
    videos, stills = true.videos[:, 0], true.stills[:, 0]
    assert compare_subject(videos, stills) > 0.9 > compare_subject(255 - videos, stills)
    still = np.repeat(stills[:, None], 4, axis=1)
    np.testing.assert_allclose(compare_subject(still, stills), 1)
    assert measure_smoothness(still) == 1 > measure_smoothness(videos)


def test_what_moves_is_dynamic():
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    texture = np.repeat(np.repeat(rng.integers(0, 255, (16, 32, 3)), 4, axis=0), 4, axis=1).astype(np.uint8)
    moving = np.stack([texture[:, 3 * t : 3 * t + 64] for t in range(5)])
    assert is_dynamic(moving)
    assert not is_dynamic(np.repeat(moving[:1], 5, axis=0))


def test_a_sample_is_judged_as_a_whole(shards):
    pytest.importorskip("cv2")
    sample = shards.select("clip")[0]
    true = shards.read(sample)
    row = judge_videos(true.videos, true.stills, true.points, true.cameras, shards.rigs["puppet"])
    assert set(row) == {"mpjpe", "warped", "seen", "subject", "smoothness", "dynamic"}
    assert row["warped"] <= row["mpjpe"]
    assert 0.3 < row["seen"] <= 1
