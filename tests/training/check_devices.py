"""Trains the same 20 steps on several layouts of virtual devices; run by test_parallel.py in a process of its own.

Prints one JSON object: for every layout the loss of each step and how far its parameters are from the first layout's.
"""

import json
import sys

import jax
import numpy as np

from dimo_jax.cameras.orbits import orbit
from dimo_jax.configs.dimo import get_config
from dimo_jax.data.dataset import Dataset
from dimo_jax.runs.build import build_system
from dimo_jax.training.loop import fit

NAMES = ("a", "b", "c", "d", "e", "f")


def make_dataset():
    """Six motions of noise, four views, five frames, 16 px."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, size=(6, 4, 5, 16, 16, 4), dtype=np.uint8)
    cameras = orbit((0, 90, 180, 270), 0, radius=2.0, fov_deg=33.9, height=16, width=16)
    views = ("n", "e", "s", "w")
    return Dataset(frames, cameras, NAMES, NAMES, ("train",) * 6, views, ("train",) * 4, 12.0, "noise")


def make_config(num_devices, accumulate):
    """16 steps of the first stage, 4 of the second, 2 of the third; density control, pruning, fresh graphs between."""
    config = get_config("smoke")
    config.batch.update(motions=4, views=1, frames=2, accumulate=accumulate)
    config.num_devices = num_devices
    # Noise seen by sharper pixels, as the preset has them, magnifies the rounding of a single part further.
    config.render.dilation = 0.3
    config.stage1.update(num_steps=16, densify_from=2, densify_every=3, anneal_every=7, refresh_every=4)
    config.turns.update(
        size=8, num_angles=4, num_headings=1, num_views=1, least_angle=0.0, largest_cost=9.0
    )  # noise "turns" too
    config.stage1.losses.turn.update(weight=2_000.0, start=5, stop=12)
    config.stage2.update(num_steps=4, prune_every=2, refresh_every=3)
    config.stage1.losses.rgb.novel_weight = config.stage2.losses.rgb.novel_weight = 0.25
    config.stage2.move = dict(fn="dimo_jax.systems.dimo.model:stay")  # compiles in no time
    config.stage1.phases = config.stage2.phases = ((0, 16),)
    config.stage3.phases = ((0, 16),)
    config.image_every = 0
    config.checkpoint_every = 5
    return config


class Memory:
    """Stands for checkpoints and metrics files: keeps the losses."""

    def __init__(self):
        self.losses, self.dropped = [], 0

    def save(self, step, state, *, notes):
        self.state = state

    def wait(self):
        pass

    def resumed(self, step):
        pass

    def restore_latest(self, template_at):
        return None

    def scalars(self, step, stage, values):
        self.losses.append(values["loss"])

    def images(self, step, stage, state, preview):
        pass


def train(num_devices, accumulate):
    memory = Memory()
    config, dataset = make_config(num_devices, accumulate), make_dataset()
    trained = fit(config, build_system(config, dataset), dataset, memory, memory)
    return memory.losses, jax.device_get(trained.state)


def distance(a, b):
    """Largest difference of two arrays, as a share of the largest value."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(a), initial=0), 1e-12))


def main(layouts):
    results, first = {}, None
    for num_devices, accumulate in layouts:
        losses, state = train(num_devices, accumulate)
        first = first or state
        paths = jax.tree_util.tree_leaves_with_path(first)
        distances = {
            jax.tree_util.keystr(path): distance(a, b)
            for (path, a), b in zip(paths, jax.tree.leaves(state), strict=True)
        }
        results[f"{num_devices}x{accumulate}"] = dict(losses=losses, distances=distances)
    print(json.dumps(results))


if __name__ == "__main__":
    main([tuple(map(int, layout.split("x"))) for layout in sys.argv[1:]])
