"""What the training engine knows of a thing that trains."""

from __future__ import annotations

from typing import Any, Protocol

import flax.struct

from dimo_jax.core.types import Array


class State(Protocol):
    """What a step takes and returns: a pytree of arrays whose shapes are static within a stage."""

    @property
    def step(self) -> Array:
        """[] int32, steps taken in all stages."""
        ...

    @property
    def params(self) -> Any:
        """What the optimizer moves."""
        ...

    @property
    def optimizer(self) -> Any:
        """State of the optax optimizer."""
        ...


class Metrics(flax.struct.PyTreeNode):
    """Scalars of one step; they stay on the device until somebody logs them."""

    loss: Array
    terms: dict[str, Array]
    psnr: Array  # of the batch's images, over the whole frame
    overflow: Array  # Gaussian-tile pairs that found no room
    preview: Array  # [2,H,W,3] truth and rendering of the batch's first image
