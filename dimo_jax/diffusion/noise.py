"""Diffusion that keeps the variance (Ho et al. 2020), as Stable Diffusion has it.

x_t = sqrt(a) data + sqrt(1 - a) noise, a falling with the timestep t.

A network predicts the noise ("epsilon"), or the velocity sqrt(a) noise - sqrt(1 - a) data ("v", Salimans and Ho 2022);
which of the two is a matter of its checkpoint. ImageDream predicts the noise.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array

NUM_TRAIN_STEPS = 1000
Prediction = Literal["epsilon", "v"]


def plan_alphas(*, first: float = 0.00085, last: float = 0.012) -> np.ndarray:
    """a of every timestep, the share of data in the variance: [1000] float64, falling from almost 1.

    Args:
      first, last: beta of the first and the last timestep, between which its root grows evenly (Stable Diffusion).
    """
    return np.cumprod(1 - np.linspace(first**0.5, last**0.5, NUM_TRAIN_STEPS) ** 2)


def _roots(alphas: Array, ndim: int) -> tuple[Array, Array]:
    alphas = jnp.asarray(alphas, jnp.float32).reshape(-1, *(1,) * (ndim - 1)) if jnp.ndim(alphas) else alphas
    return jnp.sqrt(alphas), jnp.sqrt(1 - alphas)


def add_noise(data: Array, noise: Array, alphas: Array) -> Array:
    """x_t: data and noise [B,...], alphas [B] or [] -> [B,...]."""
    keep, mix = _roots(alphas, data.ndim)
    return keep * data + mix * noise


def target(data: Array, noise: Array, alphas: Array, *, prediction: Prediction) -> Array:
    """What a network is to predict; arguments as in `add_noise`."""
    if prediction == "epsilon":
        return noise
    keep, mix = _roots(alphas, data.ndim)
    return keep * noise - mix * data


def to_noise(predicted: Array, noisy: Array, alphas: Array, *, prediction: Prediction) -> Array:
    """The noise in x_t after what a network says of it: predicted and noisy [B,...], alphas [B] or [] -> [B,...].

    Raises:
      ValueError: another kind of prediction.
    """
    if prediction == "epsilon":
        return predicted
    if prediction != "v":
        raise ValueError(f"prediction is {prediction!r}, expected 'epsilon' or 'v'")
    keep, mix = _roots(alphas, noisy.ndim)
    return keep * predicted + mix * noisy
