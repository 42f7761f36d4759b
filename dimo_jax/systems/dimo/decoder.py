"""The motion decoder D(z, p_k, t) -> SE(3) pose of a key point (paper Eq. 4)."""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.networks.rows import rows_plus, rows_times


def encode(x: Array, *, num_bands: int, lowest_frequency: float = math.pi) -> Array:
    """Sinusoidal encoding: x [..., C] -> [..., 2 * C * num_bands], sin and cos of 2^i f x; x is not included.

    Source: NeRF, Eq. 4, where the lowest frequency f is pi; the paper names it without numbers (Sec. 4.1), and the
    authors' code has f = 1.
    """
    angles = x[..., None] * (lowest_frequency * 2.0 ** jnp.arange(num_bands, dtype=x.dtype))
    angles = angles.reshape(*x.shape[:-1], -1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class SplitDense(nn.Module):
    """A dense layer over the concatenation of its inputs, with the parameters of `nn.Dense` over it.

    The product of a concatenation is the sum of the products, each over only the rows that its input has: a position's
    share is computed once for all motions and times, and a time's once for all positions, where `vmap` leaves them
    apart (docs/performance.md says what that saves).
    """

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        """x_i [..., C_i], whose leading axes broadcast -> [..., features]; what is shared most comes first."""
        sizes = [x.shape[-1] for x in inputs]
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), (sum(sizes), self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        shares = jnp.split(kernel.astype(self.dtype), ends)
        products = [rows_times(x.astype(self.dtype), share) for x, share in zip(inputs, shares, strict=True)]
        total = jnp.broadcast_to(products[-1], jnp.broadcast_shapes(*(product.shape for product in products)))
        return functools.reduce(rows_plus, [*products[:-1], bias.astype(self.dtype)], total)


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
    lowest_frequency: float = math.pi
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array, positions: Array, time: Array) -> tuple[Array, Array]:
        """z [D], canonical positions [K,3], time [] in 0..1 -> translations [K,3], rotations [K,4] (wxyz, not unit)."""
        lowest = self.lowest_frequency
        time_code = encode(jnp.reshape(time, (1,)), num_bands=self.num_time_bands, lowest_frequency=lowest)
        place_code = encode(positions, num_bands=self.num_position_bands, lowest_frequency=lowest)
        inputs = (place_code, jnp.concatenate([time_code, z]))
        hidden: tuple[Array, ...] = inputs
        for layer in range(self.depth):
            seen = (*inputs, *hidden) if layer == self.skip else hidden
            hidden = (nn.relu(SplitDense(self.width, dtype=self.dtype, name=f"layer_{layer}")(*seen)),)
        translations = self._head(hidden, 3, nn.initializers.zeros, "translation")
        rotations = self._head(hidden, 4, _identity_bias, "rotation")
        return translations.astype(jnp.float32), rotations.astype(jnp.float32)

    def _head(self, inputs: tuple[Array, ...], size: int, bias_init: Any, name: str) -> Array:
        hidden = nn.relu(SplitDense(self.head_width, dtype=self.dtype, name=f"{name}_hidden")(*inputs))
        zeros = nn.initializers.zeros
        return nn.Dense(
            size, dtype=self.dtype, kernel_init=zeros, bias_init=bias_init, dot_general=_dot_general, name=name
        )(hidden)


def _dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """For `nn.Dense`, whose product is over the last axis of x."""
    return rows_times(x, kernel)


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
    lowest_frequency: float = math.pi,
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
        lowest_frequency=lowest_frequency,
        dtype=jnp.dtype(dtype),
    )
