"""The diffusion transformer of Wan 2.1 text-to-video: noisy latents, a time and a text in, a velocity out.

Checked against diffusers' WanTransformer3DModel (tests/networks/test_wan_parity.py). Tokens are kept as
[B,F,S,D], F latent frames of S places, because times and what AnimaX adds act per frame.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.third_party.wan.transformer import WanConfig, expected_shapes, read_config, read_transformer

from .layers import Attend, Attention, Dense, Norm, Rotary, array_module, layer_norm, rotary_table


class Block(flax.struct.PyTreeNode):
    """One block; in `WanParams` every array has a leading axis over the blocks."""

    attention: Attention
    cross: Attention  # to the text
    cross_norm: Norm
    inner: Dense
    outer: Dense
    modulation: Array  # [6,D] float32: shift, scale and gate of attention, then of the dense layers


class WanParams(flax.struct.PyTreeNode):
    """The arrays of the transformer."""

    patch: Dense  # numbers of a patch -> D
    time_inner: Dense
    time_outer: Dense
    time_modulation: Dense  # D -> 6 D
    text_inner: Dense
    text_outer: Dense
    blocks: Block
    head: Dense  # D -> numbers of a patch
    head_modulation: Array  # [2,D] float32: shift, scale


def build_params(arrays: Mapping[str, Any], config: WanConfig, dtype: Any = jnp.float32) -> WanParams:
    """Arrays as diffusers names them -> the network, its blocks stacked.

    Args:
      arrays: with the shapes of `expected_shapes(config)`.
      config: sizes.
      dtype: float32 or bfloat16; what diffusers keeps in float32 (the time's embedding, norms, modulation) stays so.
    """

    xp = array_module(arrays)

    def dense(name: str, kind: Any = dtype) -> Dense:
        return Dense(kernel=arrays[f"{name}.weight"].T.astype(kind), bias=arrays[f"{name}.bias"].astype(kind))

    def exact(name: str) -> Array:
        return arrays[name].astype(jnp.float32)

    def attention(name: str) -> Attention:
        return Attention(
            query=dense(f"{name}.to_q"),
            key=dense(f"{name}.to_k"),
            value=dense(f"{name}.to_v"),
            out=dense(f"{name}.to_out.0"),
            query_norm=exact(f"{name}.norm_q.weight"),
            key_norm=exact(f"{name}.norm_k.weight"),
        )

    def block(index: int) -> Block:
        prefix = f"blocks.{index}"
        return Block(
            attention=attention(f"{prefix}.attn1"),
            cross=attention(f"{prefix}.attn2"),
            cross_norm=Norm(scale=exact(f"{prefix}.norm2.weight"), bias=exact(f"{prefix}.norm2.bias")),
            inner=dense(f"{prefix}.ffn.net.0.proj"),
            outer=dense(f"{prefix}.ffn.net.2"),
            modulation=exact(f"{prefix}.scale_shift_table")[0],
        )

    kernel = arrays["patch_embedding.weight"]  # [D,C,1,rows,columns]
    embedder = "condition_embedder"
    params = WanParams(
        patch=Dense(
            kernel=xp.moveaxis(kernel, 1, -1).reshape(kernel.shape[0], -1).T.astype(dtype),
            bias=arrays["patch_embedding.bias"].astype(dtype),
        ),
        time_inner=dense(f"{embedder}.time_embedder.linear_1", jnp.float32),
        time_outer=dense(f"{embedder}.time_embedder.linear_2", jnp.float32),
        time_modulation=dense(f"{embedder}.time_proj"),
        text_inner=dense(f"{embedder}.text_embedder.linear_1"),
        text_outer=dense(f"{embedder}.text_embedder.linear_2"),
        blocks=jax.tree.map(lambda *each: xp.stack(each), *(block(index) for index in range(config.num_layers))),
        head=dense("proj_out"),
        head_modulation=exact("scale_shift_table")[0],
    )
    return jax.tree.map(jnp.asarray, params)


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def init_params(key: Array, config: WanConfig, dtype: Any = jnp.float32) -> WanParams:
    """A network to train from nothing: kernels normal over the root of their inputs, norms 1, biases 0."""
    shapes = expected_shapes(config)
    noise = jax.random.normal(key, (sum(map(math.prod, shapes.values())),))  # one draw: each takes time to compile
    arrays, start = {}, 0
    for name, shape in shapes.items():
        drawn = noise[start : start + math.prod(shape)].reshape(shape)
        start += drawn.size
        if name.endswith("bias"):
            arrays[name] = jnp.zeros(shape)
        elif ".norm" in name:
            arrays[name] = jnp.ones(shape)
        else:
            arrays[name] = drawn / math.sqrt(shape[-1] if name.endswith("table") else math.prod(shape[1:]))
    return build_params(arrays, config, dtype)


def load_transformer(
    weights: Path, config: Path | None = None, *, dtype: Any = jnp.bfloat16
) -> tuple[WanParams, WanConfig]:
    """A transformer from files, in the layout of diffusers or of Wan's authors.

    Args:
      weights: a safetensors file, or a folder with one or with shards and their index.
      config: config.json; the one beside the weights where None.
      dtype: see `build_params`.

    Raises:
      UserError: files that are missing, damaged, of another model or of another type of number.
    """
    folder = weights if weights.is_dir() else weights.parent
    sizes = read_config(config or folder / "config.json")
    return build_params(read_transformer(weights, sizes), sizes, dtype), sizes


def patchify(latents: Array, patch: tuple[int, int, int]) -> Array:
    """Latents [B,F,H,W,C] -> numbers of patches [B,F,S,rows*columns*C], S = H/rows * W/columns.

    Raises:
      ValueError: height or width that patches do not divide.
    """
    _, rows, columns = patch
    batch, frames, height, width, channels = latents.shape
    if height % rows or width % columns:
        raise ValueError(f"latents of {height} x {width}, expected multiples of {rows} x {columns}")
    x = latents.reshape(batch, frames, height // rows, rows, width // columns, columns, channels)
    return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, frames, -1, rows * columns * channels)


def unpatchify(x: Array, height: int, width: int, patch: tuple[int, int, int]) -> Array:
    """`patchify` undone: [B,F,S,rows*columns*C] -> [B,F,height,width,C]."""
    _, rows, columns = patch
    batch, frames = x.shape[:2]
    x = x.reshape(batch, frames, height // rows, width // columns, rows, columns, -1)
    return x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, frames, height, width, -1)


def encode_frequencies(values: Array, size: int) -> Array:
    """Cosines, then sines, of values times size/2 frequencies from 1 down to almost 1/10000: [...] -> [...,size]."""
    rates = jnp.exp(-math.log(10000.0) * jnp.arange(size // 2, dtype=jnp.float32) / (size // 2))
    angles = values[..., None].astype(jnp.float32) * rates
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def embed_time(params: WanParams, timesteps: Array, config: WanConfig) -> Array:
    """Embedding of times in 0..1000: [...] -> [...,D] float32."""
    return params.time_outer(jax.nn.silu(params.time_inner(encode_frequencies(timesteps, config.freq_dim))))


def modulate_time(params: WanParams, time: Array) -> Array:
    """What every block is modulated by, before its own table: embedded time [...,D] -> [...,6,D] float32."""
    kind = params.time_modulation.kernel.dtype
    return params.time_modulation(jax.nn.silu(time.astype(kind))).reshape(*time.shape[:-1], 6, -1).astype(jnp.float32)


def embed_text(params: WanParams, text: Array) -> Array:
    """The text encoder's output [B,T,text_dim] -> [B,T,D]."""
    text = text.astype(params.text_inner.kernel.dtype)
    return params.text_outer(jax.nn.gelu(params.text_inner(text), approximate=True))


def _modulation(block: Block, time: Array, index: int) -> Array:
    """Row `index` of the block's six, for each frame: time [B,F,6,D] -> [B,F,1,D]."""
    return (block.modulation[index] + time[..., index, :])[:, :, None]


def self_attend(block: Block, x: Array, time: Array, rotary: Rotary, *, config: WanConfig, attend: Attend) -> Array:
    """Self-attention over all tokens of all frames (AnimaX Eq. 3): x [B,F,S,D], time [B,F,6,D] -> as x."""
    shift, scale, gate = (_modulation(block, time, index) for index in range(3))
    y = (layer_norm(x, config.eps) * (1 + scale) + shift).astype(x.dtype).reshape(x.shape[0], -1, x.shape[-1])
    y = block.attention(y, y, num_heads=config.num_heads, eps=config.eps, rotary=rotary, attend=attend)
    return (x.astype(jnp.float32) + y.reshape(x.shape) * gate).astype(x.dtype)


def cross_attend(block: Block, x: Array, text: Array, *, config: WanConfig, attend: Attend) -> Array:
    """Every token looks at the text: x [B,F,S,D], text [B,T,D] -> as x."""
    y = layer_norm(x, config.eps, block.cross_norm).astype(x.dtype).reshape(x.shape[0], -1, x.shape[-1])
    y = block.cross(y, text, num_heads=config.num_heads, eps=config.eps, rotary=None, attend=attend)
    return x + y.reshape(x.shape)


def feed_forward(block: Block, x: Array, time: Array, *, config: WanConfig) -> Array:
    """The dense layers of a block: x [B,F,S,D], time [B,F,6,D] -> as x."""
    shift, scale, gate = (_modulation(block, time, index) for index in range(3, 6))
    y = (layer_norm(x, config.eps) * (1 + scale) + shift).astype(x.dtype)
    y = block.outer(jax.nn.gelu(block.inner(y), approximate=True))
    return (x.astype(jnp.float32) + y * gate).astype(x.dtype)


def read_out(params: WanParams, x: Array, time: Array, config: WanConfig) -> Array:
    """Tokens [B,F,S,D] and the embedded time [B,F,D] -> numbers of patches [B,F,S,rows*columns*C]."""
    shift, scale = ((params.head_modulation[index] + time)[:, :, None] for index in range(2))
    return params.head((layer_norm(x, config.eps) * (1 + scale) + shift).astype(x.dtype))


@functools.partial(jax.jit, static_argnames=("config", "frames", "attend", "remat"))
def predict_velocity(
    params: WanParams,
    latents: Array,
    timesteps: Array,
    text: Array,
    *,
    config: WanConfig,
    frames: tuple[int, ...] | None = None,
    attend: Attend = "xla",
    remat: bool = False,
) -> Array:
    """The velocity noise - video of rectified flow that the network predicts.

    Args:
      params: the network.
      latents: [B,F,H,W,C] noisy, normalized latents.
      timesteps: [B] or [B,F] in 0..1000, a time per video or per latent frame.
      text: [B,T,text_dim] of the text encoder, rows of padding 0; Wan has T = 512.
      config: sizes.
      frames: F positions of the frames in `rotary_table`, 0 to F-1 where None.
      attend: how attention is computed, see `layers.Attend`.
      remat: whether gradients compute blocks anew instead of keeping what is inside.

    Returns:
      [B,F,H,W,C] float32.
    """
    batch, num_frames, height, width = latents.shape[:4]
    _, rows, columns = config.patch
    rotary = rotary_table(frames or range(num_frames), height // rows, width // columns, config.head_dim)
    x = params.patch(patchify(latents, config.patch).astype(params.patch.kernel.dtype))
    time = embed_time(params, timesteps if timesteps.ndim == 2 else timesteps[:, None], config)
    time = jnp.broadcast_to(time, (batch, num_frames, time.shape[-1]))
    modulation, words = modulate_time(params, time), embed_text(params, text)

    def step(x: Array, block: Block) -> tuple[Array, None]:
        x = self_attend(block, x, modulation, rotary, config=config, attend=attend)
        x = cross_attend(block, x, words, config=config, attend=attend)
        return feed_forward(block, x, modulation, config=config), None

    x = jax.lax.scan(jax.checkpoint(step) if remat else step, x, params.blocks)[0]
    return unpatchify(read_out(params, x, time, config), height, width, config.patch).astype(jnp.float32)
