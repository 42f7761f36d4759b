"""Weighted sums over neighbours: by gathers and by a matrix product, forward and gradient.

python -m bench.blend
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.model import blend

MOTIONS, TIMES, GAUSSIANS, KEY_POINTS, NEIGHBORS, COLUMNS = 4, 2, 5_120, 128, 8, 16


def measure(function: Callable[..., jax.Array], *arguments: jax.Array, repeats: int = 11) -> float:
    """Median milliseconds of the compiled function."""
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def main() -> None:
    rng = np.random.default_rng(0)
    tables = jnp.asarray(rng.normal(size=(MOTIONS, TIMES, KEY_POINTS, COLUMNS)), jnp.float32)
    neighbors = jnp.asarray(rng.integers(0, KEY_POINTS, (MOTIONS, GAUSSIANS, NEIGHBORS)), jnp.int32)
    weights = jnp.asarray(rng.uniform(size=(MOTIONS, GAUSSIANS, NEIGHBORS)), jnp.float32)

    def over_times(table: jax.Array, near: jax.Array, weight: jax.Array) -> jax.Array:
        return jax.vmap(lambda t: blend.blend(t, near, weight))(table)

    def forward(tables: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.vmap(over_times)(tables, neighbors, weights)

    def loss(tables: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.sum(forward(tables, weights) ** 2)

    print(f"{MOTIONS} motions x {TIMES} times, N={GAUSSIANS}, K={KEY_POINTS}, J={NEIGHBORS}, {COLUMNS} columns")
    for name, limit in (("gathers", 0), ("matrix", blend.LARGEST_MATRIX)):
        blend.LARGEST_MATRIX = limit
        gradient = measure(jax.grad(loss, argnums=(0, 1)), tables, weights)
        print(f"{name:8s} forward {measure(forward, tables, weights):7.1f} ms   gradient {gradient:7.1f} ms")


if __name__ == "__main__":
    main()
