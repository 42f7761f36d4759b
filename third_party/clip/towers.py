"""CLIP's two towers as encoders of tokens: their sizes, and their arrays as transformers and as OpenCLIP name them.

Stable Diffusion 2 and ImageDream look at the tokens before a tower's last layer, so nothing is projected.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dimo_jax.core.errors import UserError

from ..checkpoint import MAX_LAYERS, Shapes, list_names, read_arrays, read_json, read_positive, read_share
from . import VisionConfig
from . import expected_shapes as clip_shapes

# OpenCLIP's ViT-H/14, to which ImageDream adds nothing.
VIT_H = VisionConfig(1280, 5120, 1024, 32, 16, 224, 14, "gelu", 1e-5)
TEXT, VISION = "the text encoder of a CLIP model", "the image encoder of a CLIP model"
_ACTIVATIONS = ("gelu", "quick_gelu")
_PREFIXES = ("clip_model.model.", "cond_stage_model.model.")  # of ImageDream's and Stable Diffusion's whole files
# Where a file holds more: what belongs to no encoder, and numbers that both encoders keep beside their arrays.
_OTHERS = ("model.", "vae_model.", "first_stage_model.", "model_ema.", "posterior_")
_SINGLE = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "attn_mask", "logit_scale", "text_projection")


class TextConfig(NamedTuple):
    """The sizes of a CLIP text tower; the defaults are those of OpenCLIP's ViT-H/14, whole."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    vocab_size: int = 49408
    num_tokens: int = 77
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5


def read_text_config(path: Path) -> TextConfig:
    """A config.json of transformers' CLIPTextModel, or the text's part of a CLIPModel's.

    Raises:
      UserError: no such file, another model, or a value that is out of range.
    """
    config = read_json(path)
    kind = config.get("model_type")
    if kind not in ("clip", "clip_text_model"):
        raise UserError(f"{path}: model_type is {str(kind)[:40]!r}, expected 'clip_text_model'")
    part = config.get("text_config") or {} if kind == "clip" else config
    if not isinstance(part, dict):
        raise UserError(f"{path}: text_config is {str(part)[:40]!r}, expected an object")

    def size(key: str, default: int, most: int = 1 << 18) -> int:
        return read_positive(part, key, default, path, most=most)

    sizes = TextConfig(
        hidden_size=size("hidden_size", 512),
        intermediate_size=size("intermediate_size", 2048),
        num_hidden_layers=size("num_hidden_layers", 12, MAX_LAYERS),
        num_attention_heads=size("num_attention_heads", 8),
        vocab_size=size("vocab_size", 49408),
        num_tokens=size("max_position_embeddings", 77, 1 << 12),
        hidden_act=part.get("hidden_act", "quick_gelu"),
        layer_norm_eps=read_share(part, "layer_norm_eps", 1e-5, path),
    )
    if sizes.hidden_act not in _ACTIVATIONS:
        raise UserError(
            f"{path}: hidden_act is {str(sizes.hidden_act)[:40]!r}, expected one of {', '.join(_ACTIVATIONS)}"
        )
    if sizes.hidden_size % sizes.num_attention_heads:
        raise UserError(
            f"{path}: hidden_size is {sizes.hidden_size}, expected a multiple of {sizes.num_attention_heads} heads"
        )
    return sizes


def text_shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a text tower's arrays, as in transformers' CLIPModel."""
    size = config.hidden_size
    return {
        "text_model.embeddings.token_embedding.weight": (config.vocab_size, size),
        "text_model.embeddings.position_embedding.weight": (config.num_tokens, size),
        "text_model.final_layer_norm.weight": (size,),
        "text_model.final_layer_norm.bias": (size,),
        **_layer_shapes("text_model", size, config.intermediate_size, config.num_hidden_layers),
    }


def vision_shapes(config: VisionConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a vision tower's arrays without its projection, as in transformers' CLIPModel."""
    return {name: shape for name, shape in clip_shapes(config).items() if name != "visual_projection.weight"}


def _layer_shapes(tower: str, size: int, inner: int, count: int) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(count):
        name = f"{tower}.encoder.layers.{index}"
        dense = {f"self_attn.{part}_proj": (size, size) for part in ("q", "k", "v", "out")}
        dense |= {"mlp.fc1": (inner, size), "mlp.fc2": (size, inner)}
        for part, shape in dense.items():
            shapes |= {f"{name}.{part}.weight": shape, f"{name}.{part}.bias": shape[:1]}
        shapes |= {f"{name}.{norm}.{part}": (size,) for norm in ("layer_norm1", "layer_norm2") for part in _BOTH}
    return shapes


_BOTH = ("weight", "bias")
_OPEN_LAYER = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
_OPEN_LAYER |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_OPEN_TEXT = {"token_embedding": "embeddings.token_embedding", "ln_final": "final_layer_norm"}
_OPEN_VISION = {"conv1": "embeddings.patch_embedding", "ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}
# What OpenCLIP keeps as it is stands here without ".weight".
_OPEN_BARE = {"positional_embedding": "embeddings.position_embedding.weight"}
_OPEN_BARE |= {"class_embedding": "embeddings.class_embedding"}


def _rename(name: str, tower: str, num_layers: int) -> str | None:
    """The name of an array of a tower as `CLIPModel` of transformers has it; None for one of something else."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    else:
        if name.startswith(_OTHERS):
            return None
    vision = tower == "vision_model"
    if name.endswith("position_ids") or name.startswith(_SINGLE):
        return None
    if "resblocks." in name or name.startswith(("visual.", "token_embedding.", "positional_emb", "ln_final.")):
        if name.startswith("visual.") != vision or name == "visual.proj":
            return None
        found = _rename_open(name.removeprefix("visual."), tower)
    else:
        other = "text_model." if vision else "vision_model."
        if name.startswith((other, "visual_projection.")):
            return None
        found = f"{tower}.{name.removeprefix(f'{tower}.')}"
    match = re.fullmatch(rf"{tower}\.encoder\.layers\.(\d{{1,4}})\..+", found)
    return None if match and int(match[1]) >= num_layers else found


def _rename_open(name: str, tower: str) -> str:
    if name in _OPEN_BARE:
        return f"{tower}.{_OPEN_BARE[name]}"
    match = re.fullmatch(r"transformer\.resblocks\.(\d{1,4})\.(.+?)\.?(weight|bias|in_proj_weight|in_proj_bias)", name)
    if match is not None:
        index, module, part = match.groups()
        inner = _OPEN_LAYER.get(module, module)
        dot = "" if part.startswith("in_proj") else "."
        inner = "self_attn." if part.startswith("in_proj") and module == "attn" else inner
        return f"{tower}.encoder.layers.{index}.{inner}{dot}{part}"
    module, _, part = name.rpartition(".")
    return f"{tower}.{(_OPEN_TEXT | _OPEN_VISION).get(module, module)}.{part}"


def _read(
    path: Path, shapes: dict[str, tuple[int, ...]], tower: str, num_layers: int, what: str
) -> dict[str, np.ndarray]:
    def rename(name: str) -> str | None:
        return _rename(name, tower, num_layers)

    open_clip = any("resblocks." in name for name in list_names(path, what))
    if not open_clip:
        return {
            name: array.astype(np.float32)
            for name, array in read_arrays(path, shapes, rename=rename, what=what).items()
        }
    joined = dict(shapes)  # OpenCLIP has queries, keys and values in one matrix
    for index in range(num_layers):
        name = f"{tower}.encoder.layers.{index}.self_attn"
        for part in _BOTH:
            rows, *rest = joined[f"{name}.q_proj.{part}"]
            for each in "qkv":
                del joined[f"{name}.{each}_proj.{part}"]
            joined[f"{name}.in_proj_{part}"] = (3 * rows, *rest)
    arrays = {}
    for name, array in read_arrays(path, joined, rename=rename, what=what).items():
        array = array.astype(np.float32)
        if ".in_proj_" not in name:
            arrays[name] = array
            continue
        base, part = name.rsplit(".in_proj_", 1)
        arrays |= {f"{base}.{each}_proj.{part}": piece for each, piece in zip("qkv", np.split(array, 3))}
    return arrays


def read_text_tower(path: Path, config: TextConfig) -> dict[str, np.ndarray]:
    """The arrays of a text tower by the names of `text_shapes`, in float32; later layers of the file are left out.

    Args:
      path: a folder or file of transformers or of OpenCLIP, or ImageDream's or Stable Diffusion's whole file.
      config: sizes, with the layers that are wanted.

    Raises:
      UserError: see `checkpoint.read_arrays`.
    """
    return _read(path, text_shapes(config), "text_model", config.num_hidden_layers, TEXT)


def read_vision_tower(path: Path, config: VisionConfig) -> dict[str, np.ndarray]:
    """The arrays of a vision tower by the names of `vision_shapes`, in float32; see `read_text_tower`.

    Raises:
      UserError: see `checkpoint.read_arrays`.
    """
    return _read(path, vision_shapes(config), "vision_model", config.num_hidden_layers, VISION)
