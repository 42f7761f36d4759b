"""Fields of JSON files that users write: each is checked, and what is wrong is named with its file and place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import SPLITS

MAX_JSON_BYTES = 64 << 20
MAX_INTEGER = 1 << 63
MAX_NUMBER = 1e30  # far from what float32 holds, so that products of a few have digits left
_SURROGATE = re.compile(r"\\u[dD][89abcdefABCDEF]")
_MISSING = object()


def load_json(path: Path) -> Any:
    """Parses a JSON file.

    Raises:
      UserError: it cannot be read, is too large, or is no JSON.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_JSON_BYTES} at most")
        return parse_json(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({' '.join(str(error).split())})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def parse_json(text: str) -> Any:
    """`json.loads`, which lets pass halves of characters that no file can be written with.

    Raises:
      ValueError: it is no JSON, or has such a half.
      RecursionError: it is nested too deeply.
    """
    value = json.loads(text)
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def get_field(table: Any, key: str, kind: type | tuple[type, ...], where: str, *, default: Any = _MISSING) -> Any:
    """Field `key` of a JSON object, of the given type; `where` names file and object in errors."""
    names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
    if not isinstance(table, dict):
        raise UserError(f"{where}: found {type(table).__name__}, expected an object")
    if key not in table:
        if default is not _MISSING:
            return default
        raise UserError(f"{where}: key {key!r} is missing, expected {names}")
    value = table[key]
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and abs(value) > MAX_INTEGER):
        raise UserError(f"{where}: {key} is {str(value)[:60]!r}, expected {names}")
    return value


def check_name(name: str, where: str) -> str:
    """A name that is safe as a folder's: no separators, no leading dot, at most 100 printable characters."""
    if not name or len(name) > 100 or name[0] == "." or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
        raise UserError(f"{where}: name {name[:60]!r} is no plain folder name (no separators, no leading dot)")
    return name


def check_distinct(names: list[str], what: str, path: Path) -> None:
    """Raises UserError for the first name that occurs twice; `what` says of what the names are."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UserError(f"{path}: {what} name {name!r} occurs twice, expected distinct names")


def get_split(table: Any, where: str, *, default: Any = _MISSING) -> str:
    """Field `split` of a JSON object: "train" or "test"."""
    split = str(get_field(table, "split", str, where, default=default))
    if split not in SPLITS:
        raise UserError(f"{where}: split is {split[:40]!r}, expected 'train' or 'test'")
    return split


def get_array(
    table: Any, key: str, shape: tuple[int, ...], where: str, *, dtype: type[np.floating[Any]] = np.float32
) -> np.ndarray:
    """Numbers of a given shape, finite, as float32 or another type."""
    value = get_field(table, key, list, where)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: {key} is not an array of numbers, expected shape {list(shape)}") from error
    if array.shape != shape:
        raise UserError(f"{where}: {key} has shape {list(array.shape)}, expected {list(shape)}")
    if not (np.abs(array) <= MAX_NUMBER).all():
        raise UserError(f"{where}: {key} has values that are not finite, or beyond {MAX_NUMBER:g}")
    return array.astype(dtype)


def check_rigid(pose: np.ndarray, key: str, where: str) -> None:
    """Raises UserError where `pose` [4,4], of field `key`, is no rotation and translation."""
    rotation = pose[:3, :3].astype(np.float64)
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-3 and np.linalg.det(rotation) > 0
    if not orthonormal or np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise UserError(f"{where}: {key} is not rigid, expected a rotation, a translation and row 0 0 0 1")


def get_count(table: Any, key: str, most: int, where: str) -> int:
    """Field `key` of a JSON object: an integer of 1 to `most`."""
    value = int(get_field(table, key, int, where))
    if not 1 <= value <= most:
        raise UserError(f"{where}: {key} is {value}, expected 1 to {most}")
    return value
