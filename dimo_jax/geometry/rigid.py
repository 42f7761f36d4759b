"""Rigid motions, SE(3), as a pair of rotation q [...,4] (wxyz) and translation t [...,3]: x -> rotate(q, x) + t.

Rotations need not be unit on the way in; they are unit on the way out. Leading axes broadcast.
"""

from __future__ import annotations

import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.geometry import quaternion, safe


def apply(q: Array, t: Array, x: Array) -> Array:
    """Moves points x [...,3]: rotate(q, x) + t."""
    return quaternion.rotate(q, x) + t


def compose(qa: Array, ta: Array, qb: Array, tb: Array) -> tuple[Array, Array]:
    """The motion that applies b first, then a: unit rotation [...,4] and translation [...,3]."""
    q = quaternion.multiply(quaternion.normalize(qa), quaternion.normalize(qb))
    return quaternion.normalize(q), apply(qa, ta, tb)


def invert(q: Array, t: Array) -> tuple[Array, Array]:
    """The motion that undoes (q, t): unit rotation [...,4] and translation [...,3]."""
    inverse = quaternion.conjugate(quaternion.normalize(q))
    return inverse, -quaternion.rotate(inverse, t)


def to_dual_quaternion(q: Array, t: Array) -> Array:
    """Unit dual quaternions [...,8] of rigid motions: the real part r = q, then the dual part (0, t) r / 2.

    Source: Kavan et al., Geometric Skinning with Approximate Dual Quaternion Blending, 2008.
    """
    real = quaternion.normalize(q)
    translation = jnp.concatenate([jnp.zeros_like(t[..., :1]), t], axis=-1)
    dual = 0.5 * quaternion.multiply(translation, real)
    return jnp.concatenate([jnp.broadcast_to(real, dual.shape), dual], axis=-1)


def from_dual_quaternion(dual_quaternion: Array) -> tuple[Array, Array]:
    """Rigid motions of dual quaternions [...,8] with a non-zero real part, unit or blended.

    A blend of unit dual quaternions is normalized as a dual number (Kavan et al. 2008), which amounts to dividing both
    parts by the real part's length and leaving out the scalar part of the translation.

    Returns:
      Unit rotation [...,4] and translation [...,3]. A zero real part gives the identity rotation and no translation.
    """
    real, dual = dual_quaternion[..., :4], dual_quaternion[..., 4:]
    rotation = quaternion.normalize(real)
    dual = safe.safe_divide(dual, safe.safe_norm(real, keepdims=True))
    return rotation, 2.0 * quaternion.multiply(dual, quaternion.conjugate(rotation))[..., 1:]


def to_matrix(q: Array, t: Array) -> Array:
    """Homogeneous matrices [...,4,4] of rigid motions."""
    rotation = quaternion.to_matrix(q)
    batch = jnp.broadcast_shapes(rotation.shape[:-2], t.shape[:-1])
    rotation = jnp.broadcast_to(rotation, (*batch, 3, 3))
    return _homogeneous(rotation, jnp.broadcast_to(t, (*batch, 3)))


def from_matrix(matrix: Array) -> tuple[Array, Array]:
    """Unit rotation [...,4] with w >= 0 and translation [...,3] of rigid matrices [...,4,4] (no scale, no shear)."""
    return quaternion.from_matrix(matrix[..., :3, :3]), matrix[..., :3, 3]


def _homogeneous(rotation: Array, translation: Array) -> Array:
    """[...,3,3] and [...,3] -> [...,4,4]."""
    top = jnp.concatenate([rotation, translation[..., None]], axis=-1)
    bottom = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], top.dtype), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)
