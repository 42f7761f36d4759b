"""Paper Table 5, "w/o motion factorization": no key points between the decoder and the Gaussians.

    python launch.py --config=configs/ablations/no_factorization.py:demo --workdir=runs/no_factorization

In the second stage every Gaussian asks the decoder for its own pose; all else is as in the preset that the config
string names, but for the third stage, which frees poses of key points: compare it with the full model at
`--config.stage3.num_steps=0`. The decoder is asked for every Gaussian instead of every key point, so a step takes
several times as long.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset without skinning."""
    config = dimo.get_config(preset)
    config.stage2.move = dict(fn="dimo_jax.systems.dimo.model:move_without_key_points")
    config.stage3.num_steps = 0
    return config
