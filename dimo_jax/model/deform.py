"""Linear blend skinning by SE(3) poses (paper Eq. 7)."""

from __future__ import annotations

import jax.numpy as jnp

from dimo_jax.geometry import quaternion, rigid
from dimo_jax.types import Array


def linear_blend(
    means: Array, quats: Array, positions: Array, translations: Array, rotations: Array, weights: Array
) -> tuple[Array, Array]:
    """Eq. 7: mu^t = sum_k w_k [R_k (mu - p_k) + p_k + T_k], R^t = normalize(sum_k w_k q_k) R.

    The quaternions are brought into one hemisphere before the sum, so that q and -q blend alike.

    Args:
      means, quats: [N,3], [N,4] canonical.
      positions, translations: [N,J,3] canonical position p_k and translation T_k of each point's key points.
      rotations: [N,J,4] wxyz, need not be unit.
      weights: [N,J], summing to 1.

    Returns:
      means [N,3] and unit quats [N,4] at that time.
    """
    unit = quaternion.normalize(rotations)
    offsets = quaternion.rotate(unit, means[:, None] - positions)
    moved = jnp.sum(weights[..., None] * (offsets + positions + translations), axis=1)
    aligned = quaternion.align(unit, unit[:, :1])
    blended = quaternion.normalize(jnp.sum(weights[..., None] * aligned, axis=1))
    return moved, quaternion.normalize(quaternion.multiply(blended, quaternion.normalize(quats)))


def linear_blend_authors(
    means: Array, quats: Array, positions: Array, translations: Array, rotations: Array, weights: Array
) -> tuple[Array, Array]:
    """The authors' way: as `linear_blend`, but the blended quaternion is normalize((sum_k w_k q_k) q), signs as given."""
    unit = quaternion.normalize(rotations)
    offsets = quaternion.rotate(unit, means[:, None] - positions)
    moved = jnp.sum(weights[..., None] * (offsets + positions + translations), axis=1)
    blended = jnp.sum(weights[..., None] * unit, axis=1)
    return moved, quaternion.normalize(quaternion.multiply(blended, quats))


def dual_quaternion_blend(
    means: Array, quats: Array, positions: Array, translations: Array, rotations: Array, weights: Array
) -> tuple[Array, Array]:
    """Blends the poses as unit dual quaternions (Kavan et al. 2007): a rigid motion, without the volume loss of Eq. 7.

    Shapes as in `linear_blend`.
    """
    unit = quaternion.normalize(rotations)
    aligned = quaternion.align(unit, unit[:, :1])
    shifts = positions + translations - quaternion.rotate(aligned, positions)
    blended = jnp.sum(weights[..., None] * rigid.to_dual_quaternion(aligned, shifts), axis=1)
    rotation, shift = rigid.from_dual_quaternion(blended)
    moved = quaternion.rotate(rotation, means) + shift
    return moved, quaternion.normalize(quaternion.multiply(rotation, quaternion.normalize(quats)))
