"""Takes steps of a preset's second stage in memory, and says how long one takes, what it needs, and that it learns.

    python -m bench.train --preset=paper --num_steps=200        # at 512 px; --size=128 for the first phase
    python -m bench.train --preset=smoke --num_steps=4 --set=data.source.num_motions=2

Without a first stage: what a step costs does not depend on where Gaussians are, but for how far buffers grow. Data are
the puppet's, few of them (--set=data.source.num_motions=50 for as many as the paper has), which costs a step nothing.
"""

from __future__ import annotations

import time

import jax
import numpy as np
from absl import app, flags, logging

from bench.presets import apply_change
from dimo_jax.configs.dimo import get_config
from dimo_jax.data.sources import load
from dimo_jax.render import choose_backend
from dimo_jax.runs.build import make_trainer
from dimo_jax.runtime.compiler import leave_reductions_to_xla
from dimo_jax.runtime.memory import keep_freed_memory

PRESET = flags.DEFINE_string("preset", "paper", "preset of configs/dimo.py")
NUM_STEPS = flags.DEFINE_integer("num_steps", 200, "steps", lower_bound=2)
SIZE = flags.DEFINE_integer("size", 0, "pixels; 0 takes the last phase's")
SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE, a change to the config; may be given several times")
BLOCKS = 10  # times are of so many blocks of steps, for a step is given to the device before the last one is done


def main(argv: list[str]) -> None:
    del argv
    leave_reductions_to_xla()  # as launch.py does
    config = get_config(PRESET.value)
    config.data.source.update(num_motions=8, num_frames=6, num_train_views=4, num_test_views=0)
    for change in SET.value:
        apply_change(config, change)
    size = SIZE.value or config.stage2.phases[-1][1]
    config.stage1.num_steps, config.stage2.num_steps, config.stage2.phases = 0, NUM_STEPS.value, ((0, size),)
    config.log_every = NUM_STEPS.value
    trainer = make_trainer(config, load(config.data))
    device, backend = jax.devices()[0].device_kind, choose_backend(config.render.implementation)
    images = config.batch.motions * config.batch.views * config.batch.frames

    start = time.perf_counter()
    state, metrics = trainer.step(trainer.init(), trainer.next_batch())
    scores = [float(trainer.on_host(metrics.psnr))]
    print(f"{device} x {trainer.layout.num_devices}, {backend}: preset {PRESET.value}, {images} images of {size} px")
    print(f"first step, compilation and all: {time.perf_counter() - start:.1f} s, {trainer.layout.accumulate} parts")
    seconds, psnrs = [], []
    blocks = np.array_split(np.arange(1, NUM_STEPS.value), min(BLOCKS, NUM_STEPS.value - 1))
    for block in blocks:
        start = time.perf_counter()
        for _ in block:
            state, metrics = trainer.step(state, trainer.next_batch())
            psnrs.append(metrics.psnr)
        jax.block_until_ready(state)
        seconds.append((time.perf_counter() - start) / len(block))
    trainer.close()
    scores += [float(trainer.on_host(value)) for value in psnrs]
    quarter = max(1, len(scores) // 4)
    before, after = np.mean(scores[:quarter]), np.mean(scores[-quarter:])
    print(f"step: median {1e3 * np.median(seconds):.1f} ms, {1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f} ms")
    print(f"PSNR of the batches: {before:.2f} dB in the first quarter of the steps, {after:.2f} dB in the last")
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        print(f"memory: peak {stats['peak_bytes_in_use'] / 2**30:.2f} of {stats['bytes_limit'] / 2**30:.2f} GiB")
    if not after > before:
        raise SystemExit("error: the last quarter of the steps is no better than the first")


if __name__ == "__main__":
    keep_freed_memory()  # as launch.py does
    logging.set_verbosity(logging.INFO)
    app.run(main)
