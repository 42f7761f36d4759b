"""Rotations as quaternions (w, x, y, z), Hamilton product, broadcasting over leading axes.

A rotation is any non-zero quaternion: functions that need a unit one normalize it themselves. q and -q are the same
rotation. Angles are radians.
"""

from __future__ import annotations

import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.geometry import safe

# Below these squares (of the angle, of the sine of half the angle) the series that replace sin(x)/x and atan(x)/x are
# exact to the last bit, in float64 too.
SMALL_ANGLE_SQUARED = 1e-4
SMALL_SINE_SQUARED = 1e-6


def identity(shape: tuple[int, ...] = ()) -> Array:
    """The rotation that does nothing, [*shape,4] float32."""
    return jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0, 0.0], jnp.float32), (*shape, 4))


def normalize(q: Array) -> Array:
    """Unit quaternions, [...,4]. The zero quaternion becomes the identity, with zero gradient."""
    unit = safe.safe_normalize(q)
    dead = jnp.all(unit == 0, axis=-1, keepdims=True)
    return jnp.where(dead, identity().astype(unit.dtype), unit)


def multiply(a: Array, b: Array) -> Array:
    """Hamilton product a b, [...,4]: the rotation that applies b first, then a. Norms multiply."""
    aw, ax, ay, az = _components(a)
    bw, bx, by, bz = _components(b)
    return jnp.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def conjugate(q: Array) -> Array:
    """(w, -x, -y, -z), [...,4]: the inverse rotation; the inverse quaternion too where q is unit."""
    return jnp.concatenate([q[..., :1], -q[..., 1:]], axis=-1)


def rotate(q: Array, v: Array) -> Array:
    """Rotates vectors v [...,3] by q [...,4], which need not be unit; leading axes broadcast."""
    unit = normalize(q)
    w, xyz = unit[..., :1], unit[..., 1:]
    # v + 2 w (xyz x v) + 2 xyz x (xyz x v): the sandwich product without its vanishing scalar part.
    twice = 2.0 * jnp.cross(xyz, v)
    return v + w * twice + jnp.cross(xyz, twice)


def to_matrix(q: Array) -> Array:
    """Rotation matrices [...,3,3] of q [...,4], which need not be unit."""
    w, x, y, z = _components(normalize(q))
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def from_matrix(matrix: Array) -> Array:
    """Unit quaternions [...,4] with w >= 0 of rotation matrices [...,3,3].

    Shepperd's method (J. Guidance and Control 1, 1978): of the four columns 4 q_i q that a rotation matrix gives
    without a square root, the longest is normalized. Well conditioned for every rotation, half turns included. Where
    the matrix is not orthonormal the result is the unit quaternion of that column, not the nearest rotation.
    """
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    x, y, z = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]
    columns = [
        [1 + m[0][0] + m[1][1] + m[2][2], x, y, z],
        [x, 1 + m[0][0] - m[1][1] - m[2][2], xy, xz],
        [y, xy, 1 - m[0][0] + m[1][1] - m[2][2], yz],
        [z, xz, yz, 1 - m[0][0] - m[1][1] + m[2][2]],
    ]
    largest = jnp.argmax(jnp.stack([columns[i][i] for i in range(4)], axis=-1), axis=-1)
    stacked = jnp.stack([jnp.stack(column, axis=-1) for column in columns], axis=-2)
    q = normalize(jnp.take_along_axis(stacked, largest[..., None, None], axis=-2)[..., 0, :])
    return jnp.where(q[..., :1] < 0, -q, q)


def from_axis_angle(v: Array) -> Array:
    """Unit quaternions [...,4] of rotation vectors v [...,3]: axis times angle in radians, any length."""
    squared = jnp.sum(jnp.square(jnp.clip(v, -1.0, 1.0)), axis=-1, keepdims=True)
    small = squared < SMALL_ANGLE_SQUARED
    # Each branch of a `where` gets harmless input where the other is taken: its gradient is computed all the same.
    turning = jnp.where(small, 1.0, v)
    half_angle = 0.5 * safe.safe_norm(turning, keepdims=True)
    squared = jnp.where(small, squared, 0.0)
    cosine = 1 - squared * (1 / 8 - squared * (1 / 384 - squared / 46080))
    xyz = (0.5 - squared * (1 / 48 - squared / 3840)) * jnp.where(small, v, 0.0)
    return jnp.concatenate(
        [
            jnp.where(small, cosine, jnp.cos(half_angle)),
            jnp.where(small, xyz, jnp.sin(half_angle) * safe.safe_normalize(turning)),
        ],
        axis=-1,
    )


def to_axis_angle(q: Array) -> Array:
    """Rotation vectors [...,3], axis times angle in radians, length in 0..pi, of q [...,4], which need not be unit.

    At a half turn both signs of the axis are right; the result follows the sign of q there.
    """
    unit = normalize(q)
    unit = jnp.where(unit[..., :1] < 0, -unit, unit)
    w, xyz = unit[..., :1], unit[..., 1:]
    small = jnp.sum(xyz * xyz, axis=-1, keepdims=True) < SMALL_SINE_SQUARED
    sine = safe.safe_norm(jnp.where(small, 1.0, xyz), keepdims=True)
    cosine = jnp.where(small, w, 1.0)
    tangent_squared = jnp.sum(jnp.square(jnp.where(small, xyz, 0.0) / cosine), axis=-1, keepdims=True)
    series = 2.0 / cosine * (1 - tangent_squared * (1 / 3 - tangent_squared / 5))
    return xyz * jnp.where(small, series, 2.0 * jnp.arctan2(sine, w) / sine)


def slerp(a: Array, b: Array, t: Array) -> Array:
    """Unit quaternions [...,4] on the shorter arc from a (t = 0) to b (t = 1), at constant angular speed.

    Args:
      a: [...,4], need not be unit; the result lies in its hemisphere near t = 0.
      b: [...,4], need not be unit; b and -b give the same arc.
      t: [...] or a number; values outside 0..1 extrapolate.
    """
    start = normalize(a)
    turn = to_axis_angle(multiply(conjugate(start), normalize(b)))
    return multiply(start, from_axis_angle(jnp.asarray(t, turn.dtype)[..., None] * turn))


def align(q: Array, reference: Array) -> Array:
    """q [...,4] or -q, whichever lies in the hemisphere of reference [...,4]; q where they are perpendicular."""
    return jnp.where(jnp.sum(q * reference, axis=-1, keepdims=True) < 0, -q, q)


def _components(q: Array) -> tuple[Array, Array, Array, Array]:
    return q[..., 0], q[..., 1], q[..., 2], q[..., 3]
