"""The motion decoder D(z, p_k, t) -> SE(3) pose of a key point (paper Eq. 4)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dimo_jax.types import Array


def encode(x: Array, *, num_bands: int) -> Array:
    """Sinusoidal encoding: x [..., C] -> [..., 2 * C * num_bands], sin and cos of 2^i pi x; x is not included.

    Source: NeRF, Eq. 4; the paper names it without numbers (Sec. 4.1).
    """
    angles = x[..., None] * (jnp.pi * 2.0 ** jnp.arange(num_bands, dtype=x.dtype))
    angles = angles.reshape(*x.shape[:-1], -1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class MotionDecoder(nn.Module):
    """An MLP with one skip connection and two heads (paper Sec. 4.1: 8 layers, skip at the 4th).

    The last layers start at zero (rotation bias (1, 0, 0, 0)), so that training starts from the canonical pose.
    """

    width: int = 256
    depth: int = 8
    skip: int = 4
    head_width: int = 256
    num_position_bands: int = 10
    num_time_bands: int = 6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array, positions: Array, time: Array) -> tuple[Array, Array]:
        """z [D], canonical positions [K,3], time [] in 0..1 -> translations [K,3], rotations [K,4] (wxyz, not unit)."""
        num_points = positions.shape[0]
        time_code = encode(jnp.reshape(time, (1,)), num_bands=self.num_time_bands)
        shared = jnp.concatenate([time_code, z])
        position_code = encode(positions, num_bands=self.num_position_bands)
        inputs = jnp.concatenate([position_code, jnp.broadcast_to(shared, (num_points, shared.shape[0]))], axis=-1)
        inputs = inputs.astype(self.dtype)
        hidden = inputs
        for layer in range(self.depth):
            if layer == self.skip:
                hidden = jnp.concatenate([inputs, hidden], axis=-1)
            hidden = nn.relu(self._dense(self.width, f"layer_{layer}")(hidden))
        translations = self._head(hidden, 3, nn.initializers.zeros, "translation")
        rotations = self._head(hidden, 4, _identity_bias, "rotation")
        return translations.astype(jnp.float32), rotations.astype(jnp.float32)

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)

    def _head(self, hidden: Array, size: int, bias_init: Any, name: str) -> Array:
        hidden = nn.relu(self._dense(self.head_width, f"{name}_hidden")(hidden))
        last = nn.Dense(size, dtype=self.dtype, kernel_init=nn.initializers.zeros, bias_init=bias_init, name=name)
        return last(hidden)


def _identity_bias(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    del key
    return jnp.zeros(shape, dtype).at[0].set(1.0)


def motion_decoder(
    *,
    width: int = 256,
    depth: int = 8,
    skip: int = 4,
    head_width: int = 256,
    num_position_bands: int = 10,
    num_time_bands: int = 6,
    dtype: str = "float32",
) -> nn.Module:
    """The decoder of the paper (8 layers, skip at 4) with the authors' widths and bands as defaults.

    A component for `config.decoder`: any function that returns a flax module with
    `__call__(z [D], positions [K,3], time []) -> (translations [K,3], rotations [K,4])` can stand in its place.
    """
    return MotionDecoder(
        width=width,
        depth=depth,
        skip=skip,
        head_width=head_width,
        num_position_bands=num_position_bands,
        num_time_bands=num_time_bands,
        dtype=jnp.dtype(dtype),
    )
