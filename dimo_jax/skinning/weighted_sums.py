"""Weighted sums over neighbours, the inner loop of skinning."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array

# Up to this many entries the N x K matrix of weights is built: a matrix product is many times faster than a gather on
# CPUs (bench/blend.py), and 16 MiB are no burden. Above it, rows are gathered and no N x K matrix exists.
LARGEST_MATRIX = 2**22


def blend(table: Array, neighbors: Array, weights: Array) -> Array:
    """sum_j weights[n,j] * table[neighbors[n,j]].

    Args:
      table: [K,C].
      neighbors: [N,J] int32 in 0..K-1; carries no gradient.
      weights: [N,J].

    Returns:
      [N,C].
    """
    if neighbors.shape[0] * table.shape[0] <= LARGEST_MATRIX:
        return _blend_by_matrix(table, neighbors, weights)
    # One neighbour at a time, so that arrays of N x C are the largest, in the backward pass as well.
    return sum(
        (weights[:, j, None] * table[neighbors[:, j]] for j in range(neighbors.shape[1])),
        start=jnp.zeros((neighbors.shape[0], table.shape[1]), table.dtype),
    )


def _spread(neighbors: Array, weights: Array, num_columns: int) -> Array:
    columns = jnp.arange(num_columns, dtype=neighbors.dtype)
    matrix = jnp.zeros((neighbors.shape[0], num_columns), weights.dtype)
    for j in range(neighbors.shape[1]):
        matrix += jnp.where(neighbors[:, j, None] == columns, weights[:, j, None], 0)
    return matrix


@jax.custom_jvp
def _blend_by_matrix(table: Array, neighbors: Array, weights: Array) -> Array:
    return _multiply(_spread(neighbors, weights, table.shape[0]), table)


def _multiply(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@_blend_by_matrix.defjvp
def _differentiate(primals: tuple[Array, Array, Array], tangents: tuple[Array, Any, Array]) -> tuple[Array, Array]:
    table, neighbors, weights = primals
    d_table, _, d_weights = tangents
    matrix = _spread(neighbors, weights, table.shape[0])
    # A scatter, because its transpose, which training takes, picks J of K columns; that of `_spread` sums all of them.
    rows = jnp.arange(neighbors.shape[0])[:, None]
    d_matrix = jnp.zeros_like(matrix).at[rows, neighbors].add(d_weights)
    return _multiply(matrix, table), _multiply(matrix, d_table) + _multiply(d_matrix, table)
