"""Host memory of training at the paper's scale: a few steps of the second stage, saving included.

    python -m bench.memory --accumulate=12 --num_steps=2 --out=runs/memory

The store has the full size (50 motions x 9 views x 21 frames x 512 px, 9.9 GB on disk, under --out), but only
`--num_drawn` motions are drawn; the others repeat them, which the memory cannot tell.
"""

from __future__ import annotations

import dataclasses
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from dimo_jax.configs.dimo import get_config
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.puppet.dataset import make_puppet
from dimo_jax.data.store import open_frames
from dimo_jax.runs.build import build_system
from dimo_jax.runtime.memory import keep_freed_memory
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.loop import fit

OUT = flags.DEFINE_string("out", "runs/memory", "folder for the frames and the checkpoint")
ACCUMULATE = flags.DEFINE_integer("accumulate", 12, "parts of a step, one after the other")
NUM_STEPS = flags.DEFINE_integer("num_steps", 2, "steps")
NUM_MOTIONS = flags.DEFINE_integer("num_motions", 50, "motions of the store")
NUM_DRAWN = flags.DEFINE_integer("num_drawn", 1, "motions that are drawn")
SIZE = flags.DEFINE_integer("size", 512, "pixels")


class Printing:
    """Says what a step gave."""

    def scalars(self, step: int, stage: str, values: Any) -> None:
        """One line."""
        print(f"step {step}: loss {values['loss']:.1f}, {describe_memory()}", flush=True)

    def images(self, step: int, stage: str, state: Any, preview: Any) -> None:
        """Nothing."""

    def resumed(self, step: int) -> None:
        """Nothing."""


def make_dataset(folder: Path) -> Dataset:
    """The puppet at full size, its motions repeated."""
    drawn = make_puppet(num_motions=NUM_DRAWN.value, size=SIZE.value, num_test_views=0, cache_dir=folder)
    count = NUM_MOTIONS.value
    shape = (count, *drawn.frames.shape[1:])

    def fill(frames: np.ndarray) -> None:
        for motion in range(count):
            frames[motion] = drawn.frames[motion % NUM_DRAWN.value]

    frames = open_frames(folder / f"frames-{count}-{SIZE.value}", shape, fill, what="repeated puppet")
    names = tuple(f"motion_{index:02d}" for index in range(count))
    return dataclasses.replace(
        drawn,
        frames=frames,
        names=names,
        captions=names,
        splits=("train",) * count,
        surface=None,
        joints=None,
        paraphrases=(),
        test_paraphrases=(),
    )


def describe_memory() -> str:
    """The largest resident memory so far, and what of the present one is the process's own or mapped files'."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {
        name: int(rest.split()[0]) / 2**20 for name, _, rest in (line.partition(":") for line in lines) if "Rss" in name
    }
    return f"peak {peak:.1f} GiB; now {sizes['RssAnon']:.1f} GiB own, {sizes['RssFile']:.1f} GiB of mapped files"


def main(argv: list[str]) -> None:
    del argv
    folder = Path(OUT.value)
    config = get_config("paper")
    config.batch.accumulate = ACCUMULATE.value
    config.stage1.num_steps, config.stage2.num_steps = 0, NUM_STEPS.value
    config.stage2.phases = ((0, SIZE.value),)
    config.stage2.losses.depth.start = config.stage2.losses.normal.start = 0
    config.log_every = 1
    dataset = make_dataset(folder)
    print(f"store of {dataset.frames.nbytes / 2**30:.1f} GiB, {describe_memory()}", flush=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    start = time.perf_counter()
    with Checkpoints(folder) as checkpoints:
        trained = fit(config, build_system(config, dataset), dataset, checkpoints, Printing())
    num_gaussians = trained.state.alive.shape[0]
    print(f"{num_gaussians} Gaussians, {time.perf_counter() - start:.0f} s with compilation, {describe_memory()}")


if __name__ == "__main__":
    keep_freed_memory()
    app.run(main)
