"""ImageDream's multi-view UNet: its config, and its arrays as its authors and the layout of diffusers name them.

The latter keeps the authors' names (Stable Diffusion's of before diffusers) and puts them into a folder of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dimo_jax.core.errors import UserError

from ..checkpoint import Shapes, read_arrays, read_json, read_positive, read_sizes

WHAT = "the multi-view UNet of ImageDream, as its authors name its arrays"
PREFIX = "model.diffusion_model."
# Where a file holds the whole model: what does not belong to the UNet.
_OTHERS = ("vae_model.", "clip_model.", "first_stage_model.", "cond_stage_model.", "model_ema.", "posterior_")
_SCHEDULE = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus_")


@dataclass(frozen=True)
class UNetConfig:
    """The sizes of a multi-view UNet; the defaults are those of ImageDream (Stable Diffusion 2.1's, with pictures)."""

    channels: int = 320
    multiples: tuple[int, ...] = (1, 2, 4, 4)  # of the channels, by level
    looks: tuple[bool, ...] = (True, True, True, False)  # levels with attention
    num_residuals: int = 2
    head_dim: int = 64
    text_dim: int = 1024
    latent_channels: int = 4
    camera_dim: int = 16  # 0: no camera
    num_image_tokens: int = 16  # of a picture, after the resampler; 0: no picture
    image_dim: int = 1280  # of the image encoder's tokens
    resampler_layers: int = 4
    resampler_heads: int = 12
    groups: int = 32

    @property
    def time_dim(self) -> int:
        """The length of the embedded time."""
        return 4 * self.channels


class Part(NamedTuple):
    """One block of the UNet's way down or up: what it is made of."""

    inputs: int  # channels that come in, of a way up those of the shortcut included
    outputs: int
    look: bool  # whether there is attention
    resample: bool  # down: nothing else than half the size; up: twice the size at the end


def plan_blocks(config: UNetConfig) -> tuple[list[Part], list[Part]]:
    """The blocks of the way down, after the first convolution, and of the way up."""
    now, kept, falling, rising = config.channels, [config.channels], [], []
    last = len(config.multiples) - 1
    for level, (multiple, look) in enumerate(zip(config.multiples, config.looks, strict=True)):
        for _ in range(config.num_residuals):
            falling.append(Part(now, multiple * config.channels, look, False))
            now = multiple * config.channels
            kept.append(now)
        if level < last:
            falling.append(Part(now, now, False, True))
            kept.append(now)
    for level in reversed(range(last + 1)):
        for index in range(config.num_residuals + 1):
            outputs = config.multiples[level] * config.channels
            grows = level > 0 and index == config.num_residuals
            rising.append(Part(now + kept.pop(), outputs, config.looks[level], grows))
            now = outputs
    return falling, rising


def read_config(path: Path) -> UNetConfig:
    """A config.json of a MultiViewUNetModel, as converters to diffusers write it.

    Raises:
      UserError: no such file, another model, or a size that is missing or out of range.
    """
    config = read_json(path)
    kind = config.get("_class_name", "MultiViewUNetModel")
    if kind not in ("MultiViewUNetModel", "MultiViewUNetWrapperModel"):
        raise UserError(f"{path}: _class_name is {str(kind)[:40]!r}, expected 'MultiViewUNetModel'")
    multiples = read_sizes(config, "channel_mult", [1, 2, 4, 4], path, most=64)
    rates = read_sizes(config, "attention_resolutions", [4, 2, 1], path, most=1 << 8)
    for key, usual in (("transformer_depth", 1), ("num_classes", None), ("dims", 2), ("resblock_updown", False)):
        if config.get(key, usual) not in (usual, None):
            raise UserError(f"{path}: {key} is {str(config[key])[:40]}, expected {usual}, as in ImageDream")

    def size(key: str, default: int | None, *, none: bool = False) -> int:
        if none and config.get(key, default) in (0, None):
            return 0
        return read_positive(config, key, default, path, most=1 << 16)

    sizes = UNetConfig(
        channels=size("model_channels", 320),
        multiples=multiples,
        looks=tuple(2**level in rates for level in range(len(multiples))),
        num_residuals=size("num_res_blocks", 2),
        head_dim=size("num_head_channels", 64),
        text_dim=size("context_dim", 1024),
        latent_channels=size("in_channels", 4),
        camera_dim=size("camera_dim", 16, none=True),
        num_image_tokens=size("ip_dim", 16, none=True),
    )
    if size("out_channels", 4) != sizes.latent_channels:
        raise UserError(f"{path}: out_channels is {size('out_channels', 4)}, expected in_channels")
    wrong = [m for m in multiples if m * sizes.channels % sizes.head_dim or m * sizes.channels % sizes.groups]
    if wrong:
        raise UserError(
            f"{path}: a level has {wrong[0] * sizes.channels} channels, expected multiples of num_head_channels "
            f"({sizes.head_dim}) and of {sizes.groups}"
        )
    return sizes


def expected_shapes(config: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the UNet's arrays, without what stands before the names in a file of the whole model."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *kernel: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = kernel
        if bias:
            shapes[f"{name}.bias"] = kernel[:1]

    def embedding(name: str, inputs: int) -> None:
        layer(f"{name}.0", config.time_dim, inputs)
        layer(f"{name}.2", config.time_dim, config.time_dim)

    def residual(name: str, inputs: int, outputs: int) -> None:
        layer(f"{name}.in_layers.0", inputs)
        layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
        layer(f"{name}.emb_layers.1", outputs, config.time_dim)
        layer(f"{name}.out_layers.0", outputs)
        layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.skip_connection", outputs, inputs, 1, 1)

    def transformer(name: str, dim: int) -> None:
        block = f"{name}.transformer_blocks.0"
        layer(f"{name}.norm", dim)
        for part in ("proj_in", "proj_out"):
            layer(f"{name}.{part}", dim, dim)
        for attention, context in (("attn1", dim), ("attn2", config.text_dim)):
            layer(f"{block}.{attention}.to_q", dim, dim, bias=False)
            layer(f"{block}.{attention}.to_k", dim, context, bias=False)
            layer(f"{block}.{attention}.to_v", dim, context, bias=False)
            layer(f"{block}.{attention}.to_out.0", dim, dim)
        if config.num_image_tokens:
            for part in ("to_k_ip", "to_v_ip"):
                layer(f"{block}.attn2.{part}", dim, config.text_dim, bias=False)
        layer(f"{block}.ff.net.0.proj", 8 * dim, dim)
        layer(f"{block}.ff.net.2", dim, 4 * dim)
        for index in (1, 2, 3):
            layer(f"{block}.norm{index}", dim)

    embedding("time_embed", config.channels)
    if config.camera_dim:
        embedding("camera_embed", config.camera_dim)
    if config.num_image_tokens:
        shapes |= _resampler_shapes(config)
    layer("input_blocks.0.0", config.channels, config.latent_channels, 3, 3)
    falling, rising = plan_blocks(config)
    for index, part in enumerate(falling, start=1):
        if part.resample:
            layer(f"input_blocks.{index}.0.op", part.outputs, part.inputs, 3, 3)
            continue
        residual(f"input_blocks.{index}.0", part.inputs, part.outputs)
        if part.look:
            transformer(f"input_blocks.{index}.1", part.outputs)
    deepest = falling[-1].outputs
    residual("middle_block.0", deepest, deepest)
    transformer("middle_block.1", deepest)
    residual("middle_block.2", deepest, deepest)
    for index, part in enumerate(rising):
        residual(f"output_blocks.{index}.0", part.inputs, part.outputs)
        if part.look:
            transformer(f"output_blocks.{index}.1", part.outputs)
        if part.resample:
            layer(f"output_blocks.{index}.{1 + part.look}.conv", part.outputs, part.outputs, 3, 3)
    layer("out.0", config.channels)
    layer("out.2", config.latent_channels, config.channels, 3, 3)
    return shapes


def _resampler_shapes(config: UNetConfig) -> Shapes:
    dim, inner = config.text_dim, config.resampler_heads * 64
    shapes: dict[str, tuple[int, ...]] = {"image_embed.latents": (1, config.num_image_tokens, dim)}
    for name, inputs in (("proj_in", config.image_dim), ("proj_out", dim)):
        shapes |= {f"image_embed.{name}.weight": (dim, inputs), f"image_embed.{name}.bias": (dim,)}
    norms = ["image_embed.norm_out"]
    for index in range(config.resampler_layers):
        look, dense = (f"image_embed.layers.{index}.{part}" for part in range(2))
        norms += [f"{look}.norm1", f"{look}.norm2", f"{dense}.0"]
        shapes |= {f"{look}.to_q.weight": (inner, dim), f"{look}.to_kv.weight": (2 * inner, dim)}
        shapes |= {f"{look}.to_out.weight": (dim, inner)}
        shapes |= {f"{dense}.1.weight": (4 * dim, dim), f"{dense}.3.weight": (dim, 4 * dim)}
    return shapes | {f"{name}.{part}": (dim,) for name in norms for part in ("weight", "bias")}


def rename(name: str) -> str | None:
    """The name of an array as `expected_shapes` has it, None for one that the UNet has no use for.

    That is the other models of the authors' file, its schedule of noise, and the keys and values of pictures in
    attention to itself, which the authors' code makes and never asks.
    """
    if name.startswith(_OTHERS) or (name.startswith(_SCHEDULE) and "." not in name):
        return None
    plain = name.removeprefix(PREFIX)
    return None if plain.endswith((".attn1.to_k_ip.weight", ".attn1.to_v_ip.weight")) else plain


def read_unet(path: Path, config: UNetConfig) -> dict[str, np.ndarray]:
    """The arrays of a UNet by the names of `expected_shapes`, in the file's type of number.

    Args:
      path: a `.pt` or safetensors file of the whole model as its authors write it, or of the UNet alone, or a folder.
      config: sizes.

    Raises:
      UserError: see `checkpoint.read_arrays`.
    """
    return read_arrays(path, expected_shapes(config), rename=rename, what=WHAT)
