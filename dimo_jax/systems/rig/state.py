"""What training the motion space of a rig carries from step to step, as one pytree."""

from __future__ import annotations

from typing import Any

import flax.struct

from dimo_jax.core.types import Array, Latents


class RigParams(flax.struct.PyTreeNode):
    """What training moves."""

    latents: Latents  # of all clips; those of clips that do not train stay where they began
    decoder: Any  # the decoder module's own variables


class RigState(flax.struct.PyTreeNode):
    """What a checkpoint holds."""

    step: Array  # [] int32
    params: RigParams
    optimizer: Any  # optax state; Adam's moments are shaped like params
