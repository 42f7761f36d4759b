"""Frames of a folder decoded once and mapped; frames kept on the device."""

import jax
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.device_frames import flatten_frames, look_up, shrink
from dimo_jax.data.formats import native
from dimo_jax.data.formats.native import read_dataset, write_dataset
from dimo_jax.data.sampler import Sampler, downsample
from dimo_jax.data.sources import load


@pytest.fixture(scope="module")
def dataset():
    """Two motions, two views, three frames of noise, 16 px."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 16, 16, 4), np.uint8)
    cameras = orbit((0, 90), 0, radius=2.0, fov_deg=33.9, height=16, width=16)
    names = ("a", "b")
    return Dataset(frames, cameras, names, names, ("train",) * 2, ("x", "y"), ("train",) * 2, 12.0, "noise")


def test_frames_are_decoded_once_and_mapped(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    write_dataset(dataset, folder)
    stored = read_dataset(folder, store="disk")
    assert isinstance(stored.frames, np.memmap)
    assert not stored.frames.flags.writeable
    np.testing.assert_array_equal(stored.frames, dataset.frames)
    with monkeypatch.context() as patch:
        patch.setattr(native, "run_all", None)  # nothing is decoded again
        np.testing.assert_array_equal(read_dataset(folder, store="disk").frames, dataset.frames)
    image = folder / "a" / "x" / "00001.png"
    (folder / "a" / "x" / "00000.png").replace(image)
    (folder / "a" / "x" / "00000.png").write_bytes(image.read_bytes())
    changed = read_dataset(folder, store="disk").frames
    np.testing.assert_array_equal(changed[0, 0, 1], dataset.frames[0, 0, 0])


def test_what_a_killed_process_left_in_the_cache_goes(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path / "cache"))
    write_dataset(dataset, tmp_path / "data")
    read_dataset(tmp_path / "data", store="disk")
    (store,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    left = store.with_name(f".{store.name}-abc12345")
    store.rename(left)  # a store that was not finished
    other = left.with_name(".frames-of-another-set-1")
    other.mkdir()
    np.testing.assert_array_equal(read_dataset(tmp_path / "data", store="disk").frames, dataset.frames)
    assert store.is_dir()
    assert other.is_dir()
    assert not left.exists()


def test_small_sets_are_read_into_memory_and_other_stores_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path / "cache"))
    write_dataset(dataset, tmp_path / "data")
    assert not isinstance(load({"path": str(tmp_path / "data")}).frames, np.memmap)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(native, "MIN_STORED_BYTES", 1000)
    assert isinstance(load({"path": str(tmp_path / "data")}).frames, np.memmap)
    with pytest.raises(UserError, match=r"config\.data\.store: found 'tape', expected one of auto, memory, disk"):
        load({"path": str(tmp_path / "data"), "store": "tape"})


def test_frames_on_the_device_are_the_samplers(dataset):
    options = dict(batch_motions=2, batch_views=1, batch_frames=2, held_out_every=0, resolution=8)
    truth = Sampler(dataset, **options).sample(4)
    found = jax.jit(look_up)(flatten_frames(dataset), Sampler(dataset, **options, as_indices=True).sample(4))
    jax.tree.map(np.testing.assert_array_equal, found, truth)


@pytest.mark.parametrize("size", [(4, 8), (5, 3), (16, 16)])
def test_shrinking_on_the_device_is_downsampling(dataset, size):
    images = dataset.frames[0, 0]
    difference = np.asarray(shrink(images, *size), int) - downsample(images, *size)
    assert np.max(np.abs(difference)) <= (1 if size == (5, 3) else 0)  # a half is rounded either way
