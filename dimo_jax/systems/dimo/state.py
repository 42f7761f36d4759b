"""What training carries from step to step, as one pytree."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct

from dimo_jax.core.types import Array, Params
from dimo_jax.systems.dimo.model import Neighbors
from dimo_jax.training.density import DensityStats


class TrainState(flax.struct.PyTreeNode):
    """Everything a checkpoint holds; all shapes are static within a stage."""

    step: Array  # [] int32, steps taken in all stages
    params: Params
    optimizer: Any  # optax state; Adam's moments are shaped like params
    alive: Array  # [N] bool, slots of `params.gaussians` in use
    neighbors: Neighbors  # of every motion: leading axis M
    density: DensityStats
    reference: Array  # [M,T,K,3] the first stage's trajectories (zeros until it ends)
    dropped: Array  # [] int32: points that density control found no free slot for


def fields_of(node: flax.struct.PyTreeNode) -> dict[str, Any]:
    """Values of a node's fields by name, to make one of a kind that has others besides."""
    return {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}  # type: ignore[arg-type]
