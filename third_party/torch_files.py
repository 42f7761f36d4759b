"""Reads tensors from `.pth` files without torch, and refuses files that hold anything but tensors and plain containers.

Two formats: the zip archive that torch.save writes since version 1.6 (`<name>/data.pkl`, and `<name>/data/<key>` for
each storage), and the one before it, a row of pickles followed by the storages. In both, a pickle holds the containers
and, for each tensor, a call of `torch._utils._rebuild_tensor_v2` on a storage that lies elsewhere in the file. Pickles
go through `restricted`, so that nothing but these calls can be made; sizes are checked against the file
before memory is taken.

Facts of the formats: torch/serialization.py, torch/_utils.py (https://github.com/pytorch/pytorch, BSD-3-Clause).
"""

from __future__ import annotations

import collections
import io
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from dimo_jax.core.errors import UserError

from .restricted import RestrictedUnpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_PICKLE_BYTES = 256 << 20
MAX_FILE_BYTES = 16 << 30
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}


class _StorageType(NamedTuple):
    """Stands for a class of storages, of which only the type of number matters.

    A tuple, because a pickle may set attributes of what it names, which would last beyond the file.
    """

    dtype: np.dtype


def _refuse(reason: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(reason)


def _check_sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 64 or not all(type(v) is int and v >= 0 for v in values):
        raise _refuse("a tensor's shape is no tuple of sizes")
    return values


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> np.ndarray:
    """A view of a storage; what a tensor says beyond that (whether it needs gradients, hooks) is left out."""
    shape, strides = _check_sizes(size), _check_sizes(stride)
    if not isinstance(storage, np.ndarray) or type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise _refuse("a tensor without a storage, an offset or strides")
    count = int(np.prod(shape, dtype=object))
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides))
    # A tensor larger than its storage repeats values; the file of one does not bound the memory that a copy takes.
    if count > storage.size or (count and last >= storage.size):
        raise _refuse(f"a tensor of shape {list(shape)} leaves its storage of {storage.size} numbers")
    if not count:
        return np.zeros(shape, storage.dtype)
    bytes_per_step = [step * storage.itemsize for step in strides]
    view: np.ndarray = np.lib.stride_tricks.as_strided(storage[offset:], shape, bytes_per_step, writeable=False)
    return view


def _rebuild_parameter(data: Any, *_rest: Any) -> Any:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): _StorageType(np.dtype(dtype)) for name, dtype in _STORAGES.items()},
}


class _TensorUnpickler(RestrictedUnpickler):
    def __init__(self, file: BinaryIO | mmap.mmap, load_storage: Callable[[str, np.dtype, int], np.ndarray]) -> None:
        super().__init__(file, _ALLOWED)
        self._load_storage = load_storage

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage that an entry ("storage", type, key, device, count) of the pickle names."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            raise _refuse("it refers to something that is no storage")
        key, count = pid[2], pid[4]
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise _refuse("a storage without a name or a size")
        if len(pid) > 5 and pid[5] is not None:
            raise _refuse("a storage that is part of another one")
        return self._load_storage(key, pid[1].dtype, count)


def load_tensors(path: str | Path) -> Any:
    """What torch.save has written: NumPy arrays in place of tensors, in dicts, lists and tuples.

    Args:
      path: a `.pth` file, of the zip format or of the older one.

    Returns:
      The containers; arrays may share memory and are read-only.

    Raises:
      UserError: no such file, a damaged one, or one that holds anything but tensors (of real numbers) and containers.
        No code of the file is run.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_FILE_BYTES} at most")
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            if is_zip:
                return _load_zip(file)
            # A map gives what is there, where a file's own `read` would take the memory that a length announces.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                return _load_legacy(whole)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file, expected tensors written by torch.save") from error
    except UserError:
        raise
    except Exception as error:  # a damaged pickle or archive fails with nearly any exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: refused ({reason}), expected tensors in plain containers only") from error


def _load_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise _refuse("a compressed archive, which torch does not write")
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _refuse(f"an archive with {len(pickles)} data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise _refuse("numbers in big-endian order")
        if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
            raise _refuse("a pickle of too many bytes")
        storages: dict[str, np.ndarray] = {}

        def load_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            if key not in storages:
                data = archive.read(f"{root}data/{key}")
                if len(data) != count * dtype.itemsize:
                    raise _refuse(f"storage {key} has {len(data)} bytes, {count * dtype.itemsize} are announced")
                storages[key] = np.frombuffer(data, dtype)
            return storages[key]

        return _TensorUnpickler(io.BytesIO(archive.read(pickles[0])), load_storage).load()


def _load_legacy(file: mmap.mmap) -> Any:
    """The format before the archive: magic number, protocol, system facts, the object, keys, then the storages."""
    if RestrictedUnpickler(file, {}).load() != LEGACY_MAGIC:
        raise _refuse("no file of torch.save")
    if RestrictedUnpickler(file, {}).load() != LEGACY_PROTOCOL:
        raise _refuse("another protocol than 1001")
    facts = RestrictedUnpickler(file, {}).load()
    if not isinstance(facts, dict) or not facts.get("little_endian", True):
        raise _refuse("numbers in big-endian order")
    storages: dict[str, np.ndarray] = {}
    available = len(file) - file.tell()

    def load_storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        # The numbers follow later; tensors are views that are filled then.
        nonlocal available
        if key not in storages:
            available -= count * dtype.itemsize
            if available < 0:
                raise _refuse("its storages are larger than the file")
            storages[key] = np.zeros(count, dtype)
        return storages[key]

    result = _TensorUnpickler(file, load_storage).load()
    keys = RestrictedUnpickler(file, {}).load()
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise _refuse("its list of storages does not fit its tensors")
    for key in keys:
        target = storages[key]
        header = file.read(8)
        if len(header) != 8 or struct.unpack("<q", header)[0] != target.size:
            raise _refuse(f"storage {key} is cut short")
        data = file.read(target.nbytes)
        if len(data) != target.nbytes:
            raise _refuse(f"storage {key} is cut short")
        target[:] = np.frombuffer(data, target.dtype)
    return result
