"""Samplers of rectified flow: Euler's steps, and UniPC of second order (Zhao et al. 2023), which Wan 2.1 ships with."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array

from .flow import NUM_TRAIN_STEPS

# A noisy sample and its timestep in 0..1000 -> the velocity noise - data.
Velocity = Callable[[Array, Array], Array]
_Carry = tuple[Array, Array, Array, Array]


def plan_levels(num_steps: int, *, shift: float = 3.0) -> np.ndarray:
    """Noise levels from almost 1 down to 0: [num_steps+1] float64.

    Even steps from 1 to 1/1000, shifted as in `flow.shift_levels`. The first one is a little less than 1, where the
    logarithm that UniPC takes of 1 - s has no value.

    Raises:
      ValueError: no step.
    """
    if num_steps < 1:
        raise ValueError(f"{num_steps} steps, expected at least 1")
    levels = np.linspace(1, 1 / NUM_TRAIN_STEPS, num_steps + 1)[:-1]
    levels = shift * levels / (1 + (shift - 1) * levels)
    levels[0] = min(levels[0], 1 - 1e-6)
    return np.append(levels, 0.0)


def sample_euler(velocity: Velocity, noise: Array, levels: np.ndarray) -> Array:
    """Follows the velocity in straight steps: x + (s' - s) v(x, 1000 s).

    Args:
      velocity: the network.
      noise: [...] normal numbers.
      levels: [S+1] noise levels that fall, from `plan_levels`.

    Returns:
      [...] data.
    """

    def step(x: Array, pair: Array) -> tuple[Array, None]:
        level, following = pair
        return x + (following - level) * velocity(x, level * NUM_TRAIN_STEPS).astype(x.dtype), None

    pairs = np.stack([levels[:-1], levels[1:]], axis=1).astype(np.float32)
    return jax.lax.scan(step, noise, jnp.asarray(pairs))[0]


def sample_unipc(velocity: Velocity, noise: Array, levels: np.ndarray) -> Array:
    """UniPC-2 on predictions of the data, B(h) = exp(h) - 1 ("bh2"), its last step of first order.

    Every step evaluates the network once, at a timestep that is rounded down to a whole number as in Wan: the
    evaluation corrects the sample at hand before it predicts the next. All coefficients are known
    beforehand (`plan_unipc`).

    Args:
      velocity: the network.
      noise: [...] normal numbers.
      levels: [S+1] noise levels that fall, the first below 1, from `plan_levels`.

    Returns:
      [...] data.
    """
    correct, predict = plan_unipc(levels)
    timesteps = np.floor(levels[:-1] * NUM_TRAIN_STEPS)

    def combine(weights: Array, *terms: Array) -> Array:
        return sum(weight * term for weight, term in zip(weights, terms, strict=True))

    def step(carry: _Carry, row: tuple[Array, ...]) -> tuple[_Carry, None]:
        x, last, newer, older = carry
        level, timestep, correction, prediction = row
        found = x - level * velocity(x, timestep).astype(x.dtype)
        x = combine(correction, x, last, newer, older, found)
        return (combine(prediction, x, found, newer), x, found, newer), None

    rows = tuple(jnp.asarray(each, jnp.float32) for each in (levels[:-1], timesteps, correct, predict))
    empty = jnp.zeros_like(noise)
    return jax.lax.scan(step, (noise, empty, empty, empty), rows)[0][0]


def plan_unipc(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of UniPC-2 for S steps at noise levels [S+1].

    Returns:
      Weights [S,5] of (sample, the sample before it, the newest prediction of the data, the one before it, the
      prediction that was just made), which correct a sample; and weights [S,3] of (corrected sample, newest
      prediction, the one before it), which give the next sample.
    """
    num_steps = len(levels) - 1
    correct, predict = np.zeros((num_steps, 5)), np.zeros((num_steps, 3))
    correct[0, 0] = 1
    orders = [min(2, num_steps - index, index + 1) for index in range(num_steps)]
    for index, order in enumerate(orders):
        scale, gain, _, ratio = _terms(levels, index)
        half = 0.5 / ratio if order == 2 else 0.0
        predict[index] = scale, gain * (1 - half), gain * half
        if index == 0:
            continue
        scale, gain, step, ratio = _terms(levels, index - 1)
        if orders[index - 1] == 1:
            correct[index, 1:] = scale, gain * 0.5, 0, gain * 0.5
            continue
        # The weights that make the corrector exact to third order: [[1,1],[ratio,1]] rho = b.
        first = np.expm1(-step) / -step - 1
        second = first / -step - 0.5
        rho = np.linalg.solve(np.array([[1, 1], [ratio, 1]]), np.array([first, 2 * second]) / np.expm1(-step))
        correct[index, 1:] = scale, gain * (1 - rho[0] / ratio - rho[1]), gain * rho[0] / ratio, gain * rho[1]
    return correct, predict


def _terms(levels: np.ndarray, index: int) -> tuple[float, float, float, float]:
    """Of the step from level `index` to the next: the sample's weight, the data's, h, and the step before over h."""

    def log_ratio(level: float) -> float:
        return float(np.log1p(-level) - np.log(level)) if level else np.inf

    level, following = levels[index], levels[index + 1]
    step = log_ratio(following) - log_ratio(level)
    before = log_ratio(levels[index - 1]) - log_ratio(level) if index else -1.0
    return following / level, -(1 - following) * float(np.expm1(-step)), step, before / step
