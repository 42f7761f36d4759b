"""Stable Diffusion's autoencoder, which ImageDream keeps: pictures to latents an eighth the size, and back.

Checked against diffusers' AutoencoderKL (tests/networks/test_imagedream_parity.py).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.networks.wan.layers import Attend, Dense, Norm, attend_to
from dimo_jax.third_party.imagedream.vae import VaeConfig, read_config, read_vae

from .layers import Builder, Conv, Residual, group_norm, grow, pass_residual

EPS = 1e-6


class Look(flax.struct.PyTreeNode):
    """Attention of a picture's places to each other, with one head."""

    norm: Norm
    query: Dense
    key: Dense
    value: Dense
    out: Dense


class Level(flax.struct.PyTreeNode):
    """Residual blocks of one size, and what leads to the next."""

    residuals: tuple[Residual, ...]
    resample: Conv | None


class Coder(flax.struct.PyTreeNode):
    """The encoder or the decoder."""

    first: Conv
    middle: tuple[Residual, Look, Residual]
    levels: tuple[Level, ...]
    norm: Norm
    last: Conv


class VaeParams(flax.struct.PyTreeNode):
    """The arrays of the autoencoder."""

    encoder: Coder
    moments: Dense  # after the encoder: 2 Z -> 2 Z, mean and log of the variance
    latents: Dense  # before the decoder: Z -> Z
    decoder: Coder


def build_params(arrays: Mapping[str, Any], config: VaeConfig, dtype: Any = jnp.float32) -> VaeParams:
    """Arrays as diffusers names them -> the network, kernels in `dtype`."""
    make = Builder(arrays, dtype)

    def residual(name: str) -> Residual:
        shortcut = f"{name}.conv_shortcut"
        return Residual(
            norm1=make.norm(f"{name}.norm1"),
            conv1=make.conv(f"{name}.conv1"),
            time=None,
            norm2=make.norm(f"{name}.norm2"),
            conv2=make.conv(f"{name}.conv2"),
            shortcut=make.dense(shortcut) if make.has(shortcut) else None,
        )

    def level(name: str, count: int, resample: str) -> Level:
        found = f"{name}.{resample}.0.conv"
        residuals = tuple(residual(f"{name}.resnets.{index}") for index in range(count))
        return Level(residuals, make.conv(found) if make.has(found) else None)

    def coder(name: str, levels: list[Level]) -> Coder:
        look = f"{name}.mid_block.attentions.0"
        parts = (make.dense(f"{look}.{part}") for part in ("to_q", "to_k", "to_v", "to_out.0"))
        return Coder(
            first=make.conv(f"{name}.conv_in"),
            middle=(
                residual(f"{name}.mid_block.resnets.0"),
                Look(make.norm(f"{look}.group_norm"), *parts),
                residual(f"{name}.mid_block.resnets.1"),
            ),
            levels=tuple(levels),
            norm=make.norm(f"{name}.conv_norm_out"),
            last=make.conv(f"{name}.conv_out"),
        )

    count, levels = config.num_residuals, range(len(config.channels))
    params = VaeParams(
        encoder=coder("encoder", [level(f"encoder.down_blocks.{i}", count, "downsamplers") for i in levels]),
        moments=make.dense("quant_conv"),
        latents=make.dense("post_quant_conv"),
        decoder=coder("decoder", [level(f"decoder.up_blocks.{i}", count + 1, "upsamplers") for i in levels]),
    )
    return jax.tree.map(jnp.asarray, params)


def load_vae(weights: Path, config: Path | None = None, *, dtype: Any = jnp.float32) -> tuple[VaeParams, VaeConfig]:
    """An autoencoder from files, in the layout of diffusers or of Stable Diffusion's authors.

    Args:
      weights: a safetensors, `.pt` or `.bin` file, of the autoencoder or of the whole model, or a folder.
      config: config.json; where None the one beside the weights, and Stable Diffusion's sizes where there is none.
      dtype: float32, bfloat16 or float16.

    Raises:
      UserError: files that are missing, damaged, of another model or of another type of number.
    """
    beside = (weights if weights.is_dir() else weights.parent) / "config.json"
    alone = config is None and (weights.suffix == ".pt" or not beside.is_file())
    sizes = VaeConfig() if alone else read_config(config or beside)
    return build_params(read_vae(weights, sizes), sizes, dtype), sizes


@functools.partial(jax.jit, static_argnames=("config", "attend"))
def encode(params: VaeParams, pictures: Array, *, config: VaeConfig, attend: Attend = "xla") -> Array:
    """Latents of pictures, their mean times the scale of `config`.

    Args:
      params: the network.
      pictures: [...,H,W,3] in -1..1, sides that are multiples of 8.
      config: sizes.
      attend: how attention is computed.

    Returns:
      [...,H/8,W/8,Z] float32.

    Raises:
      ValueError: another size.
    """
    height, width = pictures.shape[-3:-1]
    if height % config.factor or width % config.factor:
        raise ValueError(f"pictures of {height} x {width}, expected multiples of {config.factor}")
    coder = params.encoder
    x = coder.first(pictures.reshape(-1, *pictures.shape[-3:]).astype(coder.first.kernel.dtype))
    for level in coder.levels:
        for residual in level.residuals:
            x = pass_residual(residual, x, None, groups=config.groups, eps=EPS)
        if level.resample is not None:
            x = level.resample(x, stride=2, pad=(0, 1))
    x = params.moments(_finish(coder, _pass_middle(coder, x, config, attend), config))
    mean = x[..., : config.latent_channels].astype(jnp.float32) * config.scale
    return mean.reshape(*pictures.shape[:-3], *mean.shape[1:])


@functools.partial(jax.jit, static_argnames=("config", "attend"))
def decode(params: VaeParams, latents: Array, *, config: VaeConfig, attend: Attend = "xla") -> Array:
    """Pictures of latents, see `encode`: [...,h,w,Z] -> [...,8h,8w,3] float32, which may leave -1..1 a little."""
    coder = params.decoder
    x = latents.reshape(-1, *latents.shape[-3:]) / config.scale
    x = coder.first(params.latents(x.astype(coder.first.kernel.dtype)))
    x = _pass_middle(coder, x, config, attend)
    for level in coder.levels:
        for residual in level.residuals:
            x = pass_residual(residual, x, None, groups=config.groups, eps=EPS)
        x = x if level.resample is None else grow(level.resample, x)
    x = _finish(coder, x, config).astype(jnp.float32)
    return x.reshape(*latents.shape[:-3], *x.shape[1:])


def _pass_middle(coder: Coder, x: Array, config: VaeConfig, attend: Attend) -> Array:
    before, look, after = coder.middle
    x = pass_residual(before, x, None, groups=config.groups, eps=EPS)
    y = group_norm(x, look.norm, groups=config.groups, eps=EPS).reshape(len(x), -1, 1, x.shape[-1])
    y = look.out(attend_to(look.query(y), look.key(y), look.value(y), attend=attend))
    return pass_residual(after, x + y.reshape(x.shape), None, groups=config.groups, eps=EPS)


def _finish(coder: Coder, x: Array, config: VaeConfig) -> Array:
    return coder.last(jax.nn.silu(group_norm(x, coder.norm, groups=config.groups, eps=EPS)))
