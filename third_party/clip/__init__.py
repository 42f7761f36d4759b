"""Reads the vision tower of a CLIP model from a Hugging Face folder: config.json and model.safetensors, without torch.

Origin and licences are in README.md beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dimo_jax.core.errors import UserError

MAX_CONFIG_BYTES = 1 << 20
# What `transformers` takes for keys that a config leaves out.
_DEFAULTS = dict(
    hidden_size=768,
    intermediate_size=3072,
    projection_dim=512,
    num_hidden_layers=12,
    num_attention_heads=12,
    image_size=224,
    patch_size=32,
)
_ACTIVATIONS = ("quick_gelu", "gelu")


class VisionConfig(NamedTuple):
    """The sizes of a CLIP vision tower."""

    hidden_size: int
    intermediate_size: int
    projection_dim: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int  # pixels a side of the network's input
    patch_size: int
    hidden_act: str  # "quick_gelu" or "gelu"
    layer_norm_eps: float


def read_config(folder: Path) -> VisionConfig:
    """The vision part of a folder's config.json.

    Raises:
      UserError: no such file, no CLIP model, or a value that is out of range.
    """
    path = folder / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_CONFIG_BYTES} at most")
        whole = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found, expected a Hugging Face CLIP folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())})") from error
    kind = whole.get("model_type") if isinstance(whole, dict) else type(whole).__name__
    if kind not in ("clip", "clip_vision_model"):
        raise UserError(f"{path}: model_type is {str(kind)[:40]!r}, expected 'clip'")
    vision = whole.get("vision_config") or {} if kind == "clip" else whole
    if not isinstance(vision, dict):
        raise UserError(f"{path}: vision_config is {str(vision)[:40]!r}, expected an object")
    merged = {**_DEFAULTS, **vision}
    if kind == "clip" and "projection_dim" in whole:  # CLIPModel projects by the outer value
        merged["projection_dim"] = whole["projection_dim"]
    sizes = {name: _positive(merged[name], name, path) for name in _DEFAULTS}
    if sizes["hidden_size"] % sizes["num_attention_heads"] or sizes["image_size"] < sizes["patch_size"]:
        raise UserError(
            f"{path}: found {sizes}, expected hidden_size a multiple of num_attention_heads, image_size >= patch_size"
        )
    activation = vision.get("hidden_act", "quick_gelu")
    if activation not in _ACTIVATIONS:
        raise UserError(f"{path}: hidden_act is {str(activation)[:40]!r}, expected one of {', '.join(_ACTIVATIONS)}")
    epsilon = vision.get("layer_norm_eps", 1e-5)
    if not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
        raise UserError(f"{path}: layer_norm_eps is {str(epsilon)[:40]!r}, expected a number from 0 to 1")
    return VisionConfig(**sizes, hidden_act=activation, layer_norm_eps=float(epsilon))


def _positive(value: Any, name: str, path: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 16:
        raise UserError(f"{path}: {name} is {str(value)[:40]!r}, expected a positive integer")
    return value


def expected_shapes(config: VisionConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays that a vision tower of this config has, as in CLIPModel."""
    size, inner, patch = config.hidden_size, config.intermediate_size, config.patch_size
    places = (config.image_size // patch) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (size,),
        "vision_model.embeddings.patch_embedding.weight": (size, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (places, size),
        "visual_projection.weight": (config.projection_dim, size),
    }
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm"]  # the first one's spelling is theirs
    dense: dict[str, tuple[int, int]] = {}
    for layer in range(config.num_hidden_layers):
        prefix = f"vision_model.encoder.layers.{layer}"
        norms += [f"{prefix}.layer_norm1", f"{prefix}.layer_norm2"]
        dense |= {f"{prefix}.self_attn.{name}_proj": (size, size) for name in ("q", "k", "v", "out")}
        dense |= {f"{prefix}.mlp.fc1": (inner, size), f"{prefix}.mlp.fc2": (size, inner)}
    for name in norms:
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    for name, shape in dense.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def read_weights(path: Path, config: VisionConfig) -> dict[str, np.ndarray]:
    """The vision tower's arrays from a safetensors file, as float32; the text tower is not read.

    Raises:
      UserError: no such file, no safetensors, an array missing or of another shape, or safetensors not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError("CLIP: package safetensors not found (pip install 'dimo_jax[evaluate]')") from error
    if not path.is_file():
        raise UserError(f"{path}: not found, expected a Hugging Face CLIP folder with safetensors weights")
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            return {name: _read(file, name, shape, names, path) for name, shape in expected_shapes(config).items()}
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({' '.join(str(error).split())[:200]})") from error


def _read(file: Any, name: str, shape: tuple[int, ...], names: set[str], path: Path) -> np.ndarray:
    if name not in names:
        raise UserError(f"{path}: array {name!r} is missing, expected the weights of a CLIP model with its projection")
    found = tuple(file.get_slice(name).get_shape())
    if found != shape:
        raise UserError(f"{path}: array {name!r} has shape {found}, expected {shape} (config.json)")
    return np.asarray(file.get_tensor(name)).astype(np.float32)


def read_vision(folder: Path | str) -> tuple[VisionConfig, Mapping[str, np.ndarray]]:
    """Config and arrays of the vision tower in a Hugging Face CLIP folder.

    Raises:
      UserError: see `read_config` and `read_weights`; or no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder, expected a Hugging Face CLIP folder")
    config = read_config(folder)
    return config, read_weights(folder / "model.safetensors", config)
