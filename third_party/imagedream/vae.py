"""Stable Diffusion's autoencoder: its config, and its arrays as diffusers and as its authors name them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError

from ..checkpoint import MAX_LAYERS, read_arrays, read_json, read_positive, read_share, read_sizes

WHAT = "the autoencoder of Stable Diffusion, as diffusers or its authors name its arrays"
PREFIXES = ("first_stage_model.", "vae_model.")
# Where a file holds the whole model: what does not belong to the autoencoder.
_OTHERS = ("model.", "clip_model.", "cond_stage_model.", "model_ema.", "posterior_")
_SCHEDULE = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus_")


@dataclass(frozen=True)
class VaeConfig:
    """The sizes of an autoencoder; the defaults are those of Stable Diffusion 2.1, which ImageDream keeps."""

    channels: tuple[int, ...] = (128, 256, 512, 512)  # by level
    num_residuals: int = 2  # of a level of the encoder; a decoder's has one more
    latent_channels: int = 4
    groups: int = 32
    scale: float = 0.18215  # of latents, so that they are about as large as noise

    @property
    def factor(self) -> int:
        """Pixels a side of a latent place."""
        return int(2 ** (len(self.channels) - 1))


def read_config(path: Path) -> VaeConfig:
    """A config.json of diffusers' AutoencoderKL.

    Raises:
      UserError: no such file, another model, or a value that is missing or out of range.
    """
    config = read_json(path)
    kind = config.get("_class_name")
    if kind != "AutoencoderKL":
        raise UserError(f"{path}: _class_name is {str(kind)[:40]!r}, expected 'AutoencoderKL'")
    usual = dict(in_channels=3, out_channels=3, act_fn="silu", mid_block_add_attention=True, shift_factor=None)
    for key, value in (usual | dict(use_quant_conv=True, use_post_quant_conv=True, latents_mean=None)).items():
        if config.get(key, value) not in (value, None):
            raise UserError(f"{path}: {key} is {str(config[key])[:40]}, expected {value}, as in Stable Diffusion 2.1")
    channels = read_sizes(config, "block_out_channels", [64], path, most=1 << 14)
    for key, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        kinds = config.get(key, [block] * len(channels))
        if kinds != [block] * len(channels):
            raise UserError(f"{path}: {key} is {str(kinds)[:60]}, expected {len(channels)} of {block}")
    sizes = VaeConfig(
        channels=channels,
        num_residuals=read_positive(config, "layers_per_block", 1, path, most=MAX_LAYERS),
        latent_channels=read_positive(config, "latent_channels", 4, path, most=1 << 10),
        groups=read_positive(config, "norm_num_groups", 32, path, most=1 << 10),
        scale=read_share(config, "scaling_factor", 0.18215, path),
    )
    if any(count % sizes.groups for count in channels):
        raise UserError(f"{path}: block_out_channels is {list(channels)}, expected multiples of {sizes.groups}")
    return sizes


def expected_shapes(config: VaeConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of diffusers' AutoencoderKL of this config."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = kernel, kernel[:1]

    def residual(name: str, inputs: int, outputs: int) -> None:
        layer(f"{name}.norm1", inputs)
        layer(f"{name}.conv1", outputs, inputs, 3, 3)
        layer(f"{name}.norm2", outputs)
        layer(f"{name}.conv2", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.conv_shortcut", outputs, inputs, 1, 1)

    def ends(name: str, inputs: int, first: int, last: int, outputs: int) -> None:
        inner = config.channels[-1]
        layer(f"{name}.conv_in", first, inputs, 3, 3)
        for index in range(2):
            residual(f"{name}.mid_block.resnets.{index}", inner, inner)
        layer(f"{name}.mid_block.attentions.0.group_norm", inner)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            layer(f"{name}.mid_block.attentions.0.{part}", inner, inner)
        layer(f"{name}.conv_norm_out", last)
        layer(f"{name}.conv_out", outputs, last, 3, 3)

    channels, z = config.channels, config.latent_channels
    ends("encoder", 3, channels[0], channels[-1], 2 * z)
    ends("decoder", z, channels[-1], channels[0], 3)
    for side, dims, count, resample in (
        ("encoder.down_blocks", (channels[0], *channels), config.num_residuals, "downsamplers"),
        ("decoder.up_blocks", (channels[-1], *channels[::-1]), config.num_residuals + 1, "upsamplers"),
    ):
        for level, (inputs, outputs) in enumerate(itertools.pairwise(dims)):
            for index in range(count):
                residual(f"{side}.{level}.resnets.{index}", outputs if index else inputs, outputs)
            if level < len(channels) - 1:
                layer(f"{side}.{level}.{resample}.0.conv", outputs, outputs, 3, 3)
    layer("quant_conv", 2 * z, 2 * z, 1, 1)
    layer("post_quant_conv", z, z, 1, 1)
    return shapes


# Parts of names as the authors have them, then as diffusers once had them, -> as it has them now.
_PARTS = (
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out."),
    (r"\.attentions\.0\.query\.", ".attentions.0.to_q."),
    (r"\.attentions\.0\.key\.", ".attentions.0.to_k."),
    (r"\.attentions\.0\.value\.", ".attentions.0.to_v."),
    (r"\.attentions\.0\.proj_attn\.", ".attentions.0.to_out.0."),
)


def rename(name: str, config: VaeConfig) -> str | None:
    """The name of an array as diffusers has it, from the authors' or its own; None for one of another model."""
    if name.startswith(_OTHERS) or (name.startswith(_SCHEDULE) and "." not in name):
        return None
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    for pattern, replacement in _PARTS:
        name = re.sub(pattern, replacement, name)
    match = re.fullmatch(r"decoder\.up\.(\d{1,2})\.(block|upsample)\.(.+)", name)
    if match is None:
        return name
    level = len(config.channels) - 1 - int(match[1])  # the authors count a decoder's levels as an encoder's
    return f"decoder.up_blocks.{level}.{'resnets' if match[2] == 'block' else 'upsamplers.0'}.{match[3]}"


def read_vae(path: Path, config: VaeConfig) -> dict[str, np.ndarray]:
    """The arrays of an autoencoder by diffusers' names, in the file's type of number.

    Args:
      path: a file or folder of diffusers, or the authors' file of the autoencoder or of the whole model.
      config: sizes.

    Raises:
      UserError: see `checkpoint.read_arrays`.
    """
    return read_arrays(path, expected_shapes(config), rename=lambda name: rename(name, config), what=WHAT)
