"""Training some arrays of a model and leaving the rest alone: the diffusion models' states, steps and averages.

Which arrays are trained is said by a tree of bools like the model (`chosen`). Gradients are asked of these alone, and
the optimizer keeps nothing of the rest.
"""

from __future__ import annotations

from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dimo_jax.core.types import Array

WARM, LAST = 0.05, 0.1  # share of the steps in which the rate grows; the share of it that the last step has
ADAM_B2 = 0.99
P = TypeVar("P")


class PartialState(flax.struct.PyTreeNode):
    """What a checkpoint holds: also what its stage leaves alone, so that it is a model by itself."""

    step: Array  # [] int32
    params: Any  # the model
    optimizer: Any  # optax state, of the arrays of `take`
    average: tuple[Array, ...]  # of these arrays over the last steps, with which videos are drawn


def take(params: Any, chosen: Any) -> tuple[Array, ...]:
    """The arrays of a model that are chosen, in the order of the tree."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
    return tuple(array for array, mine in pairs if mine)


def put(params: P, arrays: tuple[Array, ...], chosen: Any) -> P:
    """The model with other arrays in the place of `take`."""
    others = iter(arrays)
    leaves, structure = jax.tree.flatten(params)
    flags = jax.tree.leaves(chosen)
    found: P = jax.tree.unflatten(
        structure, [next(others) if flag else x for x, flag in zip(leaves, flags, strict=True)]
    )
    return found


def build_optimizer(steps: int, rate: float, clip: float) -> optax.GradientTransformation:
    """Adam on gradients of a length of at most `clip`, its rate growing to `rate` and falling with a cosine."""
    warm = max(1, round(WARM * steps))
    schedule = optax.warmup_cosine_decay_schedule(rate / warm, rate, warm, max(steps, warm + 1), LAST * rate)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(schedule, b2=ADAM_B2))


def begin(step: Array, params: Any, chosen: Any, optimizer: optax.GradientTransformation) -> PartialState:
    """A state at the first step of a stage; it shares no array with what it was made of, for steps consume it."""
    params = jax.tree.map(jnp.copy, params)
    arrays = take(params, chosen)
    return PartialState(step, params, optimizer.init(arrays), tuple(jnp.copy(x) for x in arrays))


def advance(
    state: PartialState,
    gradients: tuple[Array, ...],
    chosen: Any,
    optimizer: optax.GradientTransformation,
    *,
    share: float,
    taken: Array,
) -> PartialState:
    """The state after a step.

    Args:
      state: before it.
      gradients: of `take(state.params, chosen)`.
      chosen: see the module.
      optimizer: of the stage.
      share: of the old in the average.
      taken: [] steps of the stage so far; the average is a mean over few of them at first, so that what training
        began with is soon forgotten.
    """
    arrays = take(state.params, chosen)
    updates, moments = optimizer.update(gradients, state.optimizer, arrays)
    arrays = optax.apply_updates(arrays, updates)
    rate = jnp.minimum(share, (1 + taken) / (10 + taken))
    average = tuple((rate * old + (1 - rate) * new).astype(new.dtype) for old, new in zip(state.average, arrays))
    return PartialState(state.step + 1, put(state.params, arrays, chosen), moments, average)


def averaged(state: PartialState, chosen: Any) -> Any:
    """The model with the average of what its stage trains."""
    return put(state.params, state.average, chosen)
