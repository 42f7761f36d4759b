"""Influence of key points on nearby points: radial basis functions (paper Eq. 1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array, Skinning
from dimo_jax.geometry.neighbors import squared_distance
from dimo_jax.geometry.safe import safe_divide

# Where an edge that does not count is put, world units from its point: beyond every radius, its square within float32.
FAR_AWAY = 1e6


def rbf_weights(points: Array, positions: Array, log_radii: Array) -> Array:
    """Eq. 1: w_jk = Normalize_k(exp(-|p_j - p_k|^2 / (2 r_k))).

    Normalized in the exponent (a softmax), so that a point far from every key point still has weights that sum to 1.

    Args:
      points: [N,3] world units.
      positions: [N,J,3] canonical positions of each point's key points.
      log_radii: [N,J] log r_k; r_k has the unit of a squared length.

    Returns:
      Weights [N,J], non-negative, summing to 1 over J.
    """
    squared_distances = squared_distance(points[:, None], positions)
    return jax.nn.softmax(-0.5 * squared_distances * jnp.exp(-log_radii), axis=-1)


def rbf_weights_authors(points: Array, positions: Array, log_radii: Array, *, floor: float = 1e-7) -> Array:
    """The authors' form: exp(-d^2 / (2 r_k^2)) + 1e-7, divided by the sum; no gradient through the distances.

    Shapes as in `rbf_weights`, but r_k is a length.
    """
    squared_distances = jax.lax.stop_gradient(squared_distance(points[:, None], positions))
    weights = jnp.exp(-0.5 * squared_distances * jnp.exp(-2.0 * log_radii)) + floor
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


# What `config.radius_power` must be for r_k to mean what each form takes it for: a squared length, or a length.
RADIUS_POWERS: dict[Skinning, float] = {rbf_weights: 2.0, rbf_weights_authors: 1.0}


def control_radii(log_radii: Array, *, power: float) -> Array:
    """Control radii as lengths, world units, from log r_k of any shape; r_k is a length to the power `radius_power`."""
    return jnp.exp(log_radii / power)


def weigh_edges(
    skinning: Skinning, positions: Array, log_radii: Array, edges: Array, alive: Array | None = None
) -> Array:
    """Eq. 1 along the edges of the motion graph, as Eq. 9 needs it: what other points weigh, and nothing else.

    A point is its own first neighbour in the graph, and has no distance to itself that could change. With it the
    normalized weights of the others would sum to a few percent where radii are small against distances, and the loss
    would be as good as off. So it is left out before the weights are normalized, and so are dead points.

    Args:
      skinning: Eq. 1, normalized over a row.
      positions: [K,3] canonical points, world units.
      log_radii: [K] log r_k.
      edges: [K,J] int32, neighbours of each point; the point itself may be among them, at any place.
      alive: [K] bool, the points that count; None takes all.

    Returns:
      [K,J], 0 for edges that do not count; every row that has an edge that counts sums to 1, the others to 0.
    """
    counts = edges != jnp.arange(edges.shape[0], dtype=edges.dtype)[:, None]
    if alive is not None:
        counts &= alive[:, None] & alive[edges]
    # Put far away, what does not count takes no share of a normalization that happens within `skinning`.
    away = positions[:, None] + FAR_AWAY
    weights = skinning(positions, jnp.where(counts[..., None], positions[edges], away), log_radii[edges])
    weights = jnp.where(counts, weights, 0.0)
    return safe_divide(weights, jnp.sum(weights, axis=-1, keepdims=True))
