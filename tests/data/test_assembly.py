"""Imports need the memory of single frames, say what they will take, and leave nothing behind that is half done."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from support.recordings import disc_frames, draw_disc, write_authors, write_cameras, write_video

from dimo_jax.apps.import_data import run
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats import assembly
from dimo_jax.data.formats.assembly import assemble, plan_recording, write_recording
from dimo_jax.data.formats.authors import describe_authors
from dimo_jax.data.formats.camera_file import describe_videos
from dimo_jax.data.formats.native import read_dataset, write_dataset
from dimo_jax.data.sources import load
from dimo_jax.io.clocks import Sampling
from dimo_jax.io.matte import Matte
from dimo_jax.runtime import capacity_checks

VIEWS = [{"name": name, "azimuth_deg": azimuth, "fov_deg": 33.9} for name, azimuth in (("front", 0), ("side", 90))]


def write_set(folder, *, count=5):
    folder = write_cameras(folder, VIEWS, frame_rate=10)
    for motion in ("walk", "jump"):
        for view in ("front", "side"):
            write_video(folder / motion / f"{view}.mp4", disc_frames(count))
    return folder


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(num_frames=3, size=16), Sampling(frame_rate=15)])
def test_what_is_written_is_what_is_read_into_memory(tmp_path, sampling):
    folder = write_set(tmp_path / "set")
    lines = []
    plan = plan_recording(describe_videos(folder), sampling=sampling)
    blank = write_recording(plan, tmp_path / "streamed", report=lines.append)
    dataset = assemble(describe_videos(folder), sampling=sampling)
    write_dataset(dataset, tmp_path / "whole")
    streamed, whole = read_dataset(tmp_path / "streamed"), read_dataset(tmp_path / "whole")
    np.testing.assert_array_equal(streamed.frames, whole.frames)
    for name in ("dataset.json", "captions.txt"):
        assert (tmp_path / "streamed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert blank.frames.shape == whole.frames.shape
    motions, views, frames, height, width, _ = whole.frames.shape
    assert lines[0].startswith(f"{motions} motions x {views} views x {frames} frames of {width}x{height}: ")
    assert "of pictures as uint8, about " in lines[0]


def test_an_import_holds_single_frames_in_memory(tmp_path, monkeypatch):
    folder = write_cameras(tmp_path / "set", VIEWS[:1], frame_rate=10)
    picture = Image.fromarray(draw_disc(0.5, size=256)[0])
    for motion in range(3):
        target = folder / f"m{motion}/front"
        target.mkdir(parents=True)
        for index in range(40):
            picture.save(target / f"{index}.png", compress_level=1)
    plan = plan_recording(describe_videos(folder), matte=Matte(how="none"))
    monkeypatch.setattr(assembly, "MAX_WORKERS", 1)
    tracemalloc.start()
    write_recording(plan, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.num_bytes == 3 * 40 * 256 * 256 * 4
    assert peak < plan.num_bytes / 10


@pytest.mark.parametrize("kind", ["videos", "authors"])
def test_an_import_that_fails_late_leaves_nothing(tmp_path, kind):
    if kind == "videos":
        folder = write_set(tmp_path / "set")
        write_video(folder / "walk/side.mp4", np.full((5, 32, 32, 3), 255, np.uint8))  # nothing but ground
        message = r"walk/side\.mp4: nothing is left of any of 5 frames"
    else:
        folder = write_authors(tmp_path / "set")
        (folder / "walk/view_01/02.png").write_bytes((folder / "walk/view_01/02.png").read_bytes()[:200])
        message = r"02\.png: cannot be read"
    with pytest.raises(UserError, match=message):
        run(source=str(folder), out=str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(tmp_path, monkeypatch):
    folder = write_set(tmp_path / "set")
    monkeypatch.setattr(capacity_checks.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"out: found 1 kB free on its disk, expected .* kB \(--size or --num_frames"):
        run(source=str(folder), out=str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_data_larger_than_memory_is_said_or_kept_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path / "cache"))
    folder = write_authors(tmp_path / "set")
    whole = load({"path": str(folder), "store": "memory"}).frames
    write_dataset(load({"path": str(folder)}), tmp_path / "native")
    monkeypatch.setattr(capacity_checks, "free_memory", lambda: 30_000.0)
    for path in (folder, tmp_path / "native"):
        with pytest.raises(UserError, match=r"of frames do not fit into memory, of which 30 kB are free"):
            load({"path": str(path), "store": "memory"})
        stored = load({"path": str(path), "store": "disk"}).frames
        assert isinstance(stored, np.memmap)
        np.testing.assert_array_equal(stored, whole)
    with pytest.raises(
        UserError, match=r"2 motions x 2 views x 3 frames of 32x32: 49\.2 kB of pictures as uint8 do not"
    ):
        assemble(describe_authors(folder))


def test_limits_of_memory_are_read():
    free = capacity_checks.free_memory()
    assert 1e6 < free < float("inf")
    capacity_checks.check_memory(free / 2, "x", otherwise="y")
    with pytest.raises(UserError, match=r"x do not fit into memory, of which .* are free, expected .* \(y\)"):
        capacity_checks.check_memory(2 * free, "x", otherwise="y")
