"""Rotations of files, in the precision that they come in: NumPy, where `quaternion` is JAX in float32."""

from __future__ import annotations

import numpy as np


def to_matrix(quats: np.ndarray) -> np.ndarray:
    """Rotation matrices [...,3,3] of unit quaternions [...,4] wxyz."""
    w, x, y, z = np.moveaxis(quats, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products [...,4] of quaternions wxyz: the rotation that applies b first, then a."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    parts = [
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ]
    return np.stack(parts, axis=-1)


def from_matrix(rotation: np.ndarray) -> np.ndarray:
    """The unit quaternion [4] wxyz of a rotation [3,3], w not negative, as an eigenvector (Bar-Itzhack 2000)."""
    m = np.asarray(rotation, np.float64)
    k = np.empty((4, 4))
    k[0, 0], k[1:, 1:] = np.trace(m), m + m.T - np.trace(m) * np.eye(3)
    k[0, 1:] = k[1:, 0] = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
    quat: np.ndarray = np.linalg.eigh(k)[1][:, -1]
    return quat if quat[0] >= 0 else -quat


def keep_sign(quats: np.ndarray) -> np.ndarray:
    """Quaternions [T,...,4] with signs such that neighbours in time lie on one hemisphere, so that they interpolate."""
    if len(quats) < 2:
        return quats
    dots = (quats[1:] * quats[:-1]).sum(axis=-1)
    signs = np.concatenate([np.ones_like(dots[:1]), np.cumprod(np.where(dots < 0, -1.0, 1.0), axis=0)])
    return (quats * signs[..., None]).astype(quats.dtype)
