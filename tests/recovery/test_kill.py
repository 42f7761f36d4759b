"""`kill -9` at 20 random moments: the run that is resumed each time ends as the unbroken one, hash for hash."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from dimo_jax.io.metrics_log import read_metrics
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[2]
NUM_KILLS = 20
SEED = 0
PLACES = ("state", "notes", "manifest", "folder", "deletion")
FIRST_STAGE, LAST_STEP = 16, 60


class Trainer:
    """A `trainer.py` as long as the test runs."""

    def __init__(self):
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(ROOT / "tests/recovery/trainer.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def live(self, folder, *, keep=3, after_start=None, after_first_step=None, while_writing=None):
        """How the process ended that trained in `folder`: 0, or minus the signal's number."""
        job = dict(
            folder=str(folder),
            keep=keep,
            seconds_per_step=0.0 if after_start is after_first_step is while_writing is None else 0.02,
            after_start=after_start,
            after_first_step=after_first_step,
            while_writing=while_writing,
        )
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        assert code in (0, -signal.SIGKILL), Path(f"{folder}.log").read_text()[-3000:]
        return code

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def trainer():
    trainer = Trainer()
    yield trainer
    trainer.close()


def plan_deaths():
    """Six in the writing of a checkpoint, three while starting, the others while training."""
    draw = random.Random(SEED)
    deaths = [dict(while_writing=(place, draw.randint(1, 2))) for place in (*PLACES, "state")]
    deaths += [dict(after_start=draw.uniform(0, 2)) for _ in range(3)]
    deaths += [dict(after_first_step=draw.uniform(0, 0.5)) for _ in range(NUM_KILLS - len(deaths))]
    draw.shuffle(deaths)
    return deaths


@functools.cache
def template(is_second_stage):
    config = tiny.make_config()
    step = LAST_STEP if is_second_stage else 0
    return stages.template(config, build_components(config), step=step, **tiny.SIZES)


def read_hashes(folder):
    """The hash of the state in every checkpoint; one that is damaged is an error."""
    checkpoints = Checkpoints(folder)
    steps = checkpoints.steps()
    return {step: tiny.hash_state(checkpoints.restore(step, template(step >= FIRST_STAGE))) for step in steps}


def read_rows(folder):
    return tiny.without_times(read_metrics(folder / "metrics.jsonl"))


@pytest.mark.slow
def test_killed_runs_end_as_the_unbroken_one(trainer, tmp_path):
    assert trainer.live(tmp_path / "unbroken", keep=100) == 0
    hashes, rows = read_hashes(tmp_path / "unbroken"), read_rows(tmp_path / "unbroken")
    assert sorted(hashes) == list(range(4, LAST_STEP + 1, 4))
    assert [row["step"] for row in rows] == [5, 10, 15, 16, 20, 25, 26, 30, 35, 40, 45, 50, 55, 60]

    def check_end(folder):
        found = read_hashes(folder)
        assert found == {step: hashes[step] for step in (52, 56, 60)}
        assert read_rows(folder) == rows
        assert not list((folder / "checkpoints").glob(".*"))

    broken, num_kills, num_runs = tmp_path / "broken_0", 0, 1
    for death in plan_deaths():
        # A run that ends before its death comes is compared, and another begins.
        while trainer.live(broken, **death) == 0:
            check_end(broken)
            broken, num_runs = tmp_path / f"broken_{num_runs}", num_runs + 1
        num_kills += 1
        # What the next run will go on from, and all else that lies there, is what the unbroken run had.
        for step, found in read_hashes(broken).items():
            assert found == hashes[step], f"checkpoint {step} after kill {num_kills}, {death}"
    assert trainer.live(broken) == 0
    check_end(broken)
    assert num_kills == NUM_KILLS
