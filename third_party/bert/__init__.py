"""Reads BERT models as Hugging Face folders hold them: config.json, model.safetensors, tokenizer.json or vocab.txt.

Nothing is executed or unpickled: safetensors holds arrays only, the rest is JSON and text. torch is not needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError

MAX_JSON_BYTES = 64 << 20
EXTRA = "pip install 'dimo_jax[text]'"
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "vocab_size",
)
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json")
_FLOATS = ("F64", "F32", "F16")


@dataclass(frozen=True)
class BertFiles:
    """What a folder holds, checked against its config."""

    config: Mapping[str, Any]  # of config.json, its sizes checked
    weights: Mapping[str, np.ndarray]  # float32, by the names of Hugging Face's BertModel, without a prefix
    tokenizer: Any  # tokenizers.Tokenizer, that neither pads nor truncates
    pooling: str  # "mean", "cls" or "pooler": what the folder asks for
    max_tokens: int  # of a sentence, special tokens included
    sha256: str  # of everything above


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_JSON_BYTES} at most")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found, expected a Hugging Face BERT folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {type(value).__name__}, expected an object")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a folder.

    Raises:
      UserError: no such file, a model that is no BERT, or a size that is missing or out of range.
    """
    path = folder / "config.json"
    config = _read_json(path)
    kind = config.get("model_type", "bert")
    if kind != "bert":
        raise UserError(f"{path}: model_type is {str(kind)[:40]!r}, expected 'bert'")
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise UserError(f"{path}: position_embedding_type is {str(positions)[:40]!r}, expected 'absolute'")
    for key in _SIZES:
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 24:
            raise UserError(f"{path}: {key} is {str(value)[:40]}, expected a positive integer")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise UserError(f"{path}: layer_norm_eps is {str(epsilon)[:40]!r}, expected a number from 0 to 1")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(
            f"{path}: hidden_size is {config['hidden_size']}, expected a multiple of num_attention_heads "
            f"({config['num_attention_heads']})"
        )
    return config


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays that a BertModel of this config has; the pooler's are optional."""
    size, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], size),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], size),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], size),
        "embeddings.LayerNorm.weight": (size,),
        "embeddings.LayerNorm.bias": (size,),
    }
    dense = {"attention.self.query": (size, size), "attention.self.key": (size, size)}
    dense |= {"attention.self.value": (size, size), "attention.output.dense": (size, size)}
    dense |= {"intermediate.dense": (inner, size), "output.dense": (size, inner)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        for name, shape in dense.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
        for name in ("attention.output", "output"):
            shapes |= {f"{prefix}{name}.LayerNorm.{part}": (size,) for part in ("weight", "bias")}
    return shapes | {"pooler.dense.weight": (size, size), "pooler.dense.bias": (size,)}


def _plain_name(name: str) -> str:
    """The name as BertModel has it today: no "bert." before it, LayerNorm.weight for LayerNorm.gamma."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def read_weights(path: Path, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a BertModel from a safetensors file, as float32; other arrays in it (heads) are not read.

    Raises:
      UserError: no such file, no safetensors, an array missing or of another shape or type, or safetensors not
        installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError(f"text: package safetensors not found, expected it installed ({EXTRA})") from error
    if not path.is_file():
        raise UserError(f"{path}: not found, expected a BERT model in safetensors format")
    shapes, weights = expected_shapes(config), {}
    try:
        with safe_open(path, framework="numpy") as file:
            names = {_plain_name(name): name for name in file.keys()}  # noqa: SIM118 (it is no dict)
            for name, shape in shapes.items():
                if name not in names:
                    if name.startswith("pooler."):
                        continue
                    raise UserError(f"{path}: array {name} is missing, expected shape {list(shape)}")
                part = file.get_slice(names[name])
                found, kind = tuple(part.get_shape()), part.get_dtype()
                if found != shape or kind not in _FLOATS:
                    raise UserError(
                        f"{path}: array {name} is {kind} {list(found)}, expected F32 or F16 {list(shape)} (config.json)"
                    )
                weights[name] = file.get_tensor(names[name]).astype(np.float32, copy=False)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as safetensors ({' '.join(str(error).split())})") from error
    return weights


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, from tokenizer.json or, where there is none, vocab.txt.

    Raises:
      UserError: neither file, a damaged one, or the package `tokenizers` is not installed.
    """
    try:
        from tokenizers import Tokenizer
        from tokenizers.implementations import BertWordPieceTokenizer
    except ImportError as error:
        raise UserError(f"text: package tokenizers not found, expected it installed ({EXTRA})") from error
    whole, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    path = whole if whole.is_file() else vocabulary
    if not path.is_file():
        raise UserError(f"{folder}: found neither tokenizer.json nor vocab.txt, expected one of them")
    try:
        if path == whole:
            tokenizer = Tokenizer.from_file(str(whole))
        else:
            options = folder / "tokenizer_config.json"
            lowercase = bool(_read_json(options).get("do_lower_case", True)) if options.is_file() else True
            tokenizer = Tokenizer.from_str(BertWordPieceTokenizer(str(vocabulary), lowercase=lowercase).to_str())
        model = json.loads(tokenizer.to_str())["model"]
    except UserError:
        raise
    except Exception as error:  # the package raises plain Exception for a damaged file
        raise UserError(f"{path}: not readable as a tokenizer ({' '.join(str(error).split())[:200]})") from error
    unknown = model.get("unk_token")
    if unknown is not None and tokenizer.token_to_id(unknown) is None:  # the first unknown word would fail
        raise UserError(f"{path}: has no token {unknown[:40]!r}, expected one for unknown words")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _find_pooling(folder: Path) -> str:
    """Folders of sentence-transformers say how they pool; a plain BERT has its pooler."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "pooler"
    options = _read_json(path)
    return "cls" if options.get("pooling_mode_cls_token") else "mean"


def digest(folder: Path) -> str:
    """sha256 over the files of a folder that decide its embeddings."""
    total = hashlib.sha256()
    for name in _FILES:
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                total.update(f"{name}:{hashlib.file_digest(file, 'sha256').hexdigest()};".encode())
    return total.hexdigest()


def read_folder(folder: Path) -> BertFiles:
    """Reads and checks a Hugging Face BERT folder, or one of sentence-transformers around a BERT.

    Raises:
      UserError: see `read_config`, `read_weights` and `read_tokenizer`; or the tokenizer knows more tokens than the
        model.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder, expected a Hugging Face BERT folder")
    config = read_config(folder)
    tokenizer = read_tokenizer(folder)
    num_tokens = 1 + max(tokenizer.get_vocab().values(), default=-1)  # an index beyond the arrays would go unnoticed
    if num_tokens > config["vocab_size"]:
        raise UserError(
            f"{folder}: its tokenizer has {num_tokens} tokens, expected at most {config['vocab_size']} (vocab_size of "
            "config.json)"
        )
    limit, path = config["max_position_embeddings"], folder / "sentence_bert_config.json"
    asked = _read_json(path).get("max_seq_length") if path.is_file() else None
    return BertFiles(
        config=config,
        weights=read_weights(folder / "model.safetensors", config),
        tokenizer=tokenizer,
        pooling=_find_pooling(folder),
        max_tokens=min(asked, limit) if type(asked) is int and asked > 0 else limit,
        sha256=digest(folder),
    )
