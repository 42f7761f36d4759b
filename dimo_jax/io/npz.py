"""Archives of arrays (`.npz`) from anywhere: nothing is unpickled, and no size is believed before it is checked."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.runtime.jobs import one_line

MAX_BYTES = 2 << 30  # of all arrays, after decompression


def read_npz(
    path: str | os.PathLike[str], expected: str, *, max_bytes: int = MAX_BYTES, flag: str = ""
) -> dict[str, np.ndarray]:
    """All arrays of an npz, by their names.

    Args:
      path: the file.
      expected: what it should be, for errors: "an npz with a field z".
      max_bytes: of all arrays, after decompression.
      flag: that named the file, for errors.

    Raises:
      UserError: no such file, a damaged one, one that holds objects or records, or arrays that are larger than
        `max_bytes` or than the file's own entries.
    """
    path = Path(path)
    name = f"--{flag}={path}" if flag else str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            size = sum(entry.file_size for entry in archive.infolist())
            if size > max_bytes:
                raise UserError(f"{name}: {size} bytes when decompressed, expected {max_bytes} at most ({expected})")
            for entry in entries:
                with archive.open(entry) as file:
                    _check_header(file, entry)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file, expected {expected}") from error
    except Exception as error:  # a damaged archive fails with nearly any exception
        raise UserError(f"{name}: cannot be read as .npz ({one_line(error)}), expected {expected}") from error


def _check_header(file: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Raises ValueError where an array's header announces other than what follows: NumPy would take memory for it."""
    version = np.lib.format.read_magic(file)
    # The reader for UTF-8 headers (3.0) has no public name; they differ in names of fields alone.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    announced, there = math.prod(shape) * dtype.itemsize, entry.file_size - file.tell()
    if dtype.hasobject or dtype.fields or min(shape, default=0) < 0 or announced != there:
        raise ValueError(f"{entry.filename} announces {dtype} {list(shape)}, {there} bytes follow"[:150])
