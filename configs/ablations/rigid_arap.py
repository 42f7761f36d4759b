"""Variant: the authors' form of the ARAP term, with a best-fit rotation per point, instead of Eq. 9.

python launch.py --config=configs/ablations/rigid_arap.py:demo --workdir=runs/rigid_arap
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset with `arap_rigid` at the authors' weight."""
    config = dimo.get_config(preset)
    for stage in (config.stage1, config.stage2):
        stage.losses.arap = dict(fn="dimo_jax.systems.dimo.terms:arap_rigid", weight=10.0, radius=0.1, num_neighbors=10)
    return config
