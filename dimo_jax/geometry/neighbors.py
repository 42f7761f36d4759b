"""Nearest neighbours and farthest point sampling, exact, in any number of dimensions.

Distances are sums of squared differences, never |a|^2 - 2 a b + |b|^2, whose cancellation reorders close neighbours. A
point with a component that is not finite counts as masked.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax

from dimo_jax.core.types import Array


def nearest(
    queries: Array, points: Array, *, num_neighbors: int, mask: Array | None = None, block_size: int = 4096
) -> tuple[Array, Array]:
    """The nearest points of every query, by brute force over blocks of queries.

    Args:
      queries: [N,D].
      points: [K,D].
      num_neighbors: J, 1..K.
      mask: [K] bool, False for points not to choose; None takes all.
      block_size: queries handled at once, so that memory is block_size x K instead of N x K.

    Returns:
      Indices [N,J] int32 and squared distances [N,J], ascending; equal distances in order of index. Where fewer than J
      points are unmasked, masked ones follow in order of index with distance infinity. The choice carries no gradient;
      the distances carry theirs to `queries` and `points`.

    Raises:
      ValueError: shapes that do not fit, or num_neighbors outside 1..K.
    """
    queries, points = jnp.asarray(queries), jnp.asarray(points)
    _check_points(queries, points, mask)
    if not 1 <= num_neighbors <= points.shape[0]:
        raise ValueError(f"nearest: found num_neighbors={num_neighbors}, expected 1..{points.shape[0]} (the points)")
    if block_size < 1:
        raise ValueError(f"nearest: found block_size={block_size}, expected at least 1")
    mask = _choosable(points, mask)
    selected, frozen = _select(
        lax.stop_gradient(queries), lax.stop_gradient(points), mask, num_neighbors=num_neighbors, block_size=block_size
    )
    # The value comes from the search, the gradient from a second evaluation: compiled apart, the two may differ in the
    # last bit, which would break the ascending order.
    squared = squared_distance(queries[:, None, :], points[selected])
    difference = jnp.where(jnp.isinf(squared), 0.0, squared - lax.stop_gradient(squared))
    squared = frozen + difference
    return selected, jnp.where(mask[selected], squared, jnp.inf)


def farthest_points(points: Array, *, num_points: int, mask: Array | None = None, start: int = 0) -> Array:
    """Farthest point sampling: each choice is the point farthest from all chosen before it.

    Args:
      points: [N,D].
      num_points: how many to choose, 1..N.
      mask: [N] bool, False for points not to choose; None takes all.
      start: the first choice; where it is masked, the next unmasked point (cyclic) is.

    Returns:
      Indices [num_points] int32, all different; ties go to the lower index. Where fewer points are unmasked, masked
      ones follow in order of index. Carries no gradient.

    Raises:
      ValueError: shapes that do not fit, or num_points or start out of range.
    """
    points = lax.stop_gradient(jnp.asarray(points))
    _check_points(points, points, mask)
    count = points.shape[0]
    if not 1 <= num_points <= count:
        raise ValueError(f"farthest_points: found num_points={num_points}, expected 1..{count} (the points)")
    if not 0 <= start < count:
        raise ValueError(f"farthest_points: found start={start}, expected 0..{count - 1}")
    mask = _choosable(points, mask)
    first = (start + jnp.argmax(jnp.roll(mask, -start))) % count
    # Ranks below every distance: unmasked points come before masked ones, and those before points chosen already.
    masked, chosen = -1.0, -2.0
    nearest_chosen = jnp.where(mask, jnp.inf, masked).astype(points.dtype)

    def choose(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        choices, nearest_chosen = state
        latest = choices[i - 1]
        distance = squared_distance(points, points[latest])
        distance = jnp.where(mask, distance, jnp.inf)
        nearest_chosen = jnp.minimum(nearest_chosen, distance).at[latest].set(chosen)
        return choices.at[i].set(jnp.argmax(nearest_chosen).astype(jnp.int32)), nearest_chosen

    choices = jnp.zeros(num_points, jnp.int32).at[0].set(first.astype(jnp.int32))
    return lax.fori_loop(1, num_points, choose, (choices, nearest_chosen))[0]


def _select(queries: Array, points: Array, mask: Array, *, num_neighbors: int, block_size: int) -> tuple[Array, Array]:
    """Indices [N,J] and squared distances [N,J] of the nearest points."""

    def search(block: Array) -> tuple[Array, Array]:
        squared = squared_distance(block[:, None, :], points)
        # An overflowed distance must stay nearer than a masked point, and NaN (a query's fault) must not come first.
        largest = float(jnp.finfo(squared.dtype).max)
        squared = jnp.where(squared <= largest, squared, largest)
        squared = jnp.where(mask, squared, jnp.inf)
        if num_neighbors == 1:  # no need to sort
            closest = jnp.argmin(squared, axis=-1, keepdims=True)
            return closest.astype(jnp.int32), jnp.min(squared, axis=-1, keepdims=True)
        negative, selected = lax.top_k(-squared, num_neighbors)
        return selected.astype(jnp.int32), -negative

    count, dimensions = queries.shape
    if count <= block_size:
        return search(queries)
    num_blocks = -(-count // block_size)
    padded = jnp.pad(queries, ((0, num_blocks * block_size - count), (0, 0)))
    selected, squared = lax.map(search, padded.reshape(num_blocks, block_size, dimensions))
    return selected.reshape(-1, num_neighbors)[:count], squared.reshape(-1, num_neighbors)[:count]


def squared_distance(a: Array, b: Array) -> Array:
    """|a - b|^2 of points a [..., D] and b [..., D], whose leading axes broadcast."""
    dimensions = a.shape[-1]
    if 1 <= dimensions <= 4:  # XLA vectorizes a sum of components, not one over a short last axis
        return functools.reduce(jnp.add, [jnp.square(a[..., i] - b[..., i]) for i in range(dimensions)])
    return jnp.sum(jnp.square(a - b), axis=-1)


def _choosable(points: Array, mask: Array | None) -> Array:
    finite = jnp.all(jnp.isfinite(points), axis=-1)
    return finite if mask is None else finite & mask


def _check_points(queries: Array, points: Array, mask: Array | None) -> None:
    if queries.ndim != 2 or points.ndim != 2 or queries.shape[1] != points.shape[1]:
        raise ValueError(f"neighbors: found shapes {queries.shape} and {points.shape}, expected [N,D] and [K,D]")
    if mask is not None and mask.shape != points.shape[:1]:
        raise ValueError(f"neighbors: found mask {mask.shape}, expected {points.shape[:1]}")
