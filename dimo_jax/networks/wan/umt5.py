"""The encoder of umT5 (Chung et al. 2023), by which Wan 2.1 reads sentences. It is never trained here.

T5 with its own relative positions in every layer. Checked against transformers' UMT5EncoderModel
(tests/networks/test_wan_parity.py).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.third_party.wan.umt5 import Tokenize, Umt5Config, clean_prompt, read_config, read_tokenizer, read_umt5

from .layers import Dense, array_module, rms_norm

_HIDDEN = -1e9  # what a token that is not there scores before the softmax


class Layer(flax.struct.PyTreeNode):
    """One block; in `Umt5Params` every array has a leading axis over the blocks."""

    norm: Array  # [D]
    query: Dense
    key: Dense
    value: Dense
    attended: Dense
    distances: Array  # [buckets,heads] float32: what a distance in the sentence adds to a score
    outer_norm: Array  # [D]
    gate: Dense
    inner: Dense
    outer: Dense


class Umt5Params(flax.struct.PyTreeNode):
    """The arrays of the encoder."""

    words: Array  # [vocabulary,D]
    layers: Layer
    norm: Array  # [D]


def bucket_distances(length: int, config: Umt5Config) -> np.ndarray:
    """The bucket of every distance, key minus query: [length,length] int32.

    Half of the buckets are for keys that come later. Of each half, the nearer half holds one distance a bucket, the
    others grow with the logarithm up to `max_distance`, beyond which all are alike.
    """
    places = np.arange(length)
    distance = places[None, :] - places[:, None]
    half = config.num_buckets // 2
    near = half // 2
    apart = np.abs(distance)
    # In float32, as transformers and Wan compute it: at whole powers the rounding decides.
    ratio = np.log(np.maximum(apart, 1).astype(np.float32) / np.float32(near)) / np.float32(
        np.log(config.max_distance / near)
    )
    far = np.minimum(near + (ratio * np.float32(half - near)).astype(np.int32), half - 1)
    return (np.where(distance > 0, half, 0) + np.where(apart < near, apart, far)).astype(np.int32)


@functools.partial(jax.jit, static_argnames="config")
def encode(params: Umt5Params, tokens: Array, mask: Array, *, config: Umt5Config) -> Array:
    """The last hidden state of sentences.

    Args:
      params: the network.
      tokens: [B,L] int32.
      mask: [B,L] bool, False where a sentence has ended. What stands there changes nothing elsewhere.
      config: sizes.

    Returns:
      [B,L,D] as the weights' type; rows where `mask` is False are 0, as Wan has them.
    """
    buckets = bucket_distances(tokens.shape[1], config)
    hidden = jnp.where(mask, 0.0, _HIDDEN)[:, None, None, :]

    def split(y: Array) -> Array:
        return y.reshape(*y.shape[:2], config.num_heads, config.head_dim)

    def block(x: Array, layer: Layer) -> tuple[Array, None]:
        y = rms_norm(x, layer.norm, config.eps)
        bias = jnp.transpose(layer.distances[buckets], (2, 0, 1))[None] + hidden
        # T5 does not divide scores by the root of the head's size.
        query, key, value = split(layer.query(y)), split(layer.key(y)), split(layer.value(y))
        y = jax.nn.dot_product_attention(query, key, value, bias=bias.astype(y.dtype), scale=1.0)
        x = x + layer.attended(y.reshape(*x.shape[:2], -1))
        y = rms_norm(x, layer.outer_norm, config.eps)
        return x + layer.outer(jax.nn.gelu(layer.gate(y), approximate=True) * layer.inner(y)), None

    x = jax.lax.scan(block, params.words[tokens], params.layers)[0]
    return jnp.where(mask[..., None], rms_norm(x, params.norm, config.eps), 0)


@dataclass(frozen=True)
class WanTextEncoder:
    """A umT5 encoder with its tokenizer."""

    params: Umt5Params
    config: Umt5Config
    tokenizer: Tokenize

    def embed(self, prompts: Sequence[str], *, length: int = 512) -> np.ndarray:
        """What Wan's transformer takes for prompts: [P,length,D] float32, rows of padding 0.

        Prompts are cleaned first (`clean_prompt`); of one that is too long, its start and its end token are kept.
        """
        tokens, mask = np.zeros((len(prompts), length), np.int32), np.zeros((len(prompts), length), bool)
        for row, prompt in enumerate(prompts):
            found = self.tokenizer(clean_prompt(prompt))
            found = found if len(found) <= length else [*found[: length - 1], found[-1]]
            tokens[row, : len(found)], mask[row, : len(found)] = found, True
        return np.asarray(encode(self.params, tokens, mask, config=self.config)).astype(np.float32)


def build_params(arrays: Mapping[str, Any], config: Umt5Config, dtype: Any = jnp.float32) -> Umt5Params:
    """Arrays as transformers names them -> the network, in float32 or bfloat16 but for norms and distances."""
    xp = array_module(arrays)

    def dense(name: str) -> Dense:
        return Dense(kernel=arrays[f"{name}.weight"].T.astype(dtype))

    def exact(name: str) -> Array:
        return arrays[f"{name}.weight"].astype(jnp.float32)

    def layer(index: int) -> Layer:
        first, second = (f"encoder.block.{index}.layer.{part}" for part in range(2))
        return Layer(
            norm=exact(f"{first}.layer_norm"),
            query=dense(f"{first}.SelfAttention.q"),
            key=dense(f"{first}.SelfAttention.k"),
            value=dense(f"{first}.SelfAttention.v"),
            attended=dense(f"{first}.SelfAttention.o"),
            distances=exact(f"{first}.SelfAttention.relative_attention_bias"),
            outer_norm=exact(f"{second}.layer_norm"),
            gate=dense(f"{second}.DenseReluDense.wi_0"),
            inner=dense(f"{second}.DenseReluDense.wi_1"),
            outer=dense(f"{second}.DenseReluDense.wo"),
        )

    params = Umt5Params(
        words=arrays["shared.weight"].astype(dtype),
        layers=jax.tree.map(lambda *each: xp.stack(each), *(layer(index) for index in range(config.num_layers))),
        norm=exact("encoder.final_layer_norm"),
    )
    return jax.tree.map(jnp.asarray, params)


def load_text_encoder(
    weights: Path, tokenizer: Path, config: Path | None = None, *, dtype: Any = jnp.bfloat16
) -> WanTextEncoder:
    """A text encoder from files, in the layout of transformers or of Wan's authors.

    Args:
      weights: a safetensors or `.pth` file, or a folder (`text_encoder/`, or `models_t5_umt5-xxl-enc-bf16.pth`).
      tokenizer: folder with tokenizer.json or spiece.model (`tokenizer/`, or `google/umt5-xxl/`).
      config: config.json; where None the one beside the weights, and umT5-xxl's sizes for a `.pth` file.
      dtype: float32 or bfloat16.

    Raises:
      UserError: files that are missing, damaged, of another model or of another type of number, or a tokenizer with
        more tokens than the model has.
    """
    if config is None and weights.suffix == ".pth":
        sizes = Umt5Config()
    else:
        sizes = read_config(config or (weights if weights.is_dir() else weights.parent) / "config.json")
    tokenize, count = read_tokenizer(tokenizer)
    if count > sizes.vocab_size:  # an index beyond the arrays would go unnoticed
        raise UserError(f"{tokenizer}: has {count} tokens, expected at most {sizes.vocab_size} (vocab_size)")
    return WanTextEncoder(build_params(read_umt5(weights, sizes), sizes, dtype), sizes, tokenize)
