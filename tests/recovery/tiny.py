"""A run as small as it gets, on noise: nothing to learn, everything to repeat."""

import hashlib

import jax
import numpy as np

from dimo_jax.apps.train import learn
from dimo_jax.cameras.orbits import orbit
from dimo_jax.configs.dimo import get_config
from dimo_jax.data.dataset import Dataset
from dimo_jax.runs.build import build_system
from dimo_jax.runs.lifecycle import occupy
from dimo_jax.runtime.signals import Signals
from dimo_jax.training.config_file import save_config

SIZES = dict(num_motions=2, num_frames=4)


def make_config(*, num_steps=(16, 44), checkpoint_every=4):
    """Both stages, every kind of density control, and a change of resolution within so many steps."""
    config = get_config("smoke")
    config.stage1.num_steps, config.stage2.num_steps = num_steps
    config.stage3.num_steps = 0  # compiles much; tests/apps/test_train.py goes on from within it
    config.stage1.phases = ((0, 16),)
    config.stage2.phases = ((0, 8), (10, 16))
    config.stage1.update(densify_from=3, densify_every=3, densify_until=12, anneal_every=8, refresh_every=5)
    config.turns.update(
        size=8, num_angles=4, num_headings=1, num_views=1, least_angle=0.0, largest_cost=9.0
    )  # noise "turns" too
    config.stage1.losses.turn.update(weight=2_000.0, start=5, stop=12)
    config.stage1.losses.rotations.update(weight=1_000.0, start=9)
    config.stage2.update(prune_every=7, prune_until=40, refresh_every=5)
    config.checkpoint_every, config.log_every, config.image_every = checkpoint_every, 5, 0
    config.checkpoint_minutes = 0.0
    return config


def make_dataset():
    """Two motions of noise, seen by three cameras for four frames."""
    frames = np.random.default_rng(0).integers(0, 256, size=(2, 3, 4, 16, 16, 4), dtype=np.uint8)
    cameras = orbit((0, 120, 240), (0, 0, 0), radius=2.0, fov_deg=33.9, height=16, width=16)
    names = ("a", "b")
    return Dataset(frames, cameras, names, names, ("train",) * 2, ("x", "y", "z"), ("train",) * 3, 12.0, "noise")


def train(folder, config):
    """What `--app=train` does in `folder`, evaluation and pictures left out."""
    with Signals() as signals, occupy(folder):
        save_config(config, folder)
        dataset = make_dataset()
        return learn(config, build_system(config, dataset), dataset, folder, signals)


def hash_state(state):
    """One hash of every number of a state: parameters, moments, density statistics, motion graph."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(state):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def without_times(rows):
    """Rows of metrics.jsonl, but for what depends on the clock and on memory."""
    timed = ("steps_per_second", "images_per_second", "memory_gib", "data_wait", "compile_seconds")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]
