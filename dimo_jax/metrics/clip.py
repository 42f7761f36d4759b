"""CLIP-I and CLIP-F: does a rendered frame show what the true one shows, and do neighbouring frames agree?

The vision tower of CLIP (Radford et al. 2021) in JAX; the user brings the weights (see third_party/clip/README.md).
CLIP-I is Consistent4D's "CLIP" (its evaluation/compute_image_level_metrics.py): the cosine between the image embeddings
of prediction and truth, frame by frame. CLIP-F is the cosine between consecutive frames of the prediction.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.networks.clip import Weights, encode_images, preprocess
from dimo_jax.third_party import clip as clip_weights
from dimo_jax.third_party.clip import VisionConfig

_CHUNK = 16  # images that go through the network at once


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
def _embed(params: Weights, pixels: Array, *, config: VisionConfig) -> Array:
    # Accelerators would otherwise round the products' inputs to 10 bits of mantissa.
    with jax.default_matmul_precision("float32"):
        projected = encode_images(params, pixels, config=config)
    return projected / jnp.linalg.norm(projected, axis=-1, keepdims=True)
