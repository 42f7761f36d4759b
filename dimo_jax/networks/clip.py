"""CLIP's two towers (Radford et al. 2021; OpenCLIP's among them) as functions of named arrays.

Metrics look at the vision tower's projection, ATOP's generator at the tokens before the last layer of either.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.third_party.clip import VisionConfig, read_config
from dimo_jax.third_party.clip.tokenizer import Tokenize, read_tokenizer
from dimo_jax.third_party.clip.towers import VIT_H, TextConfig, read_text_config, read_text_tower, read_vision_tower

# OpenAI's normalization of RGB in 0..1, which OpenCLIP keeps.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Weights = Mapping[str, Array]


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


def encode_images(params: Weights, pixels: Array, *, config: VisionConfig) -> Array:
    """CLIP's image embeddings before they are scaled to unit length (`get_image_features` of `transformers`).

    Args:
      params: weights by their names in `transformers`.
      pixels: [N,S,S,3] from `preprocess`.
      config: sizes.

    Returns:
      [N,D].
    """
    x = _pass_images(params, pixels, config, config.num_hidden_layers)
    pooled = _normalize(params, "vision_model.post_layernorm", x[:, 0], config)
    return pooled @ params["visual_projection.weight"].T


def _pass_images(params: Weights, pixels: Array, config: VisionConfig, num_layers: int) -> Array:
    patches = _cut_patches(pixels, config.patch_size)
    kernel = params["vision_model.embeddings.patch_embedding.weight"]
    x = patches @ kernel.reshape(kernel.shape[0], -1).T
    start = jnp.broadcast_to(params["vision_model.embeddings.class_embedding"], (x.shape[0], 1, x.shape[2]))
    x = jnp.concatenate([start, x], axis=1) + params["vision_model.embeddings.position_embedding.weight"]
    x = _normalize(params, "vision_model.pre_layrnorm", x, config)
    return _pass_layers(params, "vision_model", x, config, num_layers, causal=False)


def _pass_layers(
    params: Weights, tower: str, x: Array, config: VisionConfig | TextConfig, num_layers: int, *, causal: bool
) -> Array:
    for layer in range(num_layers):
        name = f"{tower}.encoder.layers.{layer}"
        y = _normalize(params, f"{name}.layer_norm1", x, config)
        x = x + _attend(params, f"{name}.self_attn", y, config, causal=causal)
        hidden = _dense(params, f"{name}.mlp.fc1", _normalize(params, f"{name}.layer_norm2", x, config))
        x = x + _dense(params, f"{name}.mlp.fc2", _activate(hidden, config.hidden_act))
    return x


def _cut_patches(pixels: Array, side: int) -> Array:
    """[N,S,S,3] to [N,(S/side)^2,3 side^2], each patch channel by channel as the weights have it."""
    count = pixels.shape[1] // side
    x = pixels[:, : count * side, : count * side].reshape(-1, count, side, count, side, 3)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(-1, count * count, 3 * side * side)


def _dense(params: Weights, name: str, x: Array) -> Array:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _normalize(params: Weights, name: str, x: Array, config: VisionConfig | TextConfig) -> Array:
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centered**2, axis=-1, keepdims=True)
    return centered / jnp.sqrt(variance + config.layer_norm_eps) * params[f"{name}.weight"] + params[f"{name}.bias"]


def _activate(x: Array, kind: str) -> Array:
    return x * jax.nn.sigmoid(1.702 * x) if kind == "quick_gelu" else jax.nn.gelu(x, approximate=False)


def _attend(params: Weights, name: str, x: Array, config: VisionConfig | TextConfig, *, causal: bool) -> Array:
    shape = (*x.shape[:2], config.num_attention_heads, -1)
    query, key, value = (_dense(params, f"{name}.{part}_proj", x).reshape(shape) for part in "qkv")
    scores = jnp.einsum("nqhc,nkhc->nhqk", query, key) / jnp.sqrt(query.shape[-1])
    if causal:
        scores = jnp.where(jnp.tri(x.shape[1], dtype=bool), scores, -jnp.inf)
    mixed = jnp.einsum("nhqk,nkhc->nqhc", jax.nn.softmax(scores, axis=-1), value)
    return _dense(params, f"{name}.out_proj", mixed.reshape(x.shape))


class ClipText(flax.struct.PyTreeNode):
    """A text tower as an encoder of tokens."""

    params: Weights
    config: TextConfig = flax.struct.field(pytree_node=False)
    tokenize: Tokenize = flax.struct.field(pytree_node=False)

    def embed(self, texts: list[str]) -> Array:
        """Sentences -> [N,T,D], rows of padding among them."""
        tokens = np.array([self.tokenize(text) for text in texts], np.int32)
        return encode_text(self.params, tokens, config=self.config)


class ClipImages(flax.struct.PyTreeNode):
    """A vision tower as an encoder of tokens."""

    params: Weights
    config: VisionConfig = flax.struct.field(pytree_node=False)

    def embed(self, frames: np.ndarray) -> Array:
        """Pictures [N,H,W,3] uint8 -> [N,M,D], see `encode_image_tokens`."""
        pixels = preprocess(frames, size=self.config.image_size)
        return encode_image_tokens(self.params, pixels, config=self.config)


def load_clip_text(weights: Path, tokenizer: Path, *, skip: int | None = None) -> ClipText:
    """A text tower from files.

    Args:
      weights: a folder of transformers with config.json (Stable Diffusion 2's `text_encoder/`), or a file of OpenCLIP,
        of ImageDream or of Stable Diffusion, which has the sizes of ViT-H/14.
      tokenizer: a folder, see `third_party.clip.tokenizer`.
      skip: layers to leave out at the end; where None, 1 of a file and 0 of a folder, which lacks its last one already.

    Raises:
      UserError: files that are missing, damaged, of another model, or that do not belong together.
    """
    folder = weights.is_dir()
    config = read_text_config(weights / "config.json") if folder else TextConfig()
    skip = (0 if folder else 1) if skip is None else skip
    config = config._replace(num_hidden_layers=config.num_hidden_layers - skip)
    tokenize, size = read_tokenizer(tokenizer, config.num_tokens)
    if size > config.vocab_size:
        raise UserError(f"{tokenizer}: has {size} tokens, expected {config.vocab_size} at most, as {weights} has")
    params = {name: jnp.asarray(array) for name, array in read_text_tower(weights, config).items()}
    return ClipText(params, config, tokenize)


def load_clip_images(weights: Path) -> ClipImages:
    """A vision tower from a folder of transformers, or from a file as in `load_clip_text`, without its last layer.

    Raises:
      UserError: files that are missing, damaged or of another model.
    """
    config = read_config(weights) if weights.is_dir() else VIT_H
    config = config._replace(num_hidden_layers=config.num_hidden_layers - 1)
    params = {name: jnp.asarray(array) for name, array in read_vision_tower(weights, config).items()}
    return ClipImages(params, config)


@functools.partial(jax.jit, static_argnames="config")
def encode_text(params: Weights, tokens: Array, *, config: TextConfig) -> Array:
    """Tokens [N,T] of texts -> [N,T,D], after the final normalization (`last_hidden_state` of CLIPTextModel)."""
    x = params["text_model.embeddings.token_embedding.weight"][tokens]
    x = x + params["text_model.embeddings.position_embedding.weight"][: tokens.shape[1]]
    with jax.default_matmul_precision("float32"):
        x = _pass_layers(params, "text_model", x, config, config.num_hidden_layers, causal=True)
    return _normalize(params, "text_model.final_layer_norm", x, config)


@functools.partial(jax.jit, static_argnames="config")
def encode_image_tokens(params: Weights, pixels: Array, *, config: VisionConfig) -> Array:
    """Pixels [N,S,S,3] of `preprocess` -> [N,M,D]: the class, then patches row by row, after the last layer there is.

    Nothing normalizes them (`hidden_states` of CLIPVisionModel).
    """
    with jax.default_matmul_precision("float32"):
        return _pass_images(params, pixels, config, config.num_hidden_layers)
