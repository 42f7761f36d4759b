"""Latent codes that were not trained: drawn, between others, and what their files are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.names import to_file_name
from dimo_jax.core.types import Array
from dimo_jax.runs.choice import SPREAD
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training import latents

LINES: dict[str, Callable[..., Array]] = {
    "linear": latents.interpolate_linear,
    "spherical": latents.interpolate_spherical,
}


def draw_samples(player: Player, *, key: Array, num_samples: int, motions: Any = None) -> Array:
    """New latents [S,D] from a Gaussian fitted to the codes of the training motions (`motions`; default: all).

    The paper samples N(0, I); at a small KL weight the codes fill only part of it, so their own mean and covariance
    describe where motions lie.
    """
    mu = player.params.latents.mu
    codes = mu if motions is None else jnp.asarray(mu)[np.asarray(motions)]
    return latents.draw_fitted(key, codes, num_samples=num_samples)


def draw_codes(
    model: Restored, *, seed: int, num_samples: int, prior: str = "data", around: str = "", spread: float = SPREAD
) -> Array:
    """New codes [num_samples,D]; arguments as in `run`.

    Raises:
      UserError: `around` names no training motion.
    """
    key = jax.random.key(seed)
    mean = jnp.zeros(model.player.params.latents.mu.shape[1])
    if prior == "standard":
        draws = jax.random.normal(key, (num_samples, len(mean)))
    else:
        motions = model.trained_motions
        draws = draw_samples(model.player, key=key, num_samples=num_samples, motions=motions)
        mean = jnp.mean(jnp.asarray(model.player.params.latents.mu)[motions], axis=0)
    if not around:
        return draws
    return model.player.latent(model.find_motion(around, flag="around")) + spread * (draws - mean)


def file_name(prompt: str) -> str:
    """A plain file name made of a prompt's first words: letters, digits and underscores of any script."""
    return to_file_name(prompt.lower(), default="prompt", keep="", longest=60)
