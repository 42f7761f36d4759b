"""Files and folders that appear whole or not at all, so that other processes may read them at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dimo_jax.core.errors import UserError
from dimo_jax.runtime.strict_json import encode


def _temporary(path: Path) -> Path:
    # The suffix stays last because encoders choose the format by it.
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `replace_file` gives, and a process killed in between leaves."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp(\.[^.]*)?", name) is not None


@contextlib.contextmanager
def replace_file(path: Path | str, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is renamed to `path`, on an exception it is removed.

    The parent folder is created. A process killed in between leaves at most a hidden `.tmp` file, never half a file
    under the final name.

    Args:
      path: the final name; an existing file there is replaced.
      durable: wait until the content is on the disk, without which a power cut could leave the name on unwritten data.

    Raises:
      UserError: `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: found a folder, expected a file name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder(path: Path | str, *, owned: str) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`; on success it takes the place of `path`.

    Args:
      path: the final name. An existing folder is replaced only if every file in it is one that this program could
        have written.
      owned: regular expression that the name of every such file matches in full.

    Raises:
      UserError: `path` is a file, or a folder with other files in it.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: found a file, expected a folder")
    if path.is_dir():
        foreign = sorted(entry.name for entry in path.iterdir() if not re.fullmatch(owned, entry.name))
        if foreign:
            raise UserError(f"{path}: found {foreign[0]!r}, expected a new folder or one written by an earlier export")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            # A folder cannot be renamed onto a full one, so the old one steps aside first.
            old = _temporary(path)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(value: Mapping[str, Any], path: Path, *, durable: bool = False) -> None:
    """Writes a strict JSON file that appears whole or not at all.

    Args:
      value: what the file shall hold; see `strict_json.encode` for NaN and infinity.
      path: the file; an older one is replaced.
      durable: see `replace_file`.

    Raises:
      OSError: it cannot be written; an older file is unharmed.
      UserError: `path` is a folder.
    """
    with replace_file(path, durable=durable) as temporary:
        temporary.write_text(encode(value, indent=1), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file or no object in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
