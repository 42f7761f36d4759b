"""What training the generator carries from step to step, as one pytree."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax

from dimo_jax.core.types import Array

from .model import GeneratorParams
from .training import trained


class AtopState(flax.struct.PyTreeNode):
    """What a checkpoint holds: also what its stage leaves alone, so that it is a model by itself."""

    step: Array  # [] int32
    params: GeneratorParams
    optimizer: Any  # optax state, of the arrays of `take_trained`
    average: tuple[Array, ...]  # of these arrays over the last steps, with which videos are drawn


def take_trained(params: GeneratorParams, stage: str) -> tuple[Array, ...]:
    """The arrays that a stage trains, in the order of the tree."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(trained(params, stage)), strict=True)
    return tuple(array for array, chosen in pairs if chosen)


def put_trained(params: GeneratorParams, arrays: tuple[Array, ...], stage: str) -> GeneratorParams:
    """The model with other arrays in the place of `take_trained`."""
    others = iter(arrays)
    leaves, structure = jax.tree.flatten(params)
    chosen = jax.tree.leaves(trained(params, stage))
    found: GeneratorParams = jax.tree.unflatten(
        structure, [next(others) if flag else leaf for leaf, flag in zip(leaves, chosen, strict=True)]
    )
    return found
