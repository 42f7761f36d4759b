"""Times compiled functions: the median of several runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def median_ms(function: Callable[..., Any], *arguments: Any, repeats: int = 11) -> float:
    """Median milliseconds of a call, after one that does not count."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def compile_for(function: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    """The function compiled for these arguments, so that its cost can be read and no dispatch is timed twice."""
    return jax.jit(function).lower(*arguments).compile()


def count_cost(compiled: jax.stages.Compiled) -> tuple[float, float]:
    """Floating point operations and bytes moved of one call, as XLA counts them (custom calls count nothing)."""
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost or {}
    return float(cost.get("flops", 0.0)), float(cost.get("bytes accessed", 0.0))


def count_memory(compiled: jax.stages.Compiled) -> float:
    """Largest temporary memory of one call in MiB, as XLA plans it; NaN where a backend does not tell."""
    memory = compiled.memory_analysis()
    return float("nan") if memory is None else memory.temp_size_in_bytes / 2**20
