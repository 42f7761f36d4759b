"""Variant: poses blended as dual quaternions instead of linearly (Eq. 7).

python launch.py --config=configs/ablations/dual_quaternions.py:demo --workdir=runs/dual_quaternions
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset with `dual_quaternion_blend`."""
    config = dimo.get_config(preset)
    config.deform = dict(fn="dimo_jax.skinning.blending:dual_quaternion_blend")
    return config
