"""Frames on disk, mapped into memory: made once, shared by all processes of a machine, and read only where needed."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from absl import logging

from dimo_jax.core.errors import UserError
from dimo_jax.runtime.lock import wait_for

MAX_CHECKED_BYTES = 256 << 20  # larger stores are not read through at every start


def open_frames(folder: Path, shape: tuple[int, ...], fill: Callable[[np.ndarray], None], *, what: str) -> np.ndarray:
    """The frames stored in `folder`, made first where there are none or (said) they are damaged.

    Processes of this machine, and of others where the file system's locks reach them, make them only once.

    Args:
      folder: of the store; everything in it is this module's.
      shape: of the frames.
      fill: writes the frames into an array of that shape.
      what: name of the store, for messages.

    Returns:
      uint8 array of `shape`, a read-only map of the file: what nobody looks at takes no memory.

    Raises:
      UserError: there is no room for them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with wait_for(folder.with_name(f".{folder.name}.lock")) as alone:
        frames = _read(folder, shape, what)
        if frames is not None:
            return frames
        for left in folder.parent.glob(f"{_part_of(folder)}*") if alone else ():
            shutil.rmtree(left, ignore_errors=True)  # of a process that was killed: as large as the store
        return _write(folder, shape, fill)


def name_store(root: Path, files: Iterable[Path]) -> str:
    """A name for the decoded frames of `files` below `root`, another one when a file has changed."""
    digest = hashlib.sha256()
    for path in files:
        facts = path.stat()
        digest.update(f"{path.relative_to(root)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return f"frames-{digest.hexdigest()[:16]}"


def _part_of(folder: Path) -> str:
    """How the names of unfinished stores begin."""
    return f".{folder.name}-"


def _checksum(path: Path) -> int | None:
    """CRC-32 of a file; None for one that is too large to be read every time."""
    if path.stat().st_size > MAX_CHECKED_BYTES:
        return None
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _read(folder: Path, shape: tuple[int, ...], what: str) -> np.ndarray | None:
    """The stored frames; None if there are none or (said) they are damaged."""
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text())
        frames = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
        if frames.shape != shape or frames.dtype != np.uint8:
            raise ValueError(f"frames of {frames.dtype} {frames.shape}, expected uint8 {shape}")
        checksum = _checksum(folder / "frames.npy")
        if checksum is not None and checksum != meta["crc32"]:
            raise ValueError("frames do not match their checksum")
        return frames
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
        logging.warning("%s cache %s is damaged (%s); making it again", what, folder, error)
        return None


def check_room(folder: Path, num_bytes: int, *, otherwise: str) -> None:
    """Checks that a disk takes a file that is written through a map, which ends a process where the disk is full.

    Raises:
      UserError: it does not; `otherwise` says what to do about it.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes * 1.05:
        raise UserError(f"{folder}: found {free >> 20} MiB free, expected {num_bytes >> 20} MiB ({otherwise})")


def _write(folder: Path, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """Fills a temporary folder beside `folder` and renames it."""
    check_room(folder.parent, math.prod(shape), otherwise="set DIMO_JAX_CACHE")
    temporary = Path(tempfile.mkdtemp(prefix=_part_of(folder), dir=folder.parent))
    try:
        frames = np.lib.format.open_memmap(temporary / "frames.npy", mode="w+", dtype=np.uint8, shape=shape)
        fill(frames)
        frames.flush()
        del frames
        (temporary / "meta.json").write_text(json.dumps({"crc32": _checksum(temporary / "frames.npy")}))
        if folder.exists():
            folder.rename(temporary / "damaged")
        try:
            temporary.rename(folder)
        except OSError:
            # Without locks another process may have finished first; its frames are the same.
            if not (folder / "frames.npy").exists():
                raise
        shutil.rmtree(folder / "damaged", ignore_errors=True)
        return np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
