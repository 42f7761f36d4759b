"""Reads a pickle of NumPy arrays in plain containers and refuses every other one.

A pickle is a program: loading one may call any importable function. Here the only names that it may reach are the
three from which NumPy rebuilds an array, so that the worst a file can do is fail.
"""

from __future__ import annotations

import collections
import io
import mmap
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from dimo_jax.core.errors import UserError

_REBUILD_ARRAY: Any = np.empty(0).__reduce__()[0]
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")


class _ArrayType:
    """Stands for `numpy.ndarray`, which would take any memory where a pickle calls it with a shape."""


def _begin_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """The empty array that NumPy's own pickles begin with, to be filled by the state that follows."""
    if kind is not _ArrayType or shape != (0,) or code != b"b":
        raise pickle.UnpicklingError("an array that does not begin empty")
    array: np.ndarray = _REBUILD_ARRAY(np.ndarray, shape, code)
    return array


# NumPy 2 renamed `numpy.core` to `numpy._core`; files of both kinds are in use.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _begin_array,
    ("numpy._core.multiarray", "_reconstruct"): _begin_array,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Resolves the names that it is given and no other."""

    def __init__(self, file: BinaryIO | mmap.mmap, allowed: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._file, self._allowed = file, allowed

    def load(self) -> Any:
        """As `pickle.Unpickler.load`, after a look at what the pickle says of sizes.

        Raises:
          UnpicklingError: it takes memory for more names than it has bytes.
          ValueError: it ends early, or has an unknown instruction.
        """
        start = self._file.tell()
        for operation, argument, place in pickletools.genops(self._file):  # type: ignore[arg-type]
            # The unpickler makes room for all numbers below.
            if operation.name in _MEMO and int(argument or 0) > (place or 0):
                raise pickle.UnpicklingError("it numbers more values than it has")
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name`; raises UnpicklingError for a name that is not allowed."""
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._allowed[module, name]


def load_arrays(data: bytes, *, source: str) -> Any:
    """Unpickles nested dicts, lists and tuples of NumPy arrays, numbers and strings.

    Args:
      data: the pickle's bytes.
      source: what the bytes are, a file name as a rule; the error names it.

    Raises:
      UserError: the pickle refers to anything but NumPy's array reconstruction and plain containers, or is damaged.
    """
    try:
        return RestrictedUnpickler(io.BytesIO(data), _ALLOWED).load()
    except Exception as error:  # a damaged pickle fails with nearly any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{source}: refused ({reason}), expected a pickle of NumPy arrays only") from error
