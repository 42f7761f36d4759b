"""Checkpoints appear whole or not at all, and what is damaged is named and left out."""

import errno
import os
import shutil
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dimo_jax.core.errors import UserError, WriteFailed
from dimo_jax.runtime.manifest import MANIFEST_FILE
from dimo_jax.training import checkpoints as module
from dimo_jax.training.checkpoints import Checkpoints


def make_state(value, size=1000):
    return {"a": jnp.full((size, 3), value), "step": jnp.int32(value), "alive": jnp.arange(5) < value}


TEMPLATE = jax.eval_shape(lambda: make_state(0))


def save_some(folder, steps=(1, 2, 3), **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), notes={"lost": step})
    return checkpoints


def latest(folder, **options):
    return Checkpoints(folder, **options).restore_latest(lambda step: TEMPLATE)


def assert_is(found, step):
    assert found[0] == step
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(make_state(step)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_state_and_notes_come_back(tmp_path):
    checkpoints = save_some(tmp_path)
    assert checkpoints.steps() == [3, 2, 1]
    assert checkpoints.notes(2) == {"lost": 2}
    assert_is(latest(tmp_path), 3)
    assert_is(Checkpoints(tmp_path).restore_latest(lambda step: TEMPLATE, before=3), 2)
    assert latest(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_saved_state_is_a_copy(tmp_path):
    change = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(100_000)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": x})
        for _ in range(20):
            x = change(x)
    np.testing.assert_array_equal(Checkpoints(tmp_path).restore(1, {"x": np.zeros(100_000, np.float32)})["x"], 0)


def test_latest_and_the_best_are_kept(tmp_path):
    scores = [None, [1, 64, 30.0], [2, 32, 25.0], [2, 64, 20.0], [2, 64, 22.0], [2, 64, 21.0], [2, 64, 19.0], None]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in enumerate(scores, start=1):
            checkpoints.save(step, make_state(1, size=1), notes={"score": score})
    assert checkpoints.steps() == [8, 7, 5]
    assert checkpoints.best() == 5


def damage(path, how):
    shards = sorted((p for p in (path / "default").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    shard = shards[-1]
    if how == "flipped bit":
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif how == "missing shard":
        shard.unlink()
    elif how == "cut shard":
        shard.write_bytes(shard.read_bytes()[:-10])
    elif how == "no manifest":
        (path / MANIFEST_FILE).unlink()
    elif how == "cut manifest":
        (path / MANIFEST_FILE).write_text((path / MANIFEST_FILE).read_text()[:50])
    return shard.relative_to(path).as_posix()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("flipped bit", "{shard} has another content than was written"),
        ("missing shard", "{shard} is missing"),
        ("cut shard", "{shard} has "),
        ("no manifest", "manifest.json is missing or cannot be read"),
        ("cut manifest", "manifest.json is missing or cannot be read"),
    ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, caplog, how, says):
    save_some(tmp_path)
    shard = damage(tmp_path / "checkpoints/3", how)
    assert_is(latest(tmp_path), 2)
    assert f"checkpoint 3 is damaged or of another config ({says.format(shard=shard)}" in caplog.text
    assert Checkpoints(tmp_path).steps() == [3, 2, 1]  # a reader changes nothing
    with Checkpoints(tmp_path, owner=True) as checkpoints:
        assert_is(checkpoints.restore_latest(lambda step: TEMPLATE), 2)
        assert (tmp_path / "damaged/3").is_dir()
        checkpoints.save(3, make_state(3))
    assert_is(latest(tmp_path), 3)


def test_other_shapes_are_refused(tmp_path):
    save_some(tmp_path, steps=(1,))
    other = jax.eval_shape(lambda: make_state(0, size=999))
    with pytest.raises(UserError, match=r"none of the checkpoints \[1\] can be read with this config"):
        Checkpoints(tmp_path).restore_latest(lambda step: other)


def test_half_written_checkpoint_is_removed_by_the_owner_only(tmp_path, caplog):
    save_some(tmp_path)
    part = tmp_path / "checkpoints/.4.part"
    shutil.copytree(tmp_path / "checkpoints/3/default", part / "default")
    assert_is(latest(tmp_path), 3)
    assert part.exists()
    assert_is(latest(tmp_path, owner=True), 3)
    assert not part.exists()
    assert "checkpoints/.4.part, a checkpoint that was not written" in caplog.text


def test_checkpoints_of_orbax_own_manager_are_read(tmp_path):
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(7, args=ocp.args.StandardSave(make_state(7)))
    assert_is(latest(tmp_path), 7)


@pytest.mark.parametrize("place", ["state", "notes", "manifest", "rename"])
def test_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, place):
    """ENOSPC is raised in place of each part of the writing."""

    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoints = save_some(tmp_path, steps=(1,))
    owner, name = {
        "state": (ocp.Checkpointer, "save"),
        "notes": (module, "write_json"),
        "manifest": (module.manifest, "write_manifest"),
        "rename": (type(tmp_path), "rename"),
    }[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        checkpoints.save(2, make_state(2))
        with pytest.raises(
            WriteFailed, match=r"checkpoint 2 could not be written \(No space left on device\); .* 1 is"
        ):
            checkpoints.wait()
    assert os.listdir(tmp_path / "checkpoints") == ["1"]
    with checkpoints:
        checkpoints.save(2, make_state(2))
    assert_is(latest(tmp_path), 2)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here; the tests above raise ENOSPC themselves")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_that_fills_up(small_disk):
    noise = jax.random.bits(jax.random.key(0), (80_000,))  # 320 kB that do not compress
    template = jax.eval_shape(lambda: {"x": noise})
    checkpoints = Checkpoints(small_disk, keep=5)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": noise + step})
    with pytest.raises(WriteFailed, match=r"checkpoint 3 could not be written .*checkpoint 2 is intact"):
        checkpoints.wait()
    assert sorted(os.listdir(small_disk / "checkpoints")) == ["1", "2"]
    step, state = Checkpoints(small_disk, owner=True).restore_latest(lambda step: template)
    assert step == 2
    np.testing.assert_array_equal(state["x"], noise + 2)


def test_saving_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    original = module.manifest.write_manifest
    monkeypatch.setattr(module.manifest, "write_manifest", lambda folder: (time.sleep(1.0), original(folder)))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_state(1))
    assert checkpoints.steps() == []
    checkpoints.wait()
    assert checkpoints.steps() == [1]
