"""What a run does when something goes wrong: a signal, NaN, a full disk, a second run.

Steps are faked in all tests but one, because it is not they that are tested.
"""

import contextlib
import errno
import json
import os
import re
import signal
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dimo_jax.apps import replay, train
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import Stopped, UserError, WriteFailed
from dimo_jax.io.metrics_log import read_metrics
from dimo_jax.runs import disk_space
from dimo_jax.runs.build import build_system
from dimo_jax.runs.checks import check_workdir
from dimo_jax.runs.lifecycle import occupy
from dimo_jax.runs.recorder import Recorder
from dimo_jax.runtime.files import replace_file
from dimo_jax.runtime.lock import hold
from dimo_jax.runtime.status import read_status
from dimo_jax.systems.dimo import system as dimo_system
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.loop import fit
from dimo_jax.training.system import Metrics
from dimo_jax.training.tracker import LossNotFinite
from dimo_jax.training.trainer import Trainer


class Steps:
    """Steps that only count, in place of compiled ones; remembers each one's number and buffers."""

    def __init__(self):
        self.taken, self.overflow, self.nan_at, self.after = [], {}, None, lambda step: None

    def compile(self, trainer, buffers, resolution, reason):
        def train(state, batch, fixed, key):
            step = int(state.step) + 1
            self.taken.append((step, buffers.pairs))
            self.after(step)
            loss = jnp.float32(np.nan if step == self.nan_at else 1)
            lost = jnp.int32(self.overflow.get(step, 0))
            metrics = Metrics(loss, {"rgb": loss, "kl": jnp.float32(1)}, loss, lost, jnp.zeros((2, 4, 4, 3)))
            return state.replace(step=state.step + 1), metrics

        return train


@pytest.fixture
def steps(monkeypatch):
    steps = Steps()
    monkeypatch.setattr(Trainer, "_compile", lambda *arguments: steps.compile(*arguments))
    return steps


def make_config(**changes):
    """The first stage only, which no test's steps reach the end of."""
    config = tiny.make_config(num_steps=(1000, 1000), checkpoint_every=5)
    config.stage1.update(densify_every=0, anneal_every=0, refresh_every=0)
    config.update(changes)
    return config


def run_until(last, steps, folder, config):
    """Trains in `folder` up to a step at which SIGTERM arrives."""
    steps.after = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == last else None
    with contextlib.suppress(Stopped):
        tiny.train(folder, config)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_the_step_at_hand(tmp_path, steps, number):
    before = signal.getsignal(number)
    steps.after = lambda step: os.kill(os.getpid(), number) if step == 7 else None
    with pytest.raises(Stopped, match=f"{number.name} after step 7, which is saved") as caught:
        tiny.train(tmp_path, make_config())
    assert (caught.value.exit_code, caught.value.label) == (75, "stopped")
    assert signal.getsignal(number) is before
    assert Checkpoints(tmp_path).steps() == [7, 5]
    assert read_status(tmp_path)["state"] == "stopped"
    assert f"stopped: {number.name} after step 7" in (tmp_path / "train.log").read_text()
    steps.taken.clear()
    run_until(9, steps, tmp_path, make_config())
    assert [step for step, _ in steps.taken] == [8, 9]


def test_resumed_run_has_the_room_and_the_reports_of_the_unbroken_one(tmp_path, steps):
    """Overflow is looked at every 5 steps, then the buffers grows; what was lost before a stop is not forgotten."""
    config = make_config(checkpoint_every=1000)
    config.render.capacity = 8
    steps.overflow = {3: 1, 6: 2, 12: 3}

    def run(name, stops):
        steps.taken.clear()
        for last in stops:
            run_until(last, steps, tmp_path / name, config)
        return list(steps.taken), tiny.without_times(read_metrics(tmp_path / name / "metrics.jsonl"))

    taken, rows = run("unbroken", [20])
    assert taken == [(i, 8) for i in range(1, 6)] + [(i, 12) for i in range(6, 11)] + [
        (i, 18) for i in range(11, 16)
    ] + [(i, 27) for i in range(16, 21)]
    assert [(row["step"], row["overflow"]) for row in rows] == [(5, 1), (10, 2), (15, 3), (20, 0)]
    assert run("broken", [7, 13, 20]) == (taken, rows)


def test_nan_loss_stops_with_the_batch_saved_and_the_last_checkpoint_intact(tmp_path, steps):
    steps.nan_at = 13
    config = make_config(log_every=20)
    with pytest.raises(LossNotFinite) as caught:
        tiny.train(tmp_path, config)
    path = tmp_path / "nonfinite/step_000013.npz"
    says = f"step 13: the loss is nan (terms: rgb); its batch is in {path}, checkpoint 10 is intact, and --app=replay"
    assert str(caught.value).startswith(says)
    assert Checkpoints(tmp_path).steps() == [10, 5]
    assert json.loads(path.with_suffix(".json").read_text())["terms"] == ["rgb"]
    with np.load(path) as saved:
        np.testing.assert_array_equal(saved["images"], caught.value.batch.images)
        assert saved["images"].shape == (2, 2, 2, 16, 16, 4)
        assert saved["cameras.focal"].shape == (2, 2, 2)
    assert read_status(tmp_path)["message"] == str(caught.value)

    found, first = replay.replay(config, tiny.make_dataset(), Checkpoints(tmp_path), 13)
    assert (found.step, found.terms, first) == (13, ("rgb",), 10)
    steps.nan_at = None
    assert replay.replay(config, tiny.make_dataset(), Checkpoints(tmp_path), 13) == (None, 10)
    with pytest.raises(UserError, match=r"--step: found 4, expected one of 13 \(batches in"):
        replay._find(tmp_path, 4)


def test_run_that_ends_before_its_first_checkpoint_begins_anew(tmp_path, steps):
    steps.nan_at = 8
    config = make_config(checkpoint_every=1000)
    with pytest.raises(LossNotFinite, match="there is no checkpoint yet"):
        tiny.train(tmp_path, config)
    steps.nan_at = None
    run_until(12, steps, tmp_path, config)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [5, 10]


def test_disk_that_fills_up_ends_with_one_line(tmp_path, steps, monkeypatch):
    """The file system's error is raised in place of a write to metrics.jsonl."""
    write = Recorder.scalars

    def fail(self, step, stage, values):
        if step == 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "metrics.jsonl"))
        write(self, step, stage, values)

    monkeypatch.setattr(Recorder, "scalars", fail)
    says = re.escape(f"{tmp_path / 'metrics.jsonl'}: cannot be written (No space left on device); the last checkpoint")
    with pytest.raises(WriteFailed, match=says) as caught:
        tiny.train(tmp_path, make_config())
    assert caught.value.exit_code == 4
    assert Checkpoints(tmp_path).steps() == [5]
    assert read_status(tmp_path)["state"] == "failed"
    monkeypatch.setattr(Recorder, "scalars", write)
    run_until(12, steps, tmp_path, make_config())
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [5, 10]


def test_second_run_in_a_workdir_is_refused_at_once(tmp_path):
    with hold(tmp_path), pytest.raises(UserError, match=f"--workdir=.*: in use by process {os.getpid()} on"):
        train.run(config=tiny.make_config(), workdir=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_folder_of_a_run_killed_before_it_wrote_its_config_can_be_used(tmp_path):
    with occupy(tmp_path):
        with replace_file(tmp_path / "config.json") as temporary:
            temporary.write_text("{")
        (tmp_path / "config.json").rename(temporary)  # as a run that is killed here leaves it
    assert {path.name for path in tmp_path.iterdir()} >= {".lock", "status.json", "train.log"}
    check_workdir(tiny.make_config(), tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(thesis\.tex\)"):
        check_workdir(tiny.make_config(), tmp_path)


def test_too_small_a_disk_is_refused_before_training(tmp_path, monkeypatch):
    config = make_config()
    system = build_system(config, tiny.make_dataset())
    needed = disk_space.needed_bytes(config, system)
    usage = disk_space.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(UserError, match=r"64 MiB are free there, expected 64 MiB, for 5 checkpoints"):
        disk_space.check_disk_space(config, system, tmp_path / "new/run")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage._replace(free=needed))
    disk_space.check_disk_space(config, system, tmp_path / "new/run")


def poison(inputs):
    """A term whose value is 0 and whose gradient is NaN."""
    return jnp.sqrt(jnp.sum(0 * inputs.opacities))


@pytest.mark.slow
def test_replay_finds_the_gradient_that_the_loss_does_not_show(tmp_path, capsys, monkeypatch):
    config = tiny.make_config(num_steps=(20, 1), checkpoint_every=5)
    config.stage1.update(densify_every=0, anneal_every=0, refresh_every=0)
    config.log_every = 20
    config.stage1.losses.poison = dict(fn=f"{__name__}:poison", weight=1.0, start=7)
    with pytest.raises(LossNotFinite, match=r"step 9: the loss is nan .*checkpoint 5 is intact"):
        tiny.train(tmp_path, config)
    monkeypatch.setattr(replay, "load_data", lambda config, facts: tiny.make_dataset())
    monkeypatch.setattr(replay, "read_facts", lambda folder: {})
    replay.run(workdir=str(tmp_path))
    said = capsys.readouterr().out
    assert "replayed:        steps 6 to 8, from checkpoint 5" in said
    assert re.search(r"first bad:       step 8: \d+ of \d+ numbers of .*logit_opacities are NaN, though its", said)
    assert re.search(r"motion of batch: [ab], frames \d, \d", said)


def test_fit_waits_for_its_last_checkpoint(watcher, steps):
    """`fit` with a store that keeps nothing, as other programs call it."""
    reasons = iter(["", "", "enough"])
    config, dataset = make_config(), tiny.make_dataset()
    system = build_system(config, dataset)
    with pytest.raises(Stopped, match="enough after step 3"):
        fit(config, system, dataset, watcher, watcher, stop=lambda: next(reasons, "enough"))
    assert watcher.last == 3


def test_disk_space_is_asked_for_a_projector_too(tmp_path, monkeypatch):
    config, dataset = make_config(), tiny.make_dataset()
    config.text = get_config("smoke").text
    without = disk_space.needed_bytes(config, build_system(config, dataset))
    config.text.joint = True
    sentences = SimpleNamespace(inputs=np.zeros((2, 1, 384), np.float32))
    monkeypatch.setattr(dimo_system, "read_joint_sentences", lambda config, dataset: sentences)
    system = build_system(config, dataset)
    assert system.facts() == dict(num_text_features=384)
    assert disk_space.needed_bytes(config, system) > without
    disk_space.check_disk_space(config, system, tmp_path)
