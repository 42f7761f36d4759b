"""Reads a pickle of NumPy arrays in plain containers and refuses every other one.

A pickle is a program: loading one may call any importable function. Here the only names that it may reach are the
three from which NumPy rebuilds an array, so that the worst a file can do is fail.
"""

from __future__ import annotations

import collections
import io
import pickle
from typing import Any

import numpy as np

from dimo_jax.errors import UserError

_REBUILD_ARRAY: Any = np.empty(0).__reduce__()[0]

# NumPy 2 renamed `numpy.core` to `numpy._core`; files of both kinds are in use.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD_ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD_ARRAY,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves the names in `_ALLOWED` and no other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def load_arrays(data: bytes, *, source: str) -> Any:
    """Unpickles nested dicts, lists and tuples of NumPy arrays, numbers and strings.

    Args:
      data: the pickle's bytes.
      source: what the bytes are, a file name as a rule; the error names it.

    Raises:
      UserError: the pickle refers to anything but NumPy's array reconstruction and plain containers, or is damaged.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a damaged pickle fails with nearly any exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{source}: refused ({reason}), expected a pickle of NumPy arrays only") from error
