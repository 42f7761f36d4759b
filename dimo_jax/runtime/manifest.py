"""Sizes and hashes of a folder's files, so that damage is found before a state is built from it."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from dimo_jax.runtime.files import read_json, write_json

MANIFEST_FILE = "manifest.json"
_FORMAT = 1


class DamagedError(ValueError):
    """A folder is not as its manifest says; the message names the file and what is wrong with it."""


def write_manifest(folder: Path) -> None:
    """Lists every file below `folder` in `manifest.json` there, with the time; returns once all are on the disk.

    Raises:
      OSError: a file cannot be read, or the disk does not take it.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    write_json({"format": _FORMAT, "time": time.time(), "files": files}, folder / MANIFEST_FILE, durable=True)
    for path in (folder, *(entry for entry in folder.rglob("*") if entry.is_dir())):
        sync_folder(path)


def read_time(folder: Path) -> float | None:
    """When the manifest of `folder` was written, in seconds since 1970; None where none says so.

    Times of files are those of the last copy.
    """
    found = (read_json(folder / MANIFEST_FILE) or {}).get("time")
    return found if isinstance(found, float) else None


def sync_folder(folder: Path) -> None:
    """Returns when the names in `folder` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(folder: Path) -> None:
    """Checks every file that the manifest of `folder` lists.

    Raises:
      DamagedError: a file is missing, of another size or content, or the manifest itself cannot be read.
      OSError: a file cannot be read.
    """
    manifest = read_json(folder / MANIFEST_FILE)
    files = None if manifest is None else manifest.get("files")
    if not isinstance(files, dict) or not files:
        raise DamagedError(f"{MANIFEST_FILE} is missing or cannot be read")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{name} is missing")
        size = path.stat().st_size
        if size != expected["size"]:
            raise DamagedError(f"{name} has {size} bytes, expected {expected['size']}")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                raise DamagedError(f"{name} has another content than was written")
