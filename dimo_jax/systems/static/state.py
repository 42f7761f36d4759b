"""What training a static object carries from step to step, as one pytree."""

from __future__ import annotations

from typing import Any

import flax.struct

from dimo_jax.core.types import Array, Gaussians
from dimo_jax.training import density
from dimo_jax.training.gaussians import mask_dead


class StillParams(flax.struct.PyTreeNode):
    """What training moves."""

    gaussians: Gaussians


class StillState(flax.struct.PyTreeNode):
    """What a checkpoint holds."""

    step: Array  # [] int32
    params: StillParams
    optimizer: Any  # optax state; Adam's moments are shaped like params
    alive: Array  # [N] bool, slots in use
    density: density.DensityStats
    dropped: Array  # [] int32: points that density control found no free slot for

    @property
    def visible(self) -> Gaussians:
        """As they are rendered: dead slots transparent."""
        return mask_dead(self.params.gaussians, self.alive)
