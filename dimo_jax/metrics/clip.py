"""CLIP-I and CLIP-F: does a rendered frame show what the true one shows, and do neighbouring frames agree?

The vision tower of CLIP (Radford et al. 2021) in JAX; the user brings the weights (see third_party/clip/README.md).
CLIP-I is Consistent4D's "CLIP" (its evaluation/compute_image_level_metrics.py): the cosine between the image embeddings
of prediction and truth, frame by frame. CLIP-F is the cosine between consecutive frames of the prediction.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dimo_jax.core.types import Array
from dimo_jax.third_party import clip as clip_weights
from dimo_jax.third_party.clip import VisionConfig

# OpenAI's normalization of RGB in 0..1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_CHUNK = 16  # images that go through the network at once

_Params = Mapping[str, Array]


class ClipVision(NamedTuple):
    """A CLIP vision tower: its sizes and its weights by their names in `transformers`."""

    config: VisionConfig
    params: dict[str, Array]


def load_clip(folder: Path | str) -> ClipVision:
    """Reads a Hugging Face CLIP folder (config.json, model.safetensors).

    Raises:
      UserError: the folder, its config or its weights are not what they should be, or `safetensors` is not installed.
    """
    config, weights = clip_weights.read_vision(folder)
    return ClipVision(config, {name: jnp.asarray(value) for name, value in weights.items()})


def preprocess(frames: np.ndarray, *, size: int = 224) -> np.ndarray:
    """What CLIP sees of an image: shorter side to `size` (Pillow's bicubic), centre cut out, normalized.

    Args:
      frames: [N,H,W,3] uint8.
      size: pixels.

    Returns:
      [N,size,size,3] float32.
    """
    height, width = frames.shape[1:3]
    shorter = min(height, width)
    new = (size * width // shorter, size * height // shorter)  # Pillow's order
    resized = np.stack([np.asarray(Image.fromarray(f).resize(new, Image.Resampling.BICUBIC)) for f in frames])
    top, left = (new[1] - size) // 2, (new[0] - size) // 2
    cut = resized[:, top : top + size, left : left + size]
    return (cut.astype(np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)


def embed_images(clip: ClipVision, frames: np.ndarray) -> np.ndarray:
    """Image embeddings of unit length.

    Args:
      clip: from `load_clip`.
      frames: [...,H,W,3] uint8.

    Returns:
      [...,D] float32.
    """
    frames = np.asarray(frames)
    flat = frames.reshape(-1, *frames.shape[-3:])
    rows = []
    for start in range(0, len(flat), _CHUNK):
        pixels = preprocess(flat[start : start + _CHUNK], size=clip.config.image_size)
        padded = np.pad(pixels, ((0, _CHUNK - len(pixels)), (0, 0), (0, 0), (0, 0)))  # another shape compiles anew
        rows.append(np.asarray(_embed(clip.params, padded, config=clip.config))[: len(pixels)])
    return np.concatenate(rows).reshape(*frames.shape[:-3], -1)


def clip_i(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """CLIP-I of every frame: cosine between prediction and truth.

    Args:
      pred, truth: [...,D] embeddings of unit length, from `embed_images`.

    Returns:
      [...] in -1..1, 1 for equal images.
    """
    return np.sum(pred * truth, axis=-1)


def clip_f(pred: np.ndarray) -> np.ndarray:
    """CLIP-F of every pair of consecutive frames of a prediction.

    Args:
      pred: [...,T,D] embeddings of unit length, from `embed_images`.

    Returns:
      [...,T-1] in -1..1, 1 where nothing changes.
    """
    return np.sum(pred[..., 1:, :] * pred[..., :-1, :], axis=-1)


@functools.partial(jax.jit, static_argnames="config")
def _embed(params: _Params, pixels: Array, *, config: VisionConfig) -> Array:
    # Accelerators would otherwise round the products' inputs to 10 bits of mantissa.
    with jax.default_matmul_precision("float32"):
        projected = encode_images(params, pixels, config=config)
    return projected / jnp.linalg.norm(projected, axis=-1, keepdims=True)


def encode_images(params: _Params, pixels: Array, *, config: VisionConfig) -> Array:
    """CLIP's image embeddings before they are scaled to unit length (`get_image_features` of `transformers`).

    Args:
      params: weights by their names in `transformers`.
      pixels: [N,S,S,3] from `preprocess`.
      config: sizes.

    Returns:
      [N,D].
    """
    patches = _cut_patches(pixels, config.patch_size)
    kernel = params["vision_model.embeddings.patch_embedding.weight"]
    x = patches @ kernel.reshape(kernel.shape[0], -1).T
    start = jnp.broadcast_to(params["vision_model.embeddings.class_embedding"], (x.shape[0], 1, x.shape[2]))
    x = jnp.concatenate([start, x], axis=1) + params["vision_model.embeddings.position_embedding.weight"]
    x = _normalize(params, "vision_model.pre_layrnorm", x, config)
    for layer in range(config.num_hidden_layers):
        name = f"vision_model.encoder.layers.{layer}"
        x = x + _attend(params, f"{name}.self_attn", _normalize(params, f"{name}.layer_norm1", x, config), config)
        hidden = _dense(params, f"{name}.mlp.fc1", _normalize(params, f"{name}.layer_norm2", x, config))
        x = x + _dense(params, f"{name}.mlp.fc2", _activate(hidden, config.hidden_act))
    pooled = _normalize(params, "vision_model.post_layernorm", x[:, 0], config)
    return pooled @ params["visual_projection.weight"].T


def _cut_patches(pixels: Array, side: int) -> Array:
    """[N,S,S,3] to [N,(S/side)^2,3 side^2], each patch channel by channel as the weights have it."""
    count = pixels.shape[1] // side
    x = pixels[:, : count * side, : count * side].reshape(-1, count, side, count, side, 3)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(-1, count * count, 3 * side * side)


def _dense(params: _Params, name: str, x: Array) -> Array:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _normalize(params: _Params, name: str, x: Array, config: VisionConfig) -> Array:
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centered**2, axis=-1, keepdims=True)
    return centered / jnp.sqrt(variance + config.layer_norm_eps) * params[f"{name}.weight"] + params[f"{name}.bias"]


def _activate(x: Array, kind: str) -> Array:
    return x * jax.nn.sigmoid(1.702 * x) if kind == "quick_gelu" else jax.nn.gelu(x, approximate=False)


def _attend(params: _Params, name: str, x: Array, config: VisionConfig) -> Array:
    shape = (*x.shape[:2], config.num_attention_heads, -1)
    query, key, value = (_dense(params, f"{name}.{part}_proj", x).reshape(shape) for part in "qkv")
    scores = jnp.einsum("nqhc,nkhc->nhqk", query, key) / jnp.sqrt(query.shape[-1])
    mixed = jnp.einsum("nhqk,nkhc->nqhc", jax.nn.softmax(scores, axis=-1), value)
    return _dense(params, f"{name}.out_proj", mixed.reshape(x.shape))
