"""CLIP's tokenizer, from tokenizer.json or from vocab.json and merges.txt as transformers writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dimo_jax.core.errors import UserError

from ..checkpoint import read_json

START, END = "<|startoftext|>", "<|endoftext|>"
PAD = 0  # "!", with which OpenCLIP and Stable Diffusion 2 fill a row
MAX_BYTES = 64 << 20
# Words, single digits, and runs of other signs; endings such as 's stand alone.
_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

Tokenize = Callable[[str], list[int]]


def read_tokenizer(folder: Path, num_tokens: int = 77) -> tuple[Tokenize, int]:
    """The tokenizer of a folder.

    Args:
      folder: with tokenizer.json, or with vocab.json and merges.txt.
      num_tokens: of a row, at least 2; longer texts are cut, shorter ones filled with `PAD`.

    Returns:
      What gives the tokens of a text, start and end included, and how many different tokens there are.

    Raises:
      UserError: neither file, a damaged one, one without CLIP's start and end, or a package that is not installed.
    """
    whole, words, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    path = whole if whole.is_file() else words
    if not path.is_file() or (path == words and not merges.is_file()):
        raise UserError(
            f"{folder}: found neither tokenizer.json nor vocab.json with merges.txt, expected CLIP's tokenizer"
        )
    for each in (path, merges) if path == words else (path,):
        if each.stat().st_size > MAX_BYTES:
            raise UserError(f"{each}: {each.stat().st_size} bytes, expected {MAX_BYTES} at most")
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(f"{path}: package tokenizers not found (pip install 'dimo_jax[text]')") from error
    try:
        tokenizer: Any = tokenizers.Tokenizer.from_file(str(path)) if path == whole else _assemble(words, merges)
        start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    except UserError:
        raise
    except Exception as error:  # the package raises of many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not readable as a tokenizer ({reason})") from error
    if start is None or end is None:
        raise UserError(f"{path}: has no tokens {START!r} and {END!r}, expected CLIP's tokenizer")
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def tokenize(text: str) -> list[int]:
        inner = tokenizer.encode(text, add_special_tokens=False).ids[: num_tokens - 2]
        return [start, *inner, end, *[PAD] * (num_tokens - 2 - len(inner))]

    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    return tokenize, size


def _assemble(words: Path, merges: Path) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocab = read_json(words)
    if not all(type(value) is int and 0 <= value < 1 << 24 for value in vocab.values()):
        raise UserError(f"{words}: found values that are no token numbers, expected words with their numbers")
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = list[tuple[str, str]]()
    for line in lines:
        if not line.strip() or line.startswith("#version"):
            continue
        if len(pieces := line.split()) != 2:
            raise UserError(f"{merges}: found the line {line[:40]!r}, expected two pieces a line")
        pairs.append((pieces[0], pieces[1]))
    tokenizer: Any = Tokenizer(
        models.BPE(vocab, pairs, unk_token=END, continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer
