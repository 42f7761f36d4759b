"""Rectified flow (Liu et al. 2023), as Wan 2.1 uses it: straight lines from data to noise.

x_s = (1 - s) data + s noise, and a network predicts the velocity d x_s / d s = noise - data. Its timestep is 1000 s.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array

NUM_TRAIN_STEPS = 1000  # a timestep of Wan is a noise level times this


def shift_levels(levels: Array, shift: float) -> Array:
    """Noise levels in 0..1 moved towards noise, shift s / (1 + (shift - 1) s); Wan takes 3 at 480p, 5 at 720p."""
    return shift * levels / (1 + (shift - 1) * levels)


def draw_levels(key: Array, shape: tuple[int, ...], *, shift: float = 1.0) -> Array:
    """Noise levels to train at: logit-normal (Esser et al. 2024, the densest at 1/2), then shifted; in 0..1."""
    return shift_levels(jax.nn.sigmoid(jax.random.normal(key, shape)), shift)


def mix(data: Array, noise: Array, levels: Array) -> Array:
    """Data and noise at noise levels: data and noise [B,...], levels [B] in 0..1 -> [B,...]."""
    levels = levels.reshape(-1, *(1,) * (data.ndim - 1))
    return (1 - levels) * data + levels * noise


def target_velocity(data: Array, noise: Array) -> Array:
    """What a network is to predict, the same at every noise level."""
    return noise - data


def guide(conditioned: Array, unconditioned: Array, scale: float) -> Array:
    """Classifier-free guidance (Ho and Salimans 2022): u + scale (c - u); 1 leaves c as it is."""
    return unconditioned + scale * (conditioned - unconditioned)


def to_timesteps(levels: Array) -> Array:
    """Noise levels in 0..1 -> what the network is told."""
    return jnp.asarray(levels) * NUM_TRAIN_STEPS
