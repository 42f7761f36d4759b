"""Skinning on this device: weighted sums by gathers and by a matrix product, and the whole of Eq. 7 in XLA and in C++.

python -m bench.blend
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.timing import compile_for, median_ms
from dimo_jax.skinning import blending, native, weighted_sums

MOTIONS, TIMES, GAUSSIANS, KEY_POINTS, NEIGHBORS, COLUMNS = 8, 3, 5_120, 128, 8, 16


def main() -> None:
    rng = np.random.default_rng(0)
    tables = jnp.asarray(rng.normal(size=(MOTIONS, TIMES, KEY_POINTS, COLUMNS)), jnp.float32)
    neighbors = jnp.asarray(rng.integers(0, KEY_POINTS, (MOTIONS, GAUSSIANS, NEIGHBORS)), jnp.int32)
    weights = jnp.asarray(rng.uniform(size=(MOTIONS, GAUSSIANS, NEIGHBORS)), jnp.float32)

    def over_times(table: jax.Array, near: jax.Array, weight: jax.Array) -> jax.Array:
        return jax.vmap(lambda t: weighted_sums.blend(t, near, weight))(table)

    def forward(tables: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.vmap(over_times)(tables, neighbors, weights)

    def loss(tables: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.sum(forward(tables, weights) ** 2)

    print(f"{MOTIONS} motions x {TIMES} times, N={GAUSSIANS}, K={KEY_POINTS}, J={NEIGHBORS}, {COLUMNS} columns")
    for name, limit in (("gathers", 0), ("matrix", weighted_sums.LARGEST_MATRIX)):
        weighted_sums.LARGEST_MATRIX = limit
        report(name, forward, jax.grad(loss, argnums=(0, 1)), tables, weights)

    canonical = [jnp.asarray(rng.normal(size=(GAUSSIANS, size)), jnp.float32) for size in (3, 4)]
    positions = jnp.asarray(rng.normal(size=(KEY_POINTS, 3)), jnp.float32)
    translations, rotations = tables[..., :3], tables[..., 3:7]

    implementation = "xla"

    def move(means: jax.Array, quats: jax.Array, weights: jax.Array, tables: tuple) -> tuple:
        def one_time(near: jax.Array, weight: jax.Array, translation: jax.Array, rotation: jax.Array) -> tuple:
            return blending.linear_blend(
                means, quats, positions, translation, rotation, near, weight, implementation=implementation
            )

        over_times = jax.vmap(one_time, in_axes=(None, None, 0, 0))
        return jax.vmap(over_times)(neighbors, weights, *tables)

    def cost(*arguments: Any) -> jax.Array:
        return sum((jnp.sum(x**2) for x in move(*arguments)), jnp.zeros([]))

    for name, implementation in (("Eq. 7 in XLA", "xla"), ("Eq. 7 in C++", "native")):
        if implementation == "xla" or native.is_available():
            gradient = jax.grad(cost, argnums=(0, 1, 2, 3))
            report(name, lambda *a: move(*a), gradient, *canonical, weights, (translations, rotations))


def report(name: str, forward: Callable, gradient: Callable, *arguments: Any) -> None:
    times = [median_ms(compile_for(function, *arguments), *arguments) for function in (forward, gradient)]
    print(f"{name:12s} forward {times[0]:7.1f} ms   value and gradient {times[1]:7.1f} ms")


if __name__ == "__main__":
    main()
