"""Whether a moving body keeps its shape and moves smoothly, from the tracks of its surface points alone."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.geometry.neighbors import nearest


def surface_edges(rest: Array, anchors: Array, *, num_neighbors: int = 6) -> Array:
    """The nearest neighbours of some points of a body at rest.

    Args:
      rest: [P,3] world units.
      anchors: [A] int32, indices of the points whose neighbours are wanted.
      num_neighbors: of each, itself not counted; at most P - 1 are found.

    Returns:
      [A,J] int32 indices into `rest`.
    """
    count = min(num_neighbors + 1, rest.shape[0])
    indices, _ = nearest(rest[anchors], rest, num_neighbors=count)
    return indices[:, 1:]


@jax.jit
def neighbor_distance_change(tracks: Array, rest: Array, anchors: Array, edges: Array) -> Array:
    """How far a body is from an isometry of its rest pose: change of the distances between neighbouring points.

    sum over edges | |x_i^t - x_j^t| - |x_i - x_j| |  /  sum over edges |x_i - x_j|. A rigid motion scores 0, a scaling
    by s scores |s - 1|. Sums before the quotient, so that points that almost coincide at rest count for little.

    Args:
      tracks: [T,P,3] positions over time.
      rest: [P,3] positions at rest, distances of which are the reference.
      anchors: [A] int32 and
      edges: [A,J] int32 as of `surface_edges`.

    Returns:
      [T] >= 0; a share, not a percentage.
    """
    chex.assert_shape(tracks, (None, *rest.shape))

    def lengths(points: Array) -> Array:
        return jnp.linalg.norm(points[anchors][:, None] - points[edges], axis=-1)

    original = lengths(rest)
    return jax.lax.map(lambda points: jnp.sum(jnp.abs(lengths(points) - original)) / jnp.sum(original), tracks)


@jax.jit
def contacts(tracks: Array, rest: Array, *, apart: float, near: float) -> Array:
    """How much of a body touches parts of it that lie elsewhere: what limbs that enter each other look like in points.

    Args:
      tracks: [T,P,3] positions over time.
      rest: [P,3] positions at rest.
      apart: points farther from each other than this at rest belong to different parts, world units.
      near: points of different parts that come nearer than this touch, world units.

    Returns:
      [T] in 0..1, the share of the points that touch another part.
    """
    chex.assert_shape(tracks, (None, *rest.shape))

    def distances(points: Array) -> Array:
        return jnp.linalg.norm(points[:, None] - points[None], axis=-1)

    elsewhere = distances(rest) > apart
    return jax.lax.map(lambda points: jnp.mean(jnp.any(elsewhere & (distances(points) < near), axis=1)), tracks)


@jax.jit
def roughness(tracks: Array) -> Array:
    """How abruptly points move: mean length of the second difference over that of the first.

    A straight, even motion scores 0; noise that is new in every frame about 1.7; a smooth motion of frequency f (turns
    per frame) about 2 pi f. Depends on the frame rate, so compare clips of one.

    Args:
      tracks: [T,P,3] positions at equal steps of time, T at least 3.

    Returns:
      [] >= 0; 0 for points that rest.
    """
    first = jnp.diff(tracks, axis=0)
    speed = jnp.mean(jnp.linalg.norm(first, axis=-1))
    turn = jnp.mean(jnp.linalg.norm(jnp.diff(first, axis=0), axis=-1))
    return jnp.where(speed > 0, turn / jnp.maximum(speed, 1e-30), 0.0)


@jax.jit
def trajectory_distance(first: Array, last: Array) -> Array:
    """Mean distance between two motions of the same points, at the same times: [T,P,3] twice -> [] world units."""
    chex.assert_equal_shape([first, last])
    return jnp.mean(jnp.linalg.norm(first - last, axis=-1))


def path_evenness(motions: Array) -> Array:
    """Whether motions along a path change evenly: largest step between successive ones over the mean step.

    Args:
      motions: [S,T,P,3] of S codes at equal shares of a path.

    Returns:
      [] at least 1 where anything changes (1: all steps alike; S - 1: one jump); 0 where all are the same.
    """
    steps = jax.vmap(trajectory_distance)(motions[:-1], motions[1:])
    mean = jnp.mean(steps)
    return jnp.where(mean > 0, jnp.max(steps) / jnp.maximum(mean, 1e-30), 0.0)
