"""DDIM (Song et al. 2021) without noise of its own, with the timesteps of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array

from .noise import NUM_TRAIN_STEPS, Prediction, plan_alphas, to_noise

# A noisy sample and its timestep -> what the network predicts of it.
Predict = Callable[[Array, Array], Array]


def plan_steps(num_steps: int, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Timesteps [S] that fall by 1000 // S down to 1, and a at each of them and at the one that follows.

    The last step leads to a of timestep 0, which is a little less than 1, as in Stable Diffusion.

    Raises:
      ValueError: no step, or more than there are.
    """
    if not 1 <= num_steps <= NUM_TRAIN_STEPS:
        raise ValueError(f"{num_steps} steps, expected 1 to {NUM_TRAIN_STEPS}")
    gap = NUM_TRAIN_STEPS // num_steps
    timesteps = np.minimum(np.arange(num_steps) * gap + 1, NUM_TRAIN_STEPS - 1)[::-1]
    return timesteps, alphas[timesteps], alphas[np.maximum(timesteps - gap, 0)]


def sample_ddim(
    predict: Predict,
    noise: Array,
    *,
    num_steps: int = 50,
    prediction: Prediction = "epsilon",
    alphas: np.ndarray | None = None,
    clean: bool = False,
) -> Array:
    """Data from noise.

    Args:
      predict: the network, guided or not.
      noise: [...] normal numbers.
      num_steps: of the sampler, each one evaluation.
      prediction: what the network predicts.
      alphas: [1000], Stable Diffusion's where None.
      clean: whether the last step leads to data without any noise, and not, as in Stable Diffusion, to timestep 0. An
        autoencoder takes no notice of what is left there, pictures that are latents themselves show it.

    Returns:
      [...] data.
    """
    timesteps, here, following = plan_steps(num_steps, plan_alphas() if alphas is None else alphas)
    if clean:
        following = np.append(following[:-1], 1.0)

    def step(x: Array, row: tuple[Array, ...]) -> tuple[Array, None]:
        timestep, now, then = row
        found = to_noise(predict(x, timestep).astype(x.dtype), x, now, prediction=prediction)
        data = (x - jnp.sqrt(1 - now) * found) / jnp.sqrt(now)
        return jnp.sqrt(then) * data + jnp.sqrt(1 - then) * found, None

    rows = (timesteps.astype(np.float32), here.astype(np.float32), following.astype(np.float32))
    return jax.lax.scan(step, noise, tuple(map(jnp.asarray, rows)))[0]
