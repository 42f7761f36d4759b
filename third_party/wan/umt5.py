"""Wan 2.1's text encoder, umT5: config, tokenizer, and arrays as transformers and as Wan's authors name them."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError

from ..checkpoint import MAX_LAYERS, read_arrays, read_json, read_positive

WHAT = "a umT5 encoder, as transformers or Wan's authors name its arrays"
END = "</s>"
MAX_TOKENIZER_BYTES = 256 << 20


@dataclass(frozen=True)
class Umt5Config:
    """The sizes of a umT5 encoder; the defaults are those of umT5-xxl."""

    num_layers: int = 24
    num_heads: int = 64
    head_dim: int = 64
    dim: int = 4096
    ffn_dim: int = 10240
    vocab_size: int = 256384
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6


def read_config(path: Path) -> Umt5Config:
    """A config.json of transformers.

    Raises:
      UserError: no such file, another model, or a size that is missing or out of range.
    """
    config = read_json(path)
    kind, activation = config.get("model_type"), config.get("feed_forward_proj", "gated-gelu")
    if kind != "umt5":
        raise UserError(f"{path}: model_type is {str(kind)[:40]!r}, expected 'umt5'")
    if activation != "gated-gelu":
        raise UserError(f"{path}: feed_forward_proj is {str(activation)[:40]!r}, expected 'gated-gelu'")
    eps = config.get("layer_norm_epsilon", 1e-6)
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise UserError(f"{path}: layer_norm_epsilon is {str(eps)[:40]!r}, expected a number from 0 to 1")

    def size(key: str, default: int | None = None, most: int = 1 << 24) -> int:
        return read_positive(config, key, default, path, most=most)

    buckets, distance = size("relative_attention_num_buckets", 32), size("relative_attention_max_distance", 128)
    if buckets % 4 or distance <= buckets // 4:
        raise UserError(f"{path}: found {buckets} buckets to a distance of {distance}, expected 4 k and more than k")
    return Umt5Config(
        num_layers=size("num_layers", most=MAX_LAYERS),
        num_heads=size("num_heads"),
        head_dim=size("d_kv"),
        dim=size("d_model"),
        ffn_dim=size("d_ff"),
        vocab_size=size("vocab_size"),
        num_buckets=buckets,
        max_distance=distance,
        eps=eps,
    )


def expected_shapes(config: Umt5Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of transformers' UMT5EncoderModel, whose words are stored once."""
    dim, inner = config.dim, config.num_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (config.vocab_size, dim)}
    for layer in range(config.num_layers):
        first, second = (f"encoder.block.{layer}.layer.{part}" for part in range(2))
        shapes |= {f"{first}.SelfAttention.{part}.weight": (inner, dim) for part in "qkv"}
        shapes[f"{first}.SelfAttention.o.weight"] = (dim, inner)
        shapes[f"{first}.SelfAttention.relative_attention_bias.weight"] = (config.num_buckets, config.num_heads)
        shapes |= {f"{second}.DenseReluDense.{part}.weight": (config.ffn_dim, dim) for part in ("wi_0", "wi_1")}
        shapes[f"{second}.DenseReluDense.wo.weight"] = (dim, config.ffn_dim)
        shapes |= {f"{part}.layer_norm.weight": (dim,) for part in (first, second)}
    return shapes | {"encoder.final_layer_norm.weight": (dim,)}


_OUTER = {"token_embedding": "shared", "encoder.embed_tokens": "shared", "norm": "encoder.final_layer_norm"}
_BLOCK = {f"attn.{part}": f"layer.0.SelfAttention.{part}" for part in "qkvo"}
_BLOCK |= {"pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias", "norm1": "layer.0.layer_norm"}
_BLOCK |= {"ffn.gate.0": "layer.1.DenseReluDense.wi_0", "ffn.fc1": "layer.1.DenseReluDense.wi_1"}
_BLOCK |= {"ffn.fc2": "layer.1.DenseReluDense.wo", "norm2": "layer.1.layer_norm"}


def rename(name: str) -> str:
    """The name of an array as transformers has it, from that of Wan's authors or its own; others stay as they are."""
    module, dot, part = name.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}{dot}{part}"
    match = re.fullmatch(r"blocks\.(\d{1,4})\.(.+)", module)
    if match is None or match[2] not in _BLOCK:
        return name
    return f"encoder.block.{match[1]}.{_BLOCK[match[2]]}{dot}{part}"


def read_umt5(path: Path, config: Umt5Config) -> dict[str, np.ndarray]:
    """The arrays of an encoder by transformers' names, in the file's type of number.

    Raises:
      UserError: see `checkpoint.read_arrays`.
    """
    return read_arrays(path, expected_shapes(config), rename=rename, what=WHAT)


def clean_prompt(text: str) -> str:
    """A prompt as Wan cleans it: characters for their HTML names, one space for every run of white space.

    Wan also mends text that was decoded wrongly (package ftfy), which is left out here.
    """
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text)).strip()).strip()


Tokenize = Callable[[str], list[int]]


def read_tokenizer(folder: Path) -> tuple[Tokenize, int]:
    """The tokenizer of a folder, from tokenizer.json or, where there is none, spiece.model.

    Returns:
      What gives the tokens of a text, the end's included, and how many tokens there are.

    Raises:
      UserError: neither file, a damaged one, one without the token "</s>", or a package that is not installed.
    """
    whole, pieces = folder / "tokenizer.json", folder / "spiece.model"
    path = whole if whole.is_file() else pieces
    if not path.is_file():
        raise UserError(f"{folder}: found neither tokenizer.json nor spiece.model, expected one of them")
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_TOKENIZER_BYTES} at most")
    package, read = ("tokenizers", _read_tokenizers) if path == whole else ("sentencepiece", _read_sentencepiece)
    try:
        encode, end, size = read(path)
    except ImportError as error:
        raise UserError(f"{path}: package {package} not found (pip install {package})") from error
    except Exception as error:  # both packages raise of many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not readable as a tokenizer ({reason})") from error
    if end is None:
        raise UserError(f"{path}: has no token {END!r}, expected umT5's tokenizer")

    def tokenize(text: str) -> list[int]:
        tokens = [token for token in encode(text) if token != end]
        return [*tokens, end]

    return tokenize, size


def _read_tokenizers(path: Path) -> tuple[Tokenize, int | None, int]:
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    return lambda text: tokenizer.encode(text).ids, tokenizer.token_to_id(END), size


def _read_sentencepiece(path: Path) -> tuple[Tokenize, int | None, int]:
    from sentencepiece import SentencePieceProcessor

    processor: Any = SentencePieceProcessor(model_proto=path.read_bytes())
    end = processor.piece_to_id(END)
    return processor.encode, end if processor.id_to_piece(end) == END else None, processor.get_piece_size()
