"""Latent codes that were not trained: drawn, between others, and what their files are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.names import to_file_name
from dimo_jax.core.types import Array
from dimo_jax.metrics.motion import pick_farthest, trajectory_distances, trajectory_diversity
from dimo_jax.runs.choice import SPREAD
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training import latents

DIVERSE_OF = 8  # draws for each that is kept
LINES: dict[str, Callable[..., Array]] = {
    "linear": latents.interpolate_linear,
    "spherical": latents.interpolate_spherical,
}


def draw_samples(player: Player, *, key: Array, num_samples: int, motions: Any = None, spread: float = SPREAD) -> Array:
    """New latents [S,D], with mean and covariance of the codes of the training motions (`motions`; default: all).

    The paper samples N(0, I); at a small KL weight the codes fill only part of it, so their own mean and covariance
    describe where motions lie. Far from all of them (`spread` 1) motions are mild blends: docs/results.md.
    """
    mu = player.params.latents.mu
    codes = mu if motions is None else jnp.asarray(mu)[np.asarray(motions)]
    return latents.draw_fitted(key, codes, num_samples=num_samples, spread=spread)


def draw_codes(
    model: Restored,
    *,
    seed: int,
    num_samples: int,
    prior: str = "data",
    around: str = "",
    spread: float = SPREAD,
    diverse: bool = False,
) -> Array:
    """New codes [num_samples,D]; arguments as in `sample.run`.

    Raises:
      UserError: `around` names no training motion.
    """
    if diverse:
        how: dict[str, Any] = dict(seed=seed, prior=prior, around=around, spread=spread)
        many = draw_codes(model, num_samples=DIVERSE_OF * num_samples, **how)
        return many[pick_farthest(np.asarray(model.player.trace(many, frame_times(model.num_frames))), num_samples)]
    key = jax.random.key(seed)
    mean = jnp.zeros(model.player.params.latents.mu.shape[1])
    if prior == "standard":
        draws = jax.random.normal(key, (num_samples, len(mean)))
    else:
        motions, width = model.trained_motions, 1.0 if around else spread
        draws = draw_samples(model.player, key=key, num_samples=num_samples, motions=motions, spread=width)
        mean = jnp.mean(jnp.asarray(model.player.params.latents.mu)[motions], axis=0)
    if not around:
        return draws
    return model.player.latent(model.find_motion(around, flag="around")) + spread * (draws - mean)


def describe_draw(model: Restored, codes: Array) -> str:
    """How different drawn motions are from each other and from those of training, as shares of the object's size."""
    times = frame_times(model.num_frames)
    known = np.asarray(model.player.trace(model.player.params.latents.mu[model.trained_motions], times))
    drawn = np.asarray(model.player.trace(codes, times))
    size = float(np.ptp(np.asarray(model.player.params.key_points.positions), axis=0).max())
    near = trajectory_distances(drawn, known).min(axis=1).mean() / size
    parts = [f"a new motion differs by {near:.3f} of the object's size from the nearest of training"]
    if len(drawn) > 1:
        parts.append(f"two new ones by {trajectory_diversity(drawn) / size:.3f}")
    if len(known) > 1:
        parts.append(f"two of training by {trajectory_diversity(known) / size:.3f}")
    return ", ".join(parts)


def file_name(prompt: str) -> str:
    """A plain file name made of a prompt's first words: letters, digits and underscores of any script."""
    return to_file_name(prompt.lower(), default="prompt", keep="", longest=60)
