"""`captions.txt` of a dataset folder: the sentences of its motions, for people to edit.

    # lines that begin with # are comments
    walk: The knight walks.
    walk: He strolls along.

The first sentence of a motion is its caption, further ones are paraphrases of it. A motion that the file does not name
keeps what `dataset.json` says. (Motion names have no colon, so the first one ends the name.) In the same form
`test_captions.txt` holds the sentences that are kept from training `--app=text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dimo_jax.core.errors import UserError
from dimo_jax.io.json_fields import load_json

FILE = "captions.txt"
TEST_FILE = "test_captions.txt"
AUTHORS_FILE = "captions.json"
MAX_BYTES = 16 << 20
_HEADER = "# One sentence a line, as `motion: sentence`; the first of a motion is its caption. Edit as you like.\n"


def _normalize(sentence: str) -> str:
    return " ".join(sentence.split())


def read_captions(
    folder: Path, names: Sequence[str], sentences: Sequence[tuple[str, ...]], *, file: str = FILE
) -> list[tuple[str, ...]]:
    """The sentences of every motion, with those of a file in place of the given ones.

    Args:
      folder: where the file may lie.
      names: M motions.
      sentences: M tuples of sentences; a motion whose lines say the same keeps them to the letter.
      file: its name.

    Raises:
      UserError: a line without a colon or of an unknown motion, or a file that is no text.
    """
    path = folder / file
    if not path.is_file():
        return list(sentences)
    found: dict[str, list[str]] = {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, sentence = line.partition(":")
        name = name.strip()
        if not colon:
            raise UserError(f"{path}: line {number} is {line.strip()[:60]!r}, expected 'motion: sentence'")
        if name not in names:
            raise UserError(f"{path}: line {number} names motion {name[:60]!r}, expected one of {', '.join(names[:8])}")
        found.setdefault(name, []).append(_normalize(sentence))
    result = []
    for name, given in zip(names, sentences):
        lines = found.get(name)
        unchanged = lines is None or lines == [_normalize(each) for each in given]
        result.append(given if unchanged else tuple(lines or ()))
    return result


def write_captions(folder: Path, names: Sequence[str], sentences: Sequence[Sequence[str]]) -> None:
    """Writes `captions.txt` with M motions' sentences; line breaks in a sentence become blanks."""
    lines = [f"{name}: {_normalize(each)}\n" for name, group in zip(names, sentences) for each in group]
    (folder / FILE).write_text(_HEADER + "".join(lines), encoding="utf-8")


def read_authors_captions(folder: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Sentences from the authors' `captions.json`: per motion a text, a list of texts, or a record.

    Of a record the fields `caption` and `short` are taken. A motion that is not there has its name as its caption.

    Raises:
      UserError: the file is no such JSON.
    """
    path = folder / AUTHORS_FILE
    table = load_json(path) if path.is_file() else {}
    if not isinstance(table, Mapping):
        raise UserError(f"{path}: found {type(table).__name__}, expected an object from motions to captions")
    return [_sentences(table.get(name, name.replace("_", " ")), f"{path}: motion {name}") for name in names]


def _sentences(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        value = [value[key] for key in ("caption", "short") if key in value]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: found {str(value)[:60]!r}, expected a text, a list of texts, or a 'caption'")
    return tuple(dict.fromkeys(texts))


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_BYTES} at most")
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({_normalize(str(error))})") from error
