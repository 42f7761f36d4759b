"""Which key points move a point: the motion graph (paper Eq. 3)."""

from __future__ import annotations

import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.geometry.neighbors import nearest


def trajectory_graph(positions: Array, trajectories: Array, *, num_neighbors: int) -> Array:
    """Eq. 3: edges of the motion graph, the nearest key points by distance between whole trajectories.

    The paper's distance is |traj_j - traj_k| / T over concatenated positions; dividing by T changes no order.

    Args:
      positions: [K,3] canonical positions; one more point of the trajectory, as in the paper's concat(p_k^1, ...).
      trajectories: [T,K,3] positions over time of one motion.
      num_neighbors: J. The point itself is its own first neighbour.

    Returns:
      [K,J] int32.
    """
    num_key_points = positions.shape[0]
    points = jnp.moveaxis(jnp.concatenate([positions[None], trajectories]), 0, 1).reshape(num_key_points, -1)
    indices, _ = nearest(points, points, num_neighbors=min(num_neighbors, num_key_points))
    return indices


def trajectory_neighbors(points: Array, positions: Array, trajectories: Array, *, num_neighbors: int = 8) -> Array:
    """Paper Sec. 3.2.3: the nearest canonical key point of a point, and that key point's edges in the motion graph.

    A component for `config.graph` (`types.Graph`): points [N,3], positions [K,3], trajectories [T,K,3] of one motion
    -> [N,J] int32.
    """
    edges = trajectory_graph(positions, trajectories, num_neighbors=num_neighbors)
    closest, _ = nearest(points, positions, num_neighbors=1)
    return edges[closest[:, 0]]


def canonical_neighbors(points: Array, positions: Array, trajectories: Array, *, num_neighbors: int = 4) -> Array:
    """The authors' way: the nearest canonical key points; the trajectories play no part. Shapes as above."""
    del trajectories
    indices, _ = nearest(points, positions, num_neighbors=min(num_neighbors, positions.shape[0]))
    return indices
