"""Loads the optional C++ library that `setup.py` compiles, and registers its calls with jax (docs/native.md)."""

from __future__ import annotations

import ctypes
import functools
import sysconfig
from pathlib import Path

import jax

PATH = Path(__file__).with_name(f"_native{sysconfig.get_config_var('EXT_SUFFIX')}")
# The names under which jax calls handlers on CPUs, and their symbols.
CALLS = {
    "dimo_rasterize_forward": "DimoRasterizeForward",
    "dimo_rasterize_backward": "DimoRasterizeBackward",
    "dimo_project_forward": "DimoProjectForward",
    "dimo_project_backward": "DimoProjectBackward",
    "dimo_skin_forward": "DimoSkinForward",
    "dimo_skin_backward": "DimoSkinBackward",
}
CONTRACT = 2  # of what calls pass, see contract.cc
REMEDY = (
    "install a C++17 compiler (g++ or clang++) and reinstall dimo_jax "
    "(pip install --no-deps --force-reinstall, with -e where it was editable)"
)


@functools.cache
def load_library() -> ctypes.CDLL | str:
    """Loads the compiled library and registers its calls with jax, once.

    Returns:
      The library, or a sentence that says why there is none and how to get it.
    """
    if not PATH.exists():
        return f"the native extension was not compiled: {REMEDY}"
    try:
        library = ctypes.CDLL(str(PATH))
        handlers = {target: getattr(library, symbol) for target, symbol in CALLS.items()}
        found = library.DimoContract()
    except (OSError, AttributeError) as error:
        return f"the native extension {PATH.name} does not load ({error}): reinstall dimo_jax to compile it anew"
    if found != CONTRACT:
        return f"the native extension {PATH.name} is of another version ({found}, expected {CONTRACT}): {REMEDY}"
    for target, handler in handlers.items():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform="cpu")
    library.DimoBestSimd.restype = ctypes.c_char_p
    return library
