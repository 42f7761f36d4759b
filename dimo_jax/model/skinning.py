"""Influence of key points on nearby points: radial basis functions (paper Eq. 1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dimo_jax.geometry.neighbors import squared_distance
from dimo_jax.types import Array


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
