"""Attention across the views of one latent frame (AnimaX Sec. 3.2, multi-view consistency)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.networks.wan.layers import Attend, Attention, Rotary, layer_norm
from dimo_jax.third_party.wan.transformer import WanConfig


def gather_views(x: Array, num_views: int) -> Array:
    """[B*N,F,S,D] -> [B*F,N*S,D]: the places of all views of a frame in one row, N x F x hw -> F x (N hw)."""
    views, frames, places, dim = x.shape
    x = x.reshape(views // num_views, num_views, frames, places, dim)
    return jnp.moveaxis(x, 1, 2).reshape(-1, num_views * places, dim)


def scatter_views(x: Array, num_views: int, num_frames: int) -> Array:
    """`gather_views` undone: [B*F,N*S,D] -> [B*N,F,S,D]."""
    rows, length, dim = x.shape
    x = x.reshape(rows // num_frames, num_frames, num_views, length // num_views, dim)
    return jnp.moveaxis(x, 1, 2).reshape(-1, num_frames, length // num_views, dim)


def init_attention(attention: Attention) -> Attention:
    """Multi-view layers that start as the backbone's self-attention, and change nothing: their last layer is 0.

    They are float32, as all that is trained, whatever the backbone is.
    """
    attention = jax.tree.map(lambda x: x.astype(jnp.float32), attention)
    out = jax.tree.map(jnp.zeros_like, attention.out.replace(lora=None))
    plain = {name: getattr(attention, name).replace(lora=None) for name in ("query", "key", "value")}
    return attention.replace(out=out, **plain)


def attend_across_views(
    layer: Attention, x: Array, rotary: Rotary, *, num_views: int, config: WanConfig, attend: Attend
) -> Array:
    """x and what its tokens see in all views of their own frame.

    Where the layers stand and how they normalize the paper leaves open: here after self-attention, on
    normalized tokens that nothing modulates, with the rotary positions of rows and columns.

    Args:
      layer: the attention.
      x: [B*N,F,S,D].
      rotary: of one frame's places, S of them.
      num_views: N.
      config: sizes.
      attend: how attention is computed.
    """
    y = gather_views(layer_norm(x, config.eps).astype(x.dtype), num_views)
    cos, sin = (jnp.tile(part, (num_views, 1)) for part in rotary)
    y = layer(y, y, num_heads=config.num_heads, eps=config.eps, rotary=(cos, sin), attend=attend)
    return x + scatter_views(y, num_views, x.shape[1])
