"""The resampler of IP-Adapter (Ye et al. 2023): the many tokens of a picture to a few that attention looks at."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.networks.wan.layers import Dense, Norm, layer_norm
from dimo_jax.third_party.imagedream.unet import UNetConfig

from .layers import Builder

EPS = 1e-5
HEAD_DIM = 64


class ResamplerLayer(flax.struct.PyTreeNode):
    """The few look at the many and at themselves; then dense layers."""

    many_norm: Norm
    few_norm: Norm
    query: Dense
    key_value: Dense
    out: Dense
    norm: Norm
    inner: Dense
    outer: Dense


class Resampler(flax.struct.PyTreeNode):
    """The arrays of the resampler."""

    few: Array  # [K,D]
    first: Dense
    layers: tuple[ResamplerLayer, ...]
    last: Dense
    norm: Norm


def build_resampler(make: Builder, config: UNetConfig, name: str = "image_embed") -> Resampler:
    """The resampler among a UNet's arrays."""

    def layer(index: int) -> ResamplerLayer:
        look, dense = (f"{name}.layers.{index}.{part}" for part in range(2))
        return ResamplerLayer(
            many_norm=make.norm(f"{look}.norm1"),
            few_norm=make.norm(f"{look}.norm2"),
            query=make.dense(f"{look}.to_q"),
            key_value=make.dense(f"{look}.to_kv"),
            out=make.dense(f"{look}.to_out"),
            norm=make.norm(f"{dense}.0"),
            inner=make.dense(f"{dense}.1"),
            outer=make.dense(f"{dense}.3"),
        )

    return Resampler(
        few=make.arrays[f"{name}.latents"][0].astype(make.dtype),
        first=make.dense(f"{name}.proj_in"),
        layers=tuple(layer(index) for index in range(config.resampler_layers)),
        last=make.dense(f"{name}.proj_out"),
        norm=make.norm(f"{name}.norm_out"),
    )


def resample(params: Resampler, tokens: Array) -> Array:
    """Tokens [N,M,image_dim] of pictures, those before the image encoder's last layer -> [N,K,text_dim]."""
    many = params.first(tokens)
    few = jnp.broadcast_to(params.few, (len(tokens), *params.few.shape)).astype(many.dtype)
    for layer in params.layers:
        asked = layer_norm(few, EPS, layer.few_norm).astype(many.dtype)
        seen = jnp.concatenate([layer_norm(many, EPS, layer.many_norm).astype(many.dtype), asked], axis=1)
        query = layer.query(asked)
        key, value = jnp.split(layer.key_value(seen), 2, axis=-1)
        heads = (part.reshape(*part.shape[:2], -1, HEAD_DIM) for part in (query, key, value))
        few = few + layer.out(jax.nn.dot_product_attention(*heads).reshape(query.shape))
        y = layer.inner(layer_norm(few, EPS, layer.norm).astype(many.dtype))
        few = few + layer.outer(jax.nn.gelu(y, approximate=False))
    return layer_norm(params.last(few), EPS, params.norm).astype(many.dtype)
