"""The joint video-pose transformer of AnimaX (Sec. 3.2): Wan 2.1's, and what the paper adds to it.

All additions start at zero: at first each view is what the backbone makes of its sequence.
"""

from __future__ import annotations

import functools
import math

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.diffusion.lora import add_lora
from dimo_jax.networks.wan.layers import Attend, Attention, Dense, rotary_table
from dimo_jax.networks.wan.transformer import (
    Block,
    WanParams,
    cross_attend,
    embed_text,
    embed_time,
    encode_frequencies,
    feed_forward,
    modulate_time,
    patchify,
    read_out,
    self_attend,
    unpatchify,
)
from dimo_jax.third_party.wan.transformer import WanConfig

from . import multi_view, rays, sequence


class Modality(flax.struct.PyTreeNode):
    """Frequency encoding of a modality's identifier -> what is added to the embedded time."""

    inner: Dense
    outer: Dense


class AnimaxParams(flax.struct.PyTreeNode):
    """The arrays of the joint model."""

    backbone: WanParams  # Wan's, with a LoRA in its blocks' attention
    modality: Modality
    # What a patch of ray maps adds to its token: the rows that a patch embedding of C + 6 channels has more.
    camera: Dense
    views: Attention | None  # one for each block, stacked; None for the first stage, which sees one view


def _gets_lora(path: str) -> bool:
    return ".blocks.attention." in path or ".blocks.cross." in path


def init_params(
    key: Array, backbone: WanParams, config: WanConfig, *, rank: int = 64, alpha: float = 64.0, multi_view_layers: bool
) -> AnimaxParams:
    """The joint model at step 0, around a backbone.

    Args:
      key: of what does not start at zero.
      backbone: Wan's arrays.
      config: its sizes.
      rank, alpha: of the LoRA in self-attention and attention to the text, which the paper does not say; 0 is none.
      multi_view_layers: whether to add them, for the second stage.
    """
    keys = jax.random.split(key, 2)
    inner = jax.random.normal(keys[0], (config.freq_dim, config.dim)) / math.sqrt(config.freq_dim)
    numbers = rays.NUM_CHANNELS * math.prod(config.patch)
    return AnimaxParams(
        backbone=add_lora(backbone, keys[1], rank=rank, alpha=alpha, where=_gets_lora) if rank else backbone,
        modality=Modality(
            inner=Dense(inner, jnp.zeros(config.dim)),
            outer=Dense(jnp.zeros((config.dim, config.dim)), jnp.zeros(config.dim)),
        ),
        camera=Dense(jnp.zeros((numbers, config.dim))),
        views=multi_view.init_attention(backbone.blocks.attention) if multi_view_layers else None,
    )


def add_views(params: AnimaxParams) -> AnimaxParams:
    """The model of the first stage with multi-view layers that change nothing yet, for the second."""
    return params.replace(views=multi_view.init_attention(params.backbone.blocks.attention))


def embed_modality(modality: Modality, num_frames: int, freq_dim: int) -> Array:
    """What every frame's embedded time gets for its modality: [2f+4,D] float32."""
    encoded = encode_frequencies(jnp.asarray(sequence.modalities(num_frames)), freq_dim)
    return modality.outer(jax.nn.silu(modality.inner(encoded)))


@functools.partial(jax.jit, static_argnames=("config", "attend", "remat"))
def predict_joint(
    params: AnimaxParams,
    latents: Array,
    timesteps: Array,
    text: Array,
    ray_maps: Array,
    *,
    config: WanConfig,
    attend: Attend = "xla",
    remat: bool = False,
) -> Array:
    """The velocity of a joint sequence; that of the condition's frames means nothing.

    Attention([c_rgb, x_rgb, c_pose, x_pose]) over all frames of a view (Eq. 3), with positions that both halves
    share (Eq. 4); then, frame by frame, attention over all views.

    Args:
      params: the model.
      latents: [B,N,2f+4,h,w,C], see `sequence.join`.
      timesteps: [B] in 0..1000, of the noisy frames.
      text: [B,T,text_dim].
      ray_maps: [B,N,h,w,6], see `rays.plucker_rays`.
      config: sizes of the backbone.
      attend: how attention is computed.
      remat: whether gradients compute blocks anew instead of keeping what is inside.

    Returns:
      [B,N,2f+4,h,w,C] float32.

    Raises:
      ValueError: texts or rays that are not those of the samples, views and places; an odd number of frames.
    """
    batch, num_views, num_frames, height, width = latents.shape[:5]
    if ray_maps.shape != (*latents.shape[:2], height, width, rays.NUM_CHANNELS):
        raise ValueError(f"rays {ray_maps.shape}, expected {(batch, num_views, height, width, rays.NUM_CHANNELS)}")
    if len(text) != batch or len(timesteps) != batch or num_frames % 2 or num_frames < 4:
        raise ValueError(
            f"{len(text)} texts, {len(timesteps)} times, {num_frames} frames, expected {batch}, {batch} and 2 f + 4"
        )
    backbone, (_, rows, columns) = params.backbone, config.patch
    grid = (height // rows, width // columns)
    rotary = rotary_table(sequence.shared_positions(num_frames), *grid, config.head_dim)
    within = rotary_table((0,), *grid, config.head_dim)

    kind = backbone.patch.kernel.dtype
    flat = latents.reshape(-1, *latents.shape[2:])
    x = backbone.patch(patchify(flat, config.patch).astype(kind))
    seen = patchify(ray_maps.reshape(-1, 1, *ray_maps.shape[2:]), config.patch)
    x = x + params.camera(seen).astype(kind)

    time = embed_time(backbone, sequence.frame_timesteps(timesteps, num_frames), config)
    time = jnp.repeat(time + embed_modality(params.modality, num_frames, config.freq_dim), num_views, axis=0)
    modulation = modulate_time(backbone, time)
    words = jnp.repeat(embed_text(backbone, text), num_views, axis=0)

    def step(x: Array, layers: tuple[Block, Attention | None]) -> tuple[Array, None]:
        block, across = layers
        x = self_attend(block, x, modulation, rotary, config=config, attend=attend)
        if across is not None:
            x = multi_view.attend_across_views(across, x, within, num_views=num_views, config=config, attend=attend)
        x = cross_attend(block, x, words, config=config, attend=attend)
        return feed_forward(block, x, modulation, config=config), None

    x = jax.lax.scan(jax.checkpoint(step) if remat else step, x, (backbone.blocks, params.views))[0]
    found = unpatchify(read_out(backbone, x, time, config), height, width, config.patch)
    return found.reshape(batch, num_views, *found.shape[1:]).astype(jnp.float32)
