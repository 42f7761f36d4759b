"""The transformer of ImageDream's UNet: its arrays, and attention that looks at a text and a picture (ATOP Eq. 3)."""

from __future__ import annotations

import flax.struct

from dimo_jax.core.types import Array
from dimo_jax.networks.wan.layers import Attend, Dense, Norm, attend_to

EPS = 1e-5  # of layer norms, and of group norms in residual blocks
OUTER_EPS = 1e-6  # of the group norm before a transformer


class Attention(flax.struct.PyTreeNode):
    """Attention to itself or to a text, and to a picture by keys and values of its own."""

    query: Dense
    key: Dense
    value: Dense
    out: Dense
    image_key: Dense | None
    image_value: Dense | None


class Transformer(flax.struct.PyTreeNode):
    """Attention over all views, attention to text and picture, dense layers."""

    norm: Norm  # of groups
    first: Dense
    norm1: Norm
    attention: Attention
    norm2: Norm
    cross: Attention
    norm3: Norm
    inner: Dense  # D -> 8 D, of which one half gates the other
    outer: Dense
    last: Dense


def _split(x: Array, head_dim: int) -> Array:
    return x.reshape(*x.shape[:-1], -1, head_dim)


def look(
    layer: Attention, x: Array, context: Array, image: Array | None, *, image_weight: float, dim: int, attend: Attend
) -> Array:
    """Attn(Q, K, V) + image_weight Attn(Q, K_image, V_image) (ATOP Eq. 3).

    Args:
      layer: the attention.
      x: [N,L,D].
      context: [N,M,C], x itself or a text.
      image: [N,K,C] tokens of a picture, or None.
      image_weight: lambda.
      dim: numbers of a head.
      attend: how attention is computed.
    """
    query = _split(layer.query(x), dim)
    found = attend_to(query, _split(layer.key(context), dim), _split(layer.value(context), dim), attend=attend)
    if image is not None and layer.image_key is not None and layer.image_value is not None:
        key, value = _split(layer.image_key(image), dim), _split(layer.image_value(image), dim)
        found = found + image_weight * attend_to(query, key, value, attend=attend)
    return layer.out(found.reshape(x.shape))
