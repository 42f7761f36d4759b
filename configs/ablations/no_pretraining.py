"""Paper Table 5, "w/o motion pre-training": no first stage.

    python launch.py --config=configs/ablations/no_pretraining.py:demo --workdir=runs/no_pretraining

Key points are those with which the first stage would have begun, drawn in a ball; codes and decoder begin untrained.
The second stage takes the steps of both, its decoder and codes at the rates with which the first stage would have
begun, and there are no trajectories of a first stage to stay near (no Chamfer term).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset with all steps in the second stage."""
    config = dimo.get_config(preset)
    first, second = config.stage1, config.stage2
    for group in ("decoder", "latents"):
        second.rates[group].initial = first.rates[group].initial
        second.rates[group].warmup_steps = first.rates[group].warmup_steps
    second.num_steps += first.num_steps
    for rate in second.rates.values():
        rate.num_steps = second.num_steps
    first.num_steps = 0
    second.losses.chamfer.weight = 0.0
    return config
