"""Layers that the networks of Wan share: dense with an optional LoRA, normalizations, attention, rotary positions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.networks.rows import rows_plus

# How attention is computed: XLA's plain form holds all scores at once, "chunks" those of some queries at a time, and
# cuDNN's never any; it needs a GPU, and bfloat16 or float16.
Attend = Literal["xla", "chunks", "cudnn"]
CHUNK = 1024  # queries at a time
Rotary = tuple[Array, Array]  # cosine and sine, each [L,d/2]


def array_module(arrays: Mapping[str, Any]) -> Any:
    """NumPy where all arrays are NumPy's, so that weights are put in order without a program each; else jax.numpy."""
    return np if all(isinstance(array, np.ndarray) for array in arrays.values()) else jnp


class Lora(flax.struct.PyTreeNode):
    """A change of low rank of a dense layer (Hu et al. 2021), x @ down @ up * scale."""

    down: Array  # [in,rank]
    up: Array  # [rank,out]
    scale: float = flax.struct.field(pytree_node=False)


class Dense(flax.struct.PyTreeNode):
    """x @ kernel + bias, and what its LoRA adds, where it has one, computed in the type of x.

    So arrays that are trained may be float32 among others of half the precision.
    """

    kernel: Array  # [in,out]
    bias: Array | None = None  # [out]
    lora: Lora | None = None

    def __call__(self, x: Array) -> Array:
        """x [...,in] -> [...,out]."""
        y = x @ self.kernel.astype(x.dtype)
        if self.bias is not None:
            y = rows_plus(y, self.bias.astype(x.dtype))
        if self.lora is not None:
            y = y + (x @ self.lora.down.astype(x.dtype)) @ self.lora.up.astype(x.dtype) * self.lora.scale
        return y


class Norm(flax.struct.PyTreeNode):
    """What a layer normalization is scaled and shifted by."""

    scale: Array  # [D]
    bias: Array  # [D]


def layer_norm(x: Array, eps: float, norm: Norm | None = None) -> Array:
    """Layer normalization over the last axis, in float32: x [...,D] -> [...,D] float32."""
    x = x.astype(jnp.float32)
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    y = centered * jax.lax.rsqrt(jnp.mean(centered**2, axis=-1, keepdims=True) + eps)
    return y if norm is None else y * norm.scale + norm.bias


def rms_norm(x: Array, scale: Array, eps: float) -> Array:
    """x over its root mean square along the last axis, computed in float32: x [...,D], scale [D] -> as x."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y**2, axis=-1, keepdims=True) + eps)
    return (y * scale).astype(x.dtype)


def rotary_table(frames: Sequence[int], height: int, width: int, head_dim: int, *, base: float = 10000.0) -> Rotary:
    """Angles of rotary positions over a video's grid (AnimaX Eq. 1), R(i,j,k) for place (row, column) of frame i.

    Two thirds of a head's pairs turn with row and column, the others, which are never fewer, with the frame.

    Args:
      frames: [F] positions of the frames, whole numbers; two frames may share one (AnimaX Eq. 4).
      height, width: rows and columns of tokens.
      head_dim: numbers of a head, even.
      base: of the frequencies.

    Returns:
      Cosine and sine [F*height*width, head_dim/2], float32.
    """
    side = 2 * (head_dim // 6)
    shape = (len(frames), height, width)
    tables: list[Rotary] = []
    for axis, (places, size) in enumerate(
        ((np.asarray(frames), head_dim - 2 * side), (np.arange(height), side), (np.arange(width), side))
    ):
        # In float64, and spread over the grid by the program: a table of a whole video would be a large constant.
        angles = places[:, None] * base ** (-np.arange(0, size, 2, dtype=np.float64) / max(size, 1))
        spread = [1, 1, 1, size // 2]
        spread[axis] = shape[axis]
        cos, sin = (
            jnp.broadcast_to(part.astype(np.float32).reshape(spread), (*shape, size // 2))
            for part in (np.cos(angles), np.sin(angles))
        )
        tables.append((cos, sin))
    cos, sin = (jnp.concatenate(parts, axis=-1).reshape(math.prod(shape), -1) for parts in zip(*tables))
    return cos, sin


def rotate(x: Array, table: Rotary) -> Array:
    """Turns neighbouring pairs of numbers by their place's angles: x [B,L,heads,d] -> as x."""
    cos, sin = (part[:, None, :] for part in table)
    even, odd = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def attend_to(query: Array, key: Array, value: Array, *, attend: Attend, chunk: int = CHUNK) -> Array:
    """softmax(query key^T / sqrt(d)) value: query [B,L,heads,d], key and value [B,M,heads,d] -> as query."""
    if attend != "chunks" or query.shape[1] <= chunk:
        plain: Literal["xla", "cudnn"] = "xla" if attend == "chunks" else attend
        return jax.nn.dot_product_attention(query, key, value, implementation=plain)
    batch, length, heads, dim = query.shape
    padded = jnp.pad(query, ((0, 0), (0, -length % chunk), (0, 0), (0, 0)))
    pieces = jnp.moveaxis(padded.reshape(batch, -1, chunk, heads, dim), 1, 0)
    # Gradients compute the scores anew, or they would all be kept.
    found = jax.lax.map(jax.checkpoint(lambda piece: jax.nn.dot_product_attention(piece, key, value)), pieces)
    return jnp.moveaxis(found, 0, 1).reshape(padded.shape)[:, :length]


class Attention(flax.struct.PyTreeNode):
    """Attention whose queries and keys are normalized over all heads together."""

    query: Dense
    key: Dense
    value: Dense
    out: Dense
    query_norm: Array  # [D]
    key_norm: Array  # [D]

    def __call__(
        self, x: Array, context: Array, *, num_heads: int, eps: float, rotary: Rotary | None, attend: Attend
    ) -> Array:
        """x [B,L,D] looks at context [B,M,D], which with `rotary` [L,...] is as long as x -> [B,L,D]."""
        query = _split(rms_norm(self.query(x), self.query_norm, eps), num_heads)
        key = _split(rms_norm(self.key(context), self.key_norm, eps), num_heads)
        value = _split(self.value(context), num_heads)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        return self.out(attend_to(query, key, value, attend=attend).reshape(x.shape))


def _split(x: Array, num_heads: int) -> Array:
    return x.reshape(*x.shape[:-1], num_heads, -1)
