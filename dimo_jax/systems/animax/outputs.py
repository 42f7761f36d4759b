"""What the network's output stands for: the velocity, as in Wan, or how the videos differ from the condition.

A small network of large patches cannot hand noise through, which is not low-dimensional as data are (Li and He 2025,
"Back to Basics"): it predicts the data. Counted from the condition, the video of an untrained network is the still.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from dimo_jax.core.types import Array

from . import sequence

Predicts = Literal["velocity", "change"]
LEAST_LEVEL = 0.05  # noise level that a velocity is divided by at least


def read_velocity(output: Array, latents: Array, levels: Array, predicts: Predicts) -> Array:
    """The velocity noise - data of the noisy frames.

    Args:
      output: [B,N,2f+4,h,w,C] of the network.
      latents: what it saw, likewise, see `sequence.join`.
      levels: [B] noise levels in 0..1.
      predicts: "velocity", or "change": what data are more than the condition, a still.

    Returns:
      [B,N,2,1+f,h,w,C].
    """
    found = sequence.split(output)[1]
    if predicts == "velocity":
        return found
    still, noisy = sequence.split(latents)
    data = still[:, :, :, None] + found
    return (noisy - data) / jnp.maximum(levels, LEAST_LEVEL).reshape(-1, *(1,) * (found.ndim - 1))
