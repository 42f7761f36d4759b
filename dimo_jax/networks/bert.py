"""A BERT encoder (Devlin et al. 2019): sentences in, embeddings out. It is never trained here."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.third_party.bert import BertFiles, minilm, read_folder

POOLINGS = ("auto", "mean", "cls", "pooler")
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
# Sentences at once, and what their lengths are rounded up to: one program for captions and prompts alike takes longer
# to run than one of each shape, but far less time to compile.
_CHUNK, _STEP = 16, 32
_HIDDEN = -1e9  # what a token that is not there scores before the softmax


class Dense(flax.struct.PyTreeNode):
    """x @ kernel + bias."""

    kernel: Array  # [in, out]
    bias: Array  # [out]

    def __call__(self, x: Array) -> Array:
        """x [..., in] -> [..., out]."""
        return x @ self.kernel + self.bias


class Norm(flax.struct.PyTreeNode):
    """Layer normalization over the last axis."""

    scale: Array  # [E]
    bias: Array  # [E]

    def __call__(self, x: Array, eps: float) -> Array:
        """x [..., E] -> [..., E]."""
        centered = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centered**2, axis=-1, keepdims=True)
        return centered * jax.lax.rsqrt(variance + eps) * self.scale + self.bias


class Layer(flax.struct.PyTreeNode):
    """One transformer block; in `BertParams` every array has a leading axis over the blocks."""

    query: Dense
    key: Dense
    value: Dense
    attended: Dense
    attended_norm: Norm
    inner: Dense
    outer: Dense
    outer_norm: Norm


class BertParams(flax.struct.PyTreeNode):
    """The arrays of a BertModel."""

    words: Array  # [vocabulary, E]
    positions: Array  # [longest, E]
    kind: Array  # [E]: the embedding of token type 0, the only one that single sentences have
    norm: Norm
    layers: Layer
    pooler: Dense | None


@dataclass(frozen=True)
class BertOptions:
    """What the arrays do not say."""

    num_heads: int
    eps: float
    activation: str


def _attend(x: Array, mask: Array, layer: Layer, num_heads: int) -> Array:
    """Self-attention: x [B,L,E], mask [B,L] bool -> [B,L,E]."""

    def split(y: Array) -> Array:
        return y.reshape(*y.shape[:2], num_heads, -1)

    query, key, value = split(layer.query(x)), split(layer.key(x)), split(layer.value(x))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(query.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask[:, None, None, :], scores, _HIDDEN), axis=-1)
    return layer.attended(jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape))


def encode(params: BertParams, tokens: Array, mask: Array, *, options: BertOptions) -> Array:
    """The last hidden state of single sentences.

    Args:
      params: the network.
      tokens: [B,L] int32, at most as long as the model has positions.
      mask: [B,L] bool, False where a sentence has ended. What stands there changes nothing elsewhere.
      options: of the network.

    Returns:
      [B,L,E]; rows where `mask` is False mean nothing.
    """
    x = params.words[tokens] + params.positions[: tokens.shape[1]] + params.kind
    activation = _ACTIVATIONS[options.activation]

    def block(x: Array, layer: Layer) -> tuple[Array, None]:
        x = layer.attended_norm(x + _attend(x, mask, layer, options.num_heads), options.eps)
        x = layer.outer_norm(x + layer.outer(activation(layer.inner(x))), options.eps)
        return x, None

    return jax.lax.scan(block, params.norm(x, options.eps), params.layers)[0]


def pool(params: BertParams, hidden: Array, mask: Array, *, pooling: str) -> Array:
    """One vector a sentence from the last hidden state.

    Args:
      params: the network; its pooler is used by "pooler".
      hidden: [B,L,E].
      mask: [B,L] bool.
      pooling: "mean" over the tokens (sentence-transformers), "cls", the first token, or "pooler", a dense layer and
        tanh over the first token (BertModel's pooler_output; the authors' choice).

    Returns:
      [B,E], not normalized.
    """
    if pooling == "mean":
        weights = mask[..., None].astype(hidden.dtype)
        return jnp.sum(hidden * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)
    if pooling == "cls":
        return hidden[:, 0]
    if pooling != "pooler" or params.pooler is None:
        raise ValueError(f"pooling is {pooling!r}, expected 'mean', 'cls', or 'pooler' with a pooler in params")
    return jnp.tanh(params.pooler(hidden[:, 0]))


@functools.partial(jax.jit, static_argnames=("options", "pooling"))
def _embed(params: BertParams, tokens: Array, mask: Array, *, options: BertOptions, pooling: str) -> Array:
    return pool(params, encode(params, tokens, mask, options=options), mask, pooling=pooling)


@dataclass(frozen=True)
class TextEncoder:
    """A BERT with its tokenizer and a way of pooling."""

    params: BertParams
    options: BertOptions
    tokenizer: Any
    pooling: str
    max_tokens: int
    sha256: str  # of the files, so that what was computed with them can be told from others

    @property
    def size(self) -> int:
        """E, the length of an embedding."""
        return int(self.params.words.shape[1])

    def tokenize(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token numbers of sentences, special tokens included.

        Raises:
          UserError: a sentence that is too long for the model.
        """
        found = [encoding.ids for encoding in self.tokenizer.encode_batch(list(sentences))]
        for sentence, tokens in zip(sentences, found):
            if len(tokens) > self.max_tokens:
                raise UserError(
                    f"text: {sentence[:40]!r}... has {len(tokens)} tokens, expected at most {self.max_tokens}"
                )
        return found

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        """Embeddings [S,E] float32 of S sentences, not normalized; sentences of like length are computed together."""
        tokens = self.tokenize(sentences)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        embeddings = np.zeros((len(tokens), self.size), np.float32)
        for start in range(0, len(order), _CHUNK):
            chosen = order[start : start + _CHUNK]
            longest = max(len(tokens[i]) for i in chosen)
            length = min(-(-longest // _STEP) * _STEP, self.params.positions.shape[0])
            padded, mask = np.zeros((_CHUNK, length), np.int32), np.zeros((_CHUNK, length), bool)
            for row, i in enumerate(chosen):
                padded[row, : len(tokens[i])], mask[row, : len(tokens[i])] = tokens[i], True
            found = _embed(self.params, padded, mask, options=self.options, pooling=self.pooling)
            embeddings[chosen] = np.asarray(found)[: len(chosen)]
        return embeddings


def build_params(files: BertFiles) -> BertParams:
    """Arrays as Hugging Face names them -> the network, its blocks stacked."""
    weights = files.weights

    def dense(name: str) -> Dense:
        return Dense(kernel=np.ascontiguousarray(weights[f"{name}.weight"].T), bias=weights[f"{name}.bias"])  # type: ignore[arg-type]

    def norm(name: str) -> Norm:
        return Norm(scale=weights[f"{name}.weight"], bias=weights[f"{name}.bias"])

    def layer(index: int) -> Layer:
        prefix = f"encoder.layer.{index}"
        return Layer(
            query=dense(f"{prefix}.attention.self.query"),
            key=dense(f"{prefix}.attention.self.key"),
            value=dense(f"{prefix}.attention.self.value"),
            attended=dense(f"{prefix}.attention.output.dense"),
            attended_norm=norm(f"{prefix}.attention.output.LayerNorm"),
            inner=dense(f"{prefix}.intermediate.dense"),
            outer=dense(f"{prefix}.output.dense"),
            outer_norm=norm(f"{prefix}.output.LayerNorm"),
        )

    layers = [layer(index) for index in range(files.config["num_hidden_layers"])]
    params = BertParams(
        words=weights["embeddings.word_embeddings.weight"],
        positions=weights["embeddings.position_embeddings.weight"],
        kind=weights["embeddings.token_type_embeddings.weight"][0],
        norm=norm("embeddings.LayerNorm"),
        layers=jax.tree.map(lambda *arrays: np.stack(arrays), *layers),
        pooler=dense("pooler.dense") if "pooler.dense.weight" in weights else None,
    )
    return jax.tree.map(jnp.asarray, params)


def load_encoder(folder: str | os.PathLike[str] = "", *, pooling: str = "auto") -> TextEncoder:
    """A text encoder from a Hugging Face BERT folder.

    Args:
      folder: with config.json, model.safetensors, and tokenizer.json or vocab.txt; "" takes all-MiniLM-L6-v2, which is
        downloaded the first time (84 MB).
      pooling: "mean", "cls" or "pooler" (see `pool`); "auto" does as the folder says: a sentence-transformers folder
        names its way, a plain BERT has its pooler.

    Raises:
      UserError: an unknown pooling, files that are missing or do not fit, or a download that fails.
    """
    if pooling not in POOLINGS:
        raise UserError(f"config.text.pooling: found {pooling!r}, expected one of {', '.join(POOLINGS)}")
    path = Path(folder) if str(folder) else minilm.find()
    files = read_folder(path)
    activation = files.config.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise UserError(
            f"{path / 'config.json'}: hidden_act is {str(activation)[:40]!r}, expected one of {', '.join(_ACTIVATIONS)}"
        )
    params = build_params(files)
    chosen = files.pooling if pooling == "auto" else pooling
    if chosen == "pooler" and params.pooler is None:
        raise UserError(f"{path / 'model.safetensors'}: has no pooler, expected one, or config.text.pooling='mean'")
    options = BertOptions(
        num_heads=files.config["num_attention_heads"],
        eps=float(files.config.get("layer_norm_eps", 1e-12)),
        activation=activation,
    )
    return TextEncoder(params, options, files.tokenizer, chosen, files.max_tokens, files.sha256)


def load_sentences(folder: str | os.PathLike[str] = "") -> Callable[[Sequence[str]], np.ndarray]:
    """Features [S,D] of sentences, one vector each, its numbers of size 1 on average; `folder` as in `load_encoder`."""
    encoder = load_encoder(folder)

    def embed(sentences: Sequence[str]) -> np.ndarray:
        found = np.asarray(encoder.embed(list(sentences)), np.float32)
        return found * np.sqrt(found.shape[-1]) / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-6)

    return embed
