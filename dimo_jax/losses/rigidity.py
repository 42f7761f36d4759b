"""What guides the key points' motion: as rigid as possible, near the first stage's trajectories, turned where found."""

from __future__ import annotations

import chex
import jax.numpy as jnp
from jax import lax

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.geometry import quaternion
from dimo_jax.geometry.neighbors import nearest
from dimo_jax.geometry.safe import safe_norm, safe_sqrt


def arap(positions_a: Array, positions_b: Array, edges: Array, weights: Array, *, reduction: str = "sum") -> Array:
    """As-rigid-as-possible motion between two times: neighbours keep their distances (Eq. 9, its summand over t).

        sum_k sum_{j in edges_k} w_kj | |a_k - a_j| - |b_k - b_j| |

    A time pair per call; `vmap` for several. Zero for every rigid motion (and reflection) of the whole. Gradients reach
    both positions and the weights; stop the weights' gradient where radii must not learn to loosen their own edges.
    It is zero for a pair of coincident points. An edge of a point to itself adds nothing.

    Args:
      positions_a: [K,3] key points at time t, world units.
      positions_b: [K,3] the same key points at time t + dt.
      edges: [K,J] int, neighbours of each key point (Eq. 3).
      weights: [K,J] influence of each neighbour (Eq. 1).
      reduction: over k: "sum" (the paper's) or "mean". Over j it is always the sum.

    Returns:
      [] world units.

    Raises:
      UserError: an unknown reduction.
    """
    _check_edges(positions_a, positions_b, edges, weights)
    before = safe_norm(_edge_vectors(positions_a, edges))
    after = safe_norm(_edge_vectors(positions_b, edges))
    return _reduce(jnp.sum(weights * jnp.abs(before - after), axis=-1), reduction, "arap")


def arap_rigid(
    positions_a: Array,
    positions_b: Array,
    edges: Array,
    weights: Array,
    *,
    radius: float | None = None,
    reduction: str = "sum",
) -> Array:
    """As-rigid-as-possible energy of Sorkine and Alexa (2007), the form that the authors' code uses for Eq. 9.

        sum_k min_{R_k} sum_{j in edges_k} w_kj | (b_j - b_k) - R_k (a_j - a_k) |^2,   R_k a rotation

    The best rotation comes from a singular value decomposition and is held constant in the gradient. That is exact, by
    the envelope theorem: at the minimum over R_k the energy does not change to first order with R_k. So no derivative
    of the decomposition is taken, which is infinite at equal singular values.

    Args:
      positions_a: [K,3] canonical key points, world units.
      positions_b: [K,3] the same key points at one time.
      edges: [K,J] int, neighbours of each key point (the authors': 10).
      weights: [K,J] influence of each neighbour.
      radius: neighbours farther than this in positions_a do not count (the authors': 0.1); None counts all.
      reduction: over k: "sum" or "mean". Over j it is always the sum.

    Returns:
      [] squared world units.

    Raises:
      UserError: an unknown reduction.
    """
    _check_edges(positions_a, positions_b, edges, weights)
    before, after = _edge_vectors(positions_a, edges), _edge_vectors(positions_b, edges)
    if radius is not None:
        weights = jnp.where(lax.stop_gradient(safe_norm(before)) <= radius, weights, 0.0)
    rotations = _fit_rotations(*lax.stop_gradient((before, after, weights)))
    rotated = jnp.einsum("kab,kjb->kja", rotations, before, precision=lax.Precision.HIGHEST)
    residuals = jnp.sum((after - rotated) ** 2, axis=-1)
    return _reduce(jnp.sum(weights * residuals, axis=-1), reduction, "arap_rigid")


def chamfer(
    a: Array,
    b: Array,
    *,
    one_way: bool = True,
    squared: bool = True,
    reduction: str = "sum",
    block_size: int = 4096,
) -> Array:
    """Chamfer distance between point sets: for each point of `a`, the distance to the nearest point of `b`.

    L_chamfer of the paper's second stage, with `a` the present key points and `b` the first stage's at the same motion
    and time (`vmap` over times), or with whole trajectories as points of 3T dimensions. The authors' way is one-way,
    squared and summed.

    Args:
      a: [P,D].
      b: [Q,D].
      one_way: only from a to b; otherwise the distances from b to a are added.
      squared: squared distances; otherwise plain ones, whose gradient is zero at distance zero.
      reduction: "sum" or "mean" over the points of each direction.
      block_size: points handled at once; memory is block_size x the other set.

    Returns:
      [] world units, squared or not. Gradients reach both sets; the choice of the nearest point carries none.

    Raises:
      UserError: an unknown reduction.
    """
    total = _one_way(a, b, squared=squared, reduction=reduction, block_size=block_size)
    if not one_way:
        total += _one_way(b, a, squared=squared, reduction=reduction, block_size=block_size)
    return total


def embedded(positions_a: Array, positions_b: Array, rotations: Array, edges: Array, weights: Array) -> Array:
    """How well each control point's own rotation explains how its neighbours moved (Sumner et al. 2007; our addition).

        mean_k sum_{j in edges_k} w_kj | (b_j - b_k) - R_k (a_j - a_k) |^2

    `arap_rigid` with the model's R_k in the place of the best one.

    Args:
      positions_a: [K,3] canonical control points, world units.
      positions_b: [K,3] the same control points at one time.
      rotations: [K,4] wxyz of that time, not normalized.
      edges: [K,J] int, neighbours of each control point.
      weights: [K,J] influence of each neighbour.

    Returns:
      [] squared world units.
    """
    _check_edges(positions_a, positions_b, edges, weights)
    before, after = _edge_vectors(positions_a, edges), _edge_vectors(positions_b, edges)
    apart = after - quaternion.rotate(quaternion.normalize(rotations)[:, None], before)
    return jnp.mean(jnp.sum(weights * jnp.sum(apart**2, axis=-1), axis=-1))


def turn(controls: Array, canonical: Array, alive: Array, rotation: Array, shift: Array) -> Array:
    """Mean squared distance of a pose from the canonical one, turned and shifted as a whole (our addition).

    Args:
      controls: [P,3] control points at one time, world units.
      canonical: [P,3] the same points; carries no gradient.
      alive: [P] bool, the points that count.
      rotation: [4] wxyz, unit.
      shift: [3] world units, after the rotation.

    Returns:
      [] squared world units.
    """
    told = quaternion.rotate(rotation[None], lax.stop_gradient(canonical)) + shift
    apart = jnp.sum((controls - told) ** 2, axis=-1)
    return jnp.sum(jnp.where(alive, apart, 0.0)) / jnp.maximum(jnp.sum(alive), 1)


def _one_way(a: Array, b: Array, *, squared: bool, reduction: str, block_size: int) -> Array:
    _, distances = nearest(a, b, num_neighbors=1, block_size=block_size)
    distances = distances[:, 0]
    return _reduce(distances if squared else safe_sqrt(distances), reduction, "chamfer")


def _edge_vectors(positions: Array, edges: Array) -> Array:
    """[K,J,3] from each key point to its neighbours."""
    return positions[edges] - positions[:, None, :]


def _fit_rotations(before: Array, after: Array, weights: Array) -> Array:
    """[K,3,3] rotations that best turn each key point's edges [K,J,3] before into those after (Kabsch)."""
    covariance = jnp.einsum("kj,kja,kjb->kab", weights, after, before, precision=lax.Precision.HIGHEST)
    left, _, right = jnp.linalg.svd(covariance)
    # Turning the direction of the least singular value where the product would be a reflection. Written out, because
    # with `jnp.linalg.det` and a column multiplied in place jax 0.10.2 made determinants of 0.2 of one motion on a CPU.
    whole = jnp.einsum("kab,kbc->kac", left, right, precision=lax.Precision.HIGHEST)
    determinant = jnp.sum(jnp.cross(whole[:, 0], whole[:, 1]) * whole[:, 2], axis=-1)
    least = left[:, :, 2, None] * right[:, None, 2, :]
    return jnp.where(determinant[:, None, None] < 0, whole - 2 * least, whole)


def _check_edges(positions_a: Array, positions_b: Array, edges: Array, weights: Array) -> None:
    chex.assert_equal_shape([positions_a, positions_b])
    chex.assert_shape(positions_a, (None, 3))
    chex.assert_equal_shape([edges, weights])
    chex.assert_shape(edges, (positions_a.shape[0], None))


def _reduce(values: Array, reduction: str, name: str) -> Array:
    if reduction == "sum":
        return jnp.sum(values)
    if reduction == "mean":
        return jnp.mean(values)
    raise UserError(f"{name} reduction: found {reduction!r}, expected 'sum' or 'mean'")
