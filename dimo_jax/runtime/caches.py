"""Where this machine keeps what can be made again: drawn or decoded frames, compiled programs."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path


def cache_root() -> Path:
    """$DIMO_JAX_CACHE, or ~/.cache/dimo_jax."""
    return Path(os.environ.get("DIMO_JAX_CACHE") or Path.home() / ".cache" / "dimo_jax").expanduser()


def keep_compiled_programs() -> None:
    """Lets jax keep compiled programs on disk, so that a resumed run or another of the same shapes does not compile.

    To be called before jax is imported, whose environment this sets; it is not imported here, because `--app=status`
    does without.

    A folder that the user gave jax (JAX_COMPILATION_CACHE_DIR) is left as it is. Programs for CPUs hold instructions of
    the processor that compiled them, so that every kind of processor has a folder of its own: a home may be shared.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache_root() / "programs" / _name_processor())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


def _name_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    abilities = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(abilities.encode()).hexdigest()[:8]}"
