"""Paper Table 5, "w/o latent space": nothing is learned that tells motions apart.

    python launch.py --config=configs/ablations/no_latent_space.py:demo --workdir=runs/no_latent_space
    python launch.py --config=configs/ablations/no_latent_space.py:demo@none --workdir=runs/no_latent_space_none

The paper does not say what takes the place of the latent space, only what it is for: it serves "to distinguish diverse
motion patterns and model the underlying motion distributions" (Sec. 4.4). So no code is learned and there is no
distribution: by default the decoder is told a motion's number, drawn by lot and encoded as a time is, without which no
motion could be asked for. "@none" takes that away too: one motion remains, the mean of all.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset with fixed codes; "@none" at its end gives all motions the same one."""
    name, _, kind = preset.partition("@")
    if kind not in ("", "none"):
        raise ValueError(f"found {preset!r}, expected a preset, or one followed by @none")
    config = dimo.get_config(name)
    config.latent = dict(fn="dimo_jax.training.latents:plain_code")
    config.latent_init.fn = f"dimo_jax.training.latents:{'zero_codes' if kind else 'number_codes'}"
    for stage in (config.stage1, config.stage2):
        stage.rates.latents.update(initial=0.0, final=0.0)
        stage.losses.kl.weight = 0.0
    config.stage3.fit.code_rate = 0.0
    return config
