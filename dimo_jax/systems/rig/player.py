"""Plays motions of a trained rig: a code and times in, poses of its nodes out."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.rigs.channels import to_pose
from dimo_jax.rigs.forward import Pose, pad_frames
from dimo_jax.systems.rig.model import Puppet
from dimo_jax.systems.rig.state import RigParams


class RigPlayer:
    """A trained motion space of a rig, compiled once per number of frames."""

    def __init__(self, puppet: Puppet, module: nn.Module, params: RigParams) -> None:
        self.puppet, self.module, self.params = puppet, module, params

        def decode(params: RigParams, z: Array, times: Array, loop: Array) -> Any:
            return module.apply(params.decoder, z, times, loop)

        self._decode = jax.jit(decode)
        each = jax.vmap(lambda params, z, time, loop: decode(params, z, time[None], loop)[0], (None, 0, 0, None))
        self._walk = jax.jit(each)
        self._pose = jax.jit(lambda vectors: to_pose(puppet.channels, puppet.rig, vectors))

    def latent(self, motion: int) -> Array:
        """The mean code mu_m [D] of a training clip."""
        return self.params.latents.mu[motion]

    def decode(self, code: Array, times: Any, *, loop: bool) -> Array:
        """Pose vectors [T,C] of a code [D] at times [T] in 0..1."""
        vectors: Array = self._decode(self.params, code, jnp.asarray(times, jnp.float32), jnp.asarray(float(loop)))
        return vectors

    def play(self, codes: Array, times: Any, *, loop: bool) -> Pose:
        """The poses, leading axis T, of a code [D], or of one a frame [T,D], at times [T] in 0..1."""
        count, flag = len(times), jnp.asarray(float(loop))
        padded = jnp.asarray(pad_frames(np.asarray(times, np.float32)))
        if codes.ndim == 2:
            vectors = self._walk(self.params, jnp.asarray(pad_frames(np.asarray(codes))), padded, flag)
        else:
            vectors = self._decode(self.params, codes, padded, flag)
        pose: Pose = jax.tree.map(lambda x: x[:count], self._pose(vectors))
        return pose
