"""Paper Table 5, "w/o multi-motion joint training": a model for every motion by itself.

    python launch.py --config=configs/ablations/no_joint_training.py:demo@3 --workdir=runs/alone_3
    python -m bench.ablate --out=runs/ablations --configs=configs/ablations/no_joint_training.py:demo

The first trains motion 3, the second all of them one after the other (":demo@3+5": these two), for one row of a table.
Each takes the preset's steps with one motion, one view and two frames a step: 16 such runs of the demo see 32 images a
step altogether, the joint run 24.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo
from dimo_jax.data.dataset import motions_in
from dimo_jax.data.sources import load


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset on one motion alone, whose index stands after the "@"."""
    name, _, motion = preset.partition("@")
    if not motion.isdigit():
        raise ValueError(f"found {preset!r}, expected a preset and the index of a motion, such as demo@3")
    config = dimo.get_config(name)
    config.data.motions = (int(motion),)
    config.batch.update(motions=1, views=1, frames=2)
    return config


def list_presets(preset: str) -> list[str]:
    """One config string per training motion, for `bench.ablate`; "demo@3+5" stands for these two motions."""
    name, _, motions = preset.partition("@")
    if motions:
        return [f"{name}@{motion}" for motion in motions.split("+")]
    config = dimo.get_config(name)
    return [f"{name}@{motion}" for motion in motions_in(load(config.data), "train")]
