"""Loads the optional C++ libraries that `setup.py` compiles, and registers their calls with jax."""

from __future__ import annotations

import ctypes
import functools
import sysconfig
from pathlib import Path

import jax

REMEDY = (
    "install a C++17 compiler (g++ or clang++) and reinstall dimo_jax "
    "(pip install --no-deps --force-reinstall, with -e where it was editable)"
)


@functools.cache
def load_library(folder: str, name: str, calls: tuple[tuple[str, str], ...]) -> ctypes.CDLL | str:
    """Loads a compiled library beside its Python module, once.

    Args:
      folder: where it lies.
      name: of the library's file, without the suffix of this Python's extensions.
      calls: pairs of the name under which jax calls a handler on CPUs, and its symbol.

    Returns:
      The library, or a sentence that says why there is none and how to get it.
    """
    path = Path(folder, f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}")
    if not path.exists():
        return f"the native extension was not compiled: {REMEDY}"
    try:
        library = ctypes.CDLL(str(path))
        handlers = {target: getattr(library, symbol) for target, symbol in calls}
    except (OSError, AttributeError) as error:
        return f"the native extension {path.name} does not load ({error}): reinstall dimo_jax to compile it anew"
    for target, handler in handlers.items():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform="cpu")
    return library
