"""Variant: plain learned codes (the authors' default) instead of a Gaussian per motion (Eq. 5, 10).

python launch.py --config=configs/ablations/plain_codes.py:demo --workdir=runs/plain_codes
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset without draws and without the KL term."""
    config = dimo.get_config(preset)
    config.latent = dict(fn="dimo_jax.training.latents:plain_code")
    for stage in (config.stage1, config.stage2):
        stage.losses.kl.weight = 0.0
    return config
