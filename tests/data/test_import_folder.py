"""Import to disk: what is written, and that a stopped import goes on, redoes nothing and leaves no half dataset."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.gltf_writer import moving_square

from dimo_jax.apps import import_data
from dimo_jax.cameras.turntable import Turntable
from dimo_jax.core.errors import UserError, WriteFailed
from dimo_jax.data.formats.native import read_dataset, write_view
from dimo_jax.data.formats.rigged import passes
from dimo_jax.data.formats.rigged.folder import import_folder, staging_of
from dimo_jax.data.formats.rigged.passes import Timing
from dimo_jax.data.formats.rigged.plan import Options, import_gltf
from dimo_jax.runtime import capacity_checks
from dimo_jax.runtime.lock import hold

ROOT = Path(__file__).resolve().parents[2]
TURNTABLE = Turntable(size=24, azimuths_deg=(0.0, 75.0), test_azimuths_deg=(130.0,), samples=1)
SMALL = Options(timing=Timing(num_frames=3), turntable=TURNTABLE, num_surface_points=16)


@pytest.fixture
def walker(tmp_path):
    writer = moving_square("Walk_Far", double_sided=True)
    writer.clip("SpinAround", 0, "rotation", [0.0, 2.0], np.array([[0, 0, 0, 1], [0, 1, 0, 0]]))
    return writer.write(tmp_path / "walker.glb")


@pytest.fixture
def stopped(walker, tmp_path, monkeypatch):
    """The target of an import that was stopped in the middle of its fifth video of six."""
    written = []

    def stop(folder, frames):
        if len(written) == 4:
            write_view(folder, list(frames)[:1])
            raise KeyboardInterrupt
        written.append(write_view(folder, frames))

    monkeypatch.setattr(passes, "write_view", stop)
    with pytest.raises(KeyboardInterrupt):
        import_folder(walker, tmp_path / "data", SMALL)
    monkeypatch.undo()
    return tmp_path / "data"


def _pictures(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def _assert_equal(found, expected):
    for name in ("frames", "surface", "joints"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.cameras.world_to_camera, expected.cameras.world_to_camera)
    for name in ("names", "captions", "splits", "view_names", "view_splits", "frame_rate", "object_name", "height"):
        assert getattr(found, name) == getattr(expected, name), name


def test_folder_holds_what_the_import_in_memory_returns(walker, tmp_path):
    options = replace(SMALL, test_clips=("spin*",))
    written = import_folder(walker, tmp_path / "deep" / "data", options)
    _assert_equal(read_dataset(tmp_path / "deep" / "data"), import_gltf(walker, options))
    assert (written.num_motions, written.num_views, written.num_frames) == (2, 3, 3)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["data"]
    assert not list((tmp_path / "deep" / "data").glob(".*"))


@pytest.mark.parametrize("short", ["memory", "disk"])
def test_a_model_that_does_not_fit_is_said_before_anything_is_written(walker, tmp_path, monkeypatch, short):
    if short == "memory":
        monkeypatch.setattr(capacity_checks, "free_memory", lambda: 1e3)
        message = r"walker\.glb: \d clips of 3 frames of \d+ vertices do not fit into memory, of which 1 kB are free"
    else:
        monkeypatch.setattr(capacity_checks.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
        message = r"out: found 0\.1 kB free on its disk, expected .* kB \(--size, --num_frames or --clips"
    target = tmp_path / "new/out"
    with pytest.raises(UserError, match=message):
        import_folder(walker, target, SMALL)
    assert not target.parent.exists()


def test_a_stopped_import_is_no_dataset_and_goes_on_where_it_was(walker, stopped, monkeypatch):
    assert not stopped.exists()
    with pytest.raises(UserError, match=r"found no dataset\.json"):
        read_dataset(staging_of(stopped))
    before = _pictures(staging_of(stopped))
    whole = {path: when for path, when in before.items() if not path.parent.name.startswith(".")}
    assert (len(before), len(whole)) == (4 * 3 + 1, 4 * 3)
    rendered = []

    def render(*args, **options):
        rendered.append(args)
        return render_view(*args, **options)

    render_view = passes.render_view
    monkeypatch.setattr(passes, "render_view", render)
    lines = []
    import_folder(walker, stopped, SMALL, report=lines.append)
    assert lines[0].startswith("2 motions x 3 views x 3 frames of 24x24: 41.5 kB of pictures as uint8, about ")
    assert lines[0].endswith("on disk still to come")
    assert lines[1:] == ["goes on after a stop: 4 of 6 videos are there"]  # and not a word of the first pass
    assert len(rendered) == 2
    after = _pictures(stopped)
    assert len(after) == 6 * 3
    assert {path: after[path] for path in whole} == whole
    _assert_equal(read_dataset(stopped), import_gltf(walker, SMALL))


@pytest.mark.parametrize("change", ["options", "model"])
def test_an_import_of_something_else_begins_anew(walker, stopped, change):
    options = replace(SMALL, turntable=replace(TURNTABLE, fov_deg=40.0)) if change == "options" else SMALL
    if change == "model":
        writer = moving_square("Walk_Far", double_sided=True)
        writer.clip("SpinAround", 0, "rotation", [0.0, 2.0], np.array([[0, 0, 0, 1], [1, 0, 0, 0]]))
        writer.write(walker)
    lines = []
    import_folder(walker, stopped, options, report=lines.append)
    assert any(line.endswith("removed, an unfinished import of another model or with other options") for line in lines)
    _assert_equal(read_dataset(stopped), import_gltf(walker, options))


def test_a_stop_before_the_plan_is_forgotten(walker, tmp_path):
    target = tmp_path / "data"
    (staging_of(target) / "Walk_Far").mkdir(parents=True)
    (staging_of(target) / "Walk_Far" / "truth.npz").write_bytes(b"half")
    lines = []
    import_folder(walker, target, SMALL, report=lines.append)
    assert not any("removed" in line for line in lines)
    _assert_equal(read_dataset(target), import_gltf(walker, SMALL))


def test_a_full_disk_keeps_what_is_done(walker, tmp_path, monkeypatch):
    def fail(folder, frames):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(passes, "write_view", fail)
    with pytest.raises(
        WriteFailed, match=r"data: cannot be written \(No space left on device\); the same command goes on"
    ):
        import_folder(walker, tmp_path / "data", SMALL)
    assert not (tmp_path / "data").exists()
    assert staging_of(tmp_path / "data").is_dir()


def test_two_imports_at_once_do_not_disturb_each_other(walker, stopped):
    before = _pictures(staging_of(stopped))
    for options in (SMALL, replace(SMALL, num_surface_points=8)):
        message = r"--out=.*-import: in use by process \d+ on .*; expected a folder in which nothing runs"
        with hold(staging_of(stopped)), pytest.raises(UserError, match=message):
            import_folder(walker, stopped, options)
        assert _pictures(staging_of(stopped)) == before
    import_folder(walker, stopped, SMALL)
    assert not list(stopped.glob(".*"))


def test_a_damaged_plan_is_named(walker, stopped):
    plan = staging_of(stopped) / ".plan.json"
    sound = json.loads(plan.read_text())
    for text in ("[" * 100_000, json.dumps(sound | {"center": [1]}), json.dumps(sound | {"scale": float("nan")})):
        plan.write_text(text)
        with pytest.raises(UserError, match=r"\.plan\.json: is damaged .* remove"):
            import_folder(walker, stopped, SMALL)
    plan.write_text("{")
    with pytest.raises(UserError, match=r"\.plan\.json: is damaged .* remove"):
        import_folder(walker, stopped, SMALL)


def test_num_views_spreads_the_cameras_evenly(walker, tmp_path):
    import_data.run(
        source=str(walker),
        out=str(tmp_path / "data"),
        num_views=3,
        test_azimuths="",
        size=16,
        num_frames=2,
        samples=1,
        num_surface_points=8,
        num_workers=1,
    )
    dataset = read_dataset(tmp_path / "data")
    poses = np.asarray(dataset.cameras.world_to_camera, float)
    eyes = -np.einsum("vij,vi->vj", poses[:, :3, :3], poses[:, :3, 3])
    np.testing.assert_allclose(np.rad2deg(np.arctan2(eyes[:, 0], eyes[:, 2])) % 360, [0, 120, 240], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(eyes, axis=1), 2.0, rtol=1e-6)
    np.testing.assert_allclose(np.rad2deg(np.arcsin(eyes[:, 1] / 2)), 10.0, rtol=1e-5)
    with pytest.raises(UserError, match="--num_views: found -1, expected at least 1"):
        import_data.run(source=str(walker), out=str(tmp_path / "other"), num_views=-1)
    with pytest.raises(UserError, match="num_views: found 3 beside --azimuths=0,90, expected one of them"):
        import_data.run(source=str(walker), out=str(tmp_path / "other"), num_views=3, azimuths="0,90")


def _children(process):
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the worker processes in /proc")
def test_a_killed_command_leaves_no_process_and_no_half_video(walker, tmp_path):
    target = tmp_path / "data"
    flags = [
        f"--source={walker}",
        f"--out={target}",
        "--size=256",
        "--num_frames=8",
        "--num_workers=2",
        "--num_views=6",
    ]
    command = [sys.executable, "launch.py", "--app=import_data", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: list(staging_of(target).glob("*/view_*")) or process.poll() is not None, 240)
        workers = _children(process.pid)
        assert len(workers) >= 2  # and one that looks after shared resources
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _wait(lambda: not any(_runs(worker) for worker in workers), 60)
    assert not target.exists()
    whole = {path: at for path, at in _pictures(staging_of(target)).items() if not path.parent.name.startswith(".")}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=400)
    after = _pictures(target)
    assert {path: after[path] for path in whole} == whole
    assert 0 < len(whole) < len(after) == 2 * 8 * 8
    assert read_dataset(target).frames[..., 3].any(axis=(3, 4)).mean() > 0.9  # a square seen edge on is not
    assert not staging_of(target).exists()
