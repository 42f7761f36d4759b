"""The causal video autoencoder of Wan 2.1: 1 + 4 k frames to 1 + k latent ones an eighth the size, and back.

Every convolution sees frames before its own and none after, so a video goes through piece by piece: what a
convolution needs of earlier frames is handed on (`Past`), and the pieces together are what the whole would be. Checked
against diffusers' AutoencoderKLWan (tests/networks/test_wan_parity.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.third_party.wan.vae import VaeConfig, read_config, read_vae

from .layers import Dense


class Conv(flax.struct.PyTreeNode):
    """A convolution over time, rows and columns."""

    kernel: Array  # [time,rows,columns,in,out]
    bias: Array  # [out]

    def __call__(self, x: Array, *, stride: tuple[int, int, int] = (1, 1, 1), same: bool = True) -> Array:
        """x [B,T,H,W,in] -> [B,T',H',W',out]; time is not padded, rows and columns are where `same`."""
        sides = [((size - 1) // 2,) * 2 if same else (0, 0) for size in self.kernel.shape[1:3]]
        y = jax.lax.conv_general_dilated(
            x, self.kernel, stride, [(0, 0), *sides], dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )
        return y + self.bias


class Residual(flax.struct.PyTreeNode):
    """Two convolutions beside a shortcut."""

    norm1: Array  # [in]
    conv1: Conv
    norm2: Array  # [out]
    conv2: Conv
    shortcut: Conv | None


class Look(flax.struct.PyTreeNode):
    """Attention of a frame's places to each other, with one head."""

    norm: Array  # [C]
    qkv: Dense
    out: Dense


class Resample(flax.struct.PyTreeNode):
    """Half or twice the size, and half or twice the frames where there is a convolution over time."""

    conv: Conv
    time: Conv | None


class Level(flax.struct.PyTreeNode):
    """Residual blocks of one size, and what leads to the next."""

    residuals: tuple[Residual, ...]
    resample: Resample | None


class Coder(flax.struct.PyTreeNode):
    """The encoder or the decoder."""

    first: Conv
    middle: tuple[Residual, Look, Residual]
    levels: tuple[Level, ...]
    norm: Array
    last: Conv


class VaeParams(flax.struct.PyTreeNode):
    """The arrays of the autoencoder."""

    encoder: Coder
    moments: Dense  # after the encoder: 2 Z -> 2 Z, mean and log of the variance
    latents: Dense  # before the decoder: Z -> Z
    decoder: Coder
    mean: Array  # [Z] that latents are normalized by
    std: Array  # [Z]


# What convolutions over time keep of the frames before, in the order in which they come; None before the first frame.
Past = list[Array] | None


class _Frames:
    """Hands every convolution over time its past, and gathers the past of the frames that come next."""

    def __init__(self, past: Past) -> None:
        self.past, self.kept = past, list[Array]()

    def extend(self, x: Array, count: int) -> Array:
        """x [B,T,...] after the `count` frames before it, which are zeros at a video's start."""
        start = jnp.zeros((x.shape[0], count, *x.shape[2:]), x.dtype)
        whole = jnp.concatenate([start if self.past is None else self.past[len(self.kept)], x], axis=1)
        self.kept.append(whole[:, -count:])
        return whole


def _normalize(x: Array, gamma: Array) -> Array:
    """x over its root mean square along the channels, times gamma."""
    y = x.astype(jnp.float32)
    length = jnp.sqrt(jnp.sum(y**2, axis=-1, keepdims=True))
    return (y / jnp.maximum(length, 1e-12)).astype(x.dtype) * (x.shape[-1] ** 0.5 * gamma).astype(x.dtype)


def _pass_residual(layer: Residual, x: Array, frames: _Frames) -> Array:
    y = layer.conv1(frames.extend(jax.nn.silu(_normalize(x, layer.norm1)), 2))
    y = layer.conv2(frames.extend(jax.nn.silu(_normalize(y, layer.norm2)), 2))
    return y + (x if layer.shortcut is None else layer.shortcut(x))


def _look(layer: Look, x: Array) -> Array:
    batch, time, height, width, channels = x.shape
    y = layer.qkv(_normalize(x, layer.norm)).reshape(batch * time, height * width, 1, 3 * channels)
    query, key, value = jnp.split(y, 3, axis=-1)
    return x + layer.out(jax.nn.dot_product_attention(query, key, value).reshape(x.shape))


def _shrink(layer: Resample, x: Array, frames: _Frames) -> Array:
    """Half the size; half the frames too, but for a video's first, which stays alone."""
    padded = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)))
    x = layer.conv(padded, stride=(1, 2, 2), same=False)
    if layer.time is None:
        return x
    if frames.past is not None:
        return layer.time(frames.extend(x, 1), stride=(2, 1, 1))
    frames.kept.append(x[:, -1:])
    return x if x.shape[1] == 1 else jnp.concatenate([x[:, :1], layer.time(x, stride=(2, 1, 1))], axis=1)


def _grow(layer: Resample, x: Array, frames: _Frames) -> Array:
    """Twice the size; two frames for each too, but for a video's first, which stays alone."""
    if layer.time is not None:
        lone, rest = (x[:, :1], x[:, 1:]) if frames.past is None else (x[:, :0], x)
        rest = frames.extend(rest, 2)
        if rest.shape[1] > 2:
            pairs = layer.time(rest)
            pairs = pairs.reshape(*pairs.shape[:4], 2, -1).transpose(0, 1, 4, 2, 3, 5)
            lone = jnp.concatenate([lone, pairs.reshape(x.shape[0], -1, *x.shape[2:])], axis=1)
        x = lone
    return layer.conv(jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3))


def _pass_levels(coder: Coder, x: Array, frames: _Frames, resample: Callable[..., Array]) -> Array:
    for level in coder.levels:
        for residual in level.residuals:
            x = _pass_residual(residual, x, frames)
        if level.resample is not None:
            x = resample(level.resample, x, frames)
    return x


def _pass_middle(coder: Coder, x: Array, frames: _Frames) -> Array:
    before, look, after = coder.middle
    return _pass_residual(after, _look(look, _pass_residual(before, x, frames)), frames)


def _finish(coder: Coder, x: Array, frames: _Frames) -> Array:
    return coder.last(frames.extend(jax.nn.silu(_normalize(x, coder.norm)), 2))


def encode_piece(params: VaeParams, video: Array, past: Past) -> tuple[Array, Past]:
    """The next frames of a video -> mean and log variance of their latents, before normalization.

    Args:
      params: the network.
      video: [B,T,H,W,3] in -1..1; T is 1 + 4 k at a video's start, 4 k after it.
      past: of the frames before, None at a video's start.

    Returns:
      [B,T',H/8,W/8,2 Z], and the past of the frames that come next.
    """
    coder, frames = params.encoder, _Frames(past)
    x = coder.first(frames.extend(video.astype(coder.first.kernel.dtype), 2))
    x = _pass_middle(coder, _pass_levels(coder, x, frames, _shrink), frames)
    return params.moments(_finish(coder, x, frames)), frames.kept


def decode_piece(params: VaeParams, latents: Array, past: Past) -> tuple[Array, Past]:
    """The next latents, not normalized, [B,T,h,w,Z] -> frames [B,T',8 h,8 w,3], and the past of what comes next."""
    coder, frames = params.decoder, _Frames(past)
    x = coder.first(frames.extend(params.latents(latents.astype(coder.first.kernel.dtype)), 2))
    x = _pass_levels(coder, _pass_middle(coder, x, frames), frames, _grow)
    return _finish(coder, x, frames), frames.kept


def _pass_pieces(pass_piece: Callable[[Array, Past], tuple[Array, Past]], x: Array, length: int) -> Array:
    """The first frame of x [B,T,...], then pieces of `length` frames, one after the other."""
    first, past = pass_piece(x[:, :1], None)
    rest = x[:, 1:]
    if not rest.shape[1]:
        return first
    pieces = jnp.moveaxis(rest.reshape(x.shape[0], -1, length, *x.shape[2:]), 1, 0)
    _, found = jax.lax.scan(lambda past, piece: pass_piece(piece, past)[::-1], past, pieces)
    found = jnp.moveaxis(found, 0, 1)
    return jnp.concatenate([first, found.reshape(first.shape[0], -1, *first.shape[2:])], axis=1)


@functools.partial(jax.jit, static_argnames=("config", "chunked"))
def encode(params: VaeParams, video: Array, *, config: VaeConfig, chunked: bool = True) -> Array:
    """Normalized latents of a video, their mean.

    Args:
      params: the network.
      video: [B,1+4k,H,W,3] in -1..1, H and W multiples of 8.
      config: sizes.
      chunked: one latent frame at a time, which takes the memory of 4 frames; else all at once, with the same result.

    Returns:
      [B,1+k,H/8,W/8,Z] float32.

    Raises:
      ValueError: another number of frames, or another size.
    """
    frames, height, width = video.shape[1:4]
    time, space = config.time_factor, config.space_factor
    if (frames - 1) % time or height % space or width % space:
        raise ValueError(f"video {video.shape}, expected 1 + {time} k frames, sides that are multiples of {space}")
    piece = functools.partial(encode_piece, params)
    moments = _pass_pieces(piece, video, time) if chunked else piece(video, None)[0]
    mean = moments[..., : config.z_dim].astype(jnp.float32)
    return (mean - params.mean) / params.std


@functools.partial(jax.jit, static_argnames=("chunked", "clip"))
def decode(params: VaeParams, latents: Array, *, chunked: bool = True, clip: bool = True) -> Array:
    """The video of normalized latents.

    Args:
      params: the network.
      latents: [B,1+k,h,w,Z].
      chunked: see `encode`.
      clip: whether what leaves -1..1 is cut off there.

    Returns:
      [B,1+4k,8h,8w,3] float32.
    """
    z = latents * params.std + params.mean
    piece = functools.partial(decode_piece, params)
    video = _pass_pieces(piece, z, 1) if chunked else piece(z, None)[0]
    video = video.astype(jnp.float32)
    return jnp.clip(video, -1, 1) if clip else video


def build_params(arrays: Mapping[str, Any], config: VaeConfig, dtype: Any = jnp.float32) -> VaeParams:
    """Arrays as diffusers names them, NumPy's, -> the network, in float32 or bfloat16."""

    def conv(name: str) -> Conv:
        kernel = arrays[f"{name}.weight"]
        kernel = kernel[:, :, None] if kernel.ndim == 4 else kernel
        return Conv(kernel.transpose(2, 3, 4, 1, 0).astype(dtype), arrays[f"{name}.bias"].astype(dtype))

    def dense(name: str) -> Dense:
        kernel = arrays[f"{name}.weight"]
        return Dense(kernel.reshape(kernel.shape[:2]).T.astype(dtype), arrays[f"{name}.bias"].astype(dtype))

    def gamma(name: str) -> Any:
        return arrays[f"{name}.gamma"].reshape(-1).astype(np.float32)

    def residual(name: str) -> Residual:
        return Residual(
            norm1=gamma(f"{name}.norm1"),
            conv1=conv(f"{name}.conv1"),
            norm2=gamma(f"{name}.norm2"),
            conv2=conv(f"{name}.conv2"),
            shortcut=conv(f"{name}.conv_shortcut") if f"{name}.conv_shortcut.weight" in arrays else None,
        )

    def level(residuals: list[str], name: str) -> Level:
        there = f"{name}.resample.1.weight" in arrays
        time = conv(f"{name}.time_conv") if f"{name}.time_conv.weight" in arrays else None
        return Level(
            residuals=tuple(residual(each) for each in residuals),
            resample=Resample(conv(f"{name}.resample.1"), time) if there else None,
        )

    def coder(name: str, levels: list[Level]) -> Coder:
        look = f"{name}.mid_block.attentions.0"
        return Coder(
            first=conv(f"{name}.conv_in"),
            middle=(
                residual(f"{name}.mid_block.resnets.0"),
                Look(gamma(f"{look}.norm"), dense(f"{look}.to_qkv"), dense(f"{look}.proj")),
                residual(f"{name}.mid_block.resnets.1"),
            ),
            levels=tuple(levels),
            norm=gamma(f"{name}.norm_out"),
            last=conv(f"{name}.conv_out"),
        )

    blocks, falling, rising = config.num_res_blocks, [], []
    for index in range(len(config.dim_mult)):
        start = index * (blocks + 1)
        names = [f"encoder.down_blocks.{start + each}" for each in range(blocks)]
        falling.append(level(names, f"encoder.down_blocks.{start + blocks}"))
        place = f"decoder.up_blocks.{index}"
        rising.append(level([f"{place}.resnets.{each}" for each in range(blocks + 1)], f"{place}.upsamplers.0"))
    params = VaeParams(
        encoder=coder("encoder", falling),
        moments=dense("quant_conv"),
        latents=dense("post_quant_conv"),
        decoder=coder("decoder", rising),
        mean=np.asarray(config.latents_mean, np.float32),  # type: ignore[arg-type]
        std=np.asarray(config.latents_std, np.float32),  # type: ignore[arg-type]
    )
    return jax.tree.map(jnp.asarray, params)


def load_vae(weights: Path, config: Path | None = None, *, dtype: Any = jnp.float32) -> tuple[VaeParams, VaeConfig]:
    """An autoencoder from files, in the layout of diffusers or of Wan's authors (`Wan2.1_VAE.pth`).

    Args:
      weights: a safetensors or `.pth` file, or a folder.
      config: config.json; where None the one beside the weights, and Wan 2.1's sizes where there is none.
      dtype: float32 or bfloat16.

    Raises:
      UserError: files that are missing, damaged, of another model or of another type of number.
    """
    beside = (weights if weights.is_dir() else weights.parent) / "config.json"
    alone = config is None and (weights.suffix == ".pth" or not beside.is_file())
    sizes = VaeConfig() if alone else read_config(config or beside)
    return build_params(read_vae(weights, sizes), sizes, dtype), sizes
