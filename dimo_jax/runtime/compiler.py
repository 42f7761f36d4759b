"""How XLA compiles for this process."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import MutableMapping
from importlib.metadata import version
from pathlib import Path

_NATIVE = Path(__file__).parents[1] / f"native/_native{sysconfig.get_config_var('EXT_SUFFIX')}"
_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def leave_reductions_to_xla(environment: MutableMapping[str, str] = os.environ, *, jaxlib: str | None = None) -> bool:
    """Keeps XLA on CPUs from giving reductions to its experimental library, YNNPACK, where native code does the rest.

    Its sum over the leading axis of a batch costs three times the processor time on two cores that it costs on one.
    Where XLA has to rasterize as well, YNNPACK's other reductions are worth more: without it a step takes 1.7 times as
    long (docs/performance.md). To be called before jax compiles anything.

    Args:
      environment: where XLA finds its flags; a user's own choice of this one stays.
      jaxlib: its version; None for the installed one. XLA ends the process at a flag that it does not know, so only
        the versions that are known to know it get it.

    Returns:
      Whether the flag was set.
    """
    flags = environment.get("XLA_FLAGS", "")
    if not _NATIVE.exists() or not (jaxlib or version("jaxlib")).startswith("0.10.") or _FLAG in flags:
        return False
    environment["XLA_FLAGS"] = f"{flags} {_FLAG}=".strip()
    return True
