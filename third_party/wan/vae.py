"""Wan 2.1's video autoencoder: its config, and its arrays as diffusers and as its authors name them."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError

from ..checkpoint import MAX_LAYERS, read_arrays, read_json, read_positive

WHAT = "the video autoencoder of Wan 2.1, as diffusers or its authors name its arrays"
# Facts of the trained model: what its latents are normalized by.
_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclass(frozen=True)
class VaeConfig:
    """The sizes of a Wan autoencoder; the defaults are those of Wan 2.1."""

    base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    halves_time: tuple[bool, ...] = (False, True, True)  # whether the encoder's level halves time as well as space
    latents_mean: tuple[float, ...] = _MEAN
    latents_std: tuple[float, ...] = _STD

    @property
    def time_factor(self) -> int:
        """Frames of a latent frame, after the first one."""
        return int(2 ** sum(self.halves_time))

    @property
    def space_factor(self) -> int:
        """Pixels a side of a latent place."""
        return int(2 ** len(self.halves_time))

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the encoder: before its first level, then of each level."""
        return tuple(self.base_dim * factor for factor in (1, *self.dim_mult))


def read_config(path: Path) -> VaeConfig:
    """A config.json of diffusers' AutoencoderKLWan.

    Raises:
      UserError: no such file, another model (Wan 2.2's among them), or a value that is missing or out of range.
    """
    config = read_json(path)
    kind = config.get("_class_name")
    if kind != "AutoencoderKLWan":
        raise UserError(f"{path}: _class_name is {str(kind)[:40]!r}, expected 'AutoencoderKLWan'")
    base = read_positive(config, "base_dim", 96, path)
    for key, usual in (("is_residual", False), ("patch_size", None), ("attn_scales", []), ("decoder_base_dim", base)):
        value = config.get(key, usual)
        if value != usual and value is not None:
            raise UserError(f"{path}: {key} is {str(value)[:40]}, expected {usual}, as in Wan 2.1")
    z_dim = read_positive(config, "z_dim", 16, path)
    mult, halves = config.get("dim_mult", [1, 2, 4, 4]), config.get("temperal_downsample", [False, True, True])
    if not isinstance(mult, list) or not 1 <= len(mult) <= 8 or not all(type(n) is int and 1 <= n <= 64 for n in mult):
        raise UserError(f"{path}: dim_mult is {str(mult)[:40]}, expected positive integers")
    if not isinstance(halves, list) or len(halves) != len(mult) - 1 or not all(type(each) is bool for each in halves):
        raise UserError(f"{path}: temperal_downsample is {str(halves)[:40]}, expected {len(mult) - 1} of true or false")
    return VaeConfig(
        base_dim=base,
        z_dim=z_dim,
        dim_mult=tuple(mult),
        num_res_blocks=read_positive(config, "num_res_blocks", 2, path, most=MAX_LAYERS),
        halves_time=tuple(halves),
        latents_mean=_read_numbers(config, "latents_mean", _MEAN, z_dim, path),
        latents_std=_read_numbers(config, "latents_std", _STD, z_dim, path),
    )


def _read_numbers(
    config: dict[str, Any], key: str, default: tuple[float, ...], count: int, path: Path
) -> tuple[float, ...]:
    values = config.get(key, list(default))
    usable = isinstance(values, list) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    if not usable or len(values) != count or (key == "latents_std" and min(values) <= 0):
        raise UserError(f"{path}: {key} is {str(values)[:40]}, expected {count} numbers (z_dim)")
    return tuple(float(value) for value in values)


def expected_shapes(config: VaeConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of diffusers' AutoencoderKLWan of this config."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inputs: int, outputs: int, *kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, *kernel), (outputs,)

    def residual(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.norm1.gamma"], shapes[f"{name}.norm2.gamma"] = (inputs, 1, 1, 1), (outputs, 1, 1, 1)
        conv(f"{name}.conv1", inputs, outputs, 3, 3, 3)
        conv(f"{name}.conv2", outputs, outputs, 3, 3, 3)
        if inputs != outputs:
            conv(f"{name}.conv_shortcut", inputs, outputs, 1, 1, 1)

    def ends(name: str, inputs: int, inner: int, final: int, outputs: int) -> None:
        conv(f"{name}.conv_in", inputs, inner if name == "decoder" else config.dims[0], 3, 3, 3)
        for index in range(2):
            residual(f"{name}.mid_block.resnets.{index}", inner, inner)
        shapes[f"{name}.mid_block.attentions.0.norm.gamma"] = (inner, 1, 1)
        conv(f"{name}.mid_block.attentions.0.to_qkv", inner, 3 * inner, 1, 1)
        conv(f"{name}.mid_block.attentions.0.proj", inner, inner, 1, 1)
        shapes[f"{name}.norm_out.gamma"] = (final, 1, 1, 1)
        conv(f"{name}.conv_out", final, outputs, 3, 3, 3)

    dims, z, place = config.dims, config.z_dim, 0
    ends("encoder", 3, dims[-1], dims[-1], 2 * z)
    for level, (inputs, outputs) in enumerate(itertools.pairwise(dims)):
        for index in range(config.num_res_blocks):
            residual(f"encoder.down_blocks.{place}", outputs if index else inputs, outputs)
            place += 1
        if level < len(config.halves_time):
            conv(f"encoder.down_blocks.{place}.resample.1", outputs, outputs, 3, 3)
            if config.halves_time[level]:
                conv(f"encoder.down_blocks.{place}.time_conv", outputs, outputs, 3, 1, 1)
            place += 1
    conv("quant_conv", 2 * z, 2 * z, 1, 1, 1)
    conv("post_quant_conv", z, z, 1, 1, 1)
    rising = (dims[-1], *dims[:0:-1])
    ends("decoder", z, rising[0], rising[-1], 3)
    for level, (inputs, outputs) in enumerate(itertools.pairwise(rising)):
        first = inputs // 2 if level else inputs  # what brings a level to the next halves the channels
        for index in range(config.num_res_blocks + 1):
            residual(f"decoder.up_blocks.{level}.resnets.{index}", outputs if index else first, outputs)
        if level < len(config.halves_time):
            conv(f"decoder.up_blocks.{level}.upsamplers.0.resample.1", outputs, outputs // 2, 3, 3)
            if config.halves_time[::-1][level]:
                conv(f"decoder.up_blocks.{level}.upsamplers.0.time_conv", outputs, 2 * outputs, 3, 1, 1)
    return shapes


_RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
_RESIDUAL |= {"shortcut": "conv_shortcut"}
_OUTER = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
_ENDS = {"conv1": "conv_in", "head.0": "norm_out", "head.2": "conv_out"}
_MIDDLE = {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}


def rename(name: str, config: VaeConfig) -> str:
    """The name of an array as diffusers has it, from the authors' or diffusers' own; others stay as they are."""
    module, _, part = name.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{part}"
    side, _, inner = module.partition(".")
    if inner in _ENDS:
        return f"{side}.{_ENDS[inner]}.{part}"
    match = re.fullmatch(r"(middle|downsamples|upsamples)\.(\d{1,4})\.(.+)", inner)
    if side not in ("encoder", "decoder") or match is None:
        return name
    kind, number, rest = match.groups()
    rest = _RESIDUAL.get(rest, rest)
    if kind == "middle":
        place = _MIDDLE.get(number, f"mid_block.{number}")
    elif kind == "downsamples":
        place = f"down_blocks.{number}"
    else:  # the authors count a level's residual blocks and what follows them in one row
        level, index = divmod(int(number), config.num_res_blocks + 2)
        last = index > config.num_res_blocks
        place = f"up_blocks.{level}.upsamplers.0" if last else f"up_blocks.{level}.resnets.{index}"
    return f"{side}.{place}.{rest}.{part}"


def read_vae(path: Path, config: VaeConfig) -> dict[str, np.ndarray]:
    """The arrays of an autoencoder by diffusers' names, in the file's type of number.

    Raises:
      UserError: see `checkpoint.read_arrays`.
    """
    return read_arrays(path, expected_shapes(config), rename=lambda name: rename(name, config), what=WHAT)
