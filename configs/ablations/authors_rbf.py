"""Variant: the authors' radial basis function, whose radius is a length and whose distances carry no gradient (Eq. 1).

python launch.py --config=configs/ablations/authors_rbf.py:demo --workdir=runs/authors_rbf
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset with `rbf_weights_authors`."""
    config = dimo.get_config(preset)
    config.skinning = dict(fn="dimo_jax.skinning.weights:rbf_weights_authors")
    config.radius_power = 1.0
    return config
