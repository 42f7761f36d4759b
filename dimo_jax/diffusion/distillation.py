"""Score distillation (Poole et al. 2022; ATOP Eq. 1 and 7): a frozen network says how what is drawn should change.

The gradient with respect to what is drawn, z, is w(t) (eps(z_t, t) - eps): the network's own derivative is left out. So
it is a number of its own here, and `distillation_loss` the linear function that has it as gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from dimo_jax.core.types import Array

from .ddim import Predict
from .noise import NUM_TRAIN_STEPS, Prediction, add_noise, plan_alphas, to_noise

# w(t) as functions of a, the share of data in the variance at t.
WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "sigma2": lambda alpha: 1 - alpha,  # DreamFusion's
    "one": jnp.ones_like,
    "fantasia": lambda alpha: jnp.sqrt(alpha) * (1 - alpha),  # Fantasia3D's: little at either end
}


class Span(NamedTuple):
    """Timesteps to draw from, as shares of all of them."""

    low: float = 0.02
    high: float = 0.98


WIDE, NARROW = Span(), Span(0.02, 0.5)


def anneal(progress: Array, *, first: Span = WIDE, last: Span = NARROW) -> tuple[Array, Array]:
    """The span at a point of an optimization, progress in 0..1: from all timesteps to those that change details."""
    share = jnp.clip(progress, 0, 1)
    return first.low + share * (last.low - first.low), first.high + share * (last.high - first.high)


def draw_timestep(key: Array, low: Array, high: Array) -> Array:
    """A whole timestep, [] int32, evenly from shares `low` to `high` of all."""
    share = jax.random.uniform(key, (), minval=low, maxval=high)
    return jnp.clip(jnp.round(share * NUM_TRAIN_STEPS), 1, NUM_TRAIN_STEPS - 1).astype(jnp.int32)


def distillation_gradient(
    predict: Predict,
    drawn: Array,
    noise: Array,
    timestep: Array,
    *,
    weight: str = "sigma2",
    prediction: Prediction = "epsilon",
    alphas: np.ndarray | None = None,
) -> Array:
    """w(t) (eps(z_t, t) - eps), Eq. 1 and 7.

    Args:
      predict: the frozen network, with its condition, guided (`flow.guide`) or not; (z_t, timestep []) -> [...].
      drawn: [...] latents z that were drawn; carries no gradient.
      noise: [...] normal numbers eps.
      timestep: [] int32 in 0..999.
      weight: w, one of `WEIGHTS`.
      prediction: what the network predicts.
      alphas: [1000], Stable Diffusion's where None.

    Returns:
      [...], without a gradient.

    Raises:
      ValueError: another weight.
    """
    if weight not in WEIGHTS:
        raise ValueError(f"weight is {weight!r}, expected one of {', '.join(WEIGHTS)}")
    alpha = jnp.asarray(plan_alphas() if alphas is None else alphas, jnp.float32)[timestep]
    noisy = add_noise(jax.lax.stop_gradient(drawn), noise, alpha)
    found = to_noise(predict(noisy, timestep), noisy, alpha, prediction=prediction)
    return jax.lax.stop_gradient(WEIGHTS[weight](alpha) * (found - noise))


def separate(
    predict: Predict, sample: Array | jax.ShapeDtypeStruct
) -> tuple[Callable[[list[Array], Array, Array], Array], list[Array]]:
    """A network's function, and the arrays that it holds.

    What a program closes over becomes a constant of it, which no compiler bears of a large network; so arrays are
    handed to it with the rest.

    Args:
      predict: the network, which is only traced.
      sample: a noisy sample as it will get it, or its shape.
    """
    traced = jax.make_jaxpr(predict)(sample, jnp.zeros((), jnp.int32))

    def call(arrays: list[Array], noisy: Array, timestep: Array) -> Array:
        found: Array = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr, arrays))(noisy, timestep)[0]
        return found

    return call, list(traced.consts)


def distillation_loss(drawn: Array, gradient: Array) -> Array:
    """[], whose gradient with respect to `drawn` [...] is `gradient`, divided by the number of latents.

    Its value means nothing.
    """
    return jnp.sum(drawn * jax.lax.stop_gradient(gradient)) / drawn.size
