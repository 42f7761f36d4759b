"""Real spherical harmonics up to degree 3, in the order and signs that 3DGS files use.

Coefficients run over degree l, then order m = -l..l; the sign carries the Condon-Shortley phase (-1)^m, so that
degree 1 is (-y, z, -x).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dimo_jax.core.types import Array
from dimo_jax.geometry import quaternion

MAX_DEGREE = 3
DEGREE0 = 0.28209479177387814  # sqrt(1 / (4 pi))
DEGREE1 = math.sqrt(3 / (4 * math.pi))


def evaluate(sh: Array, directions: Array) -> Array:
    """Sum of coefficients times basis functions; the caller adds 0.5 and clamps to get a colour.

    Args:
      sh: [...,(degree+1)^2,C] coefficients, degree 0..3.
      directions: [...,3] unit vectors, from the viewer to the point; leading axes broadcast with those of `sh`.

    Returns:
      [...,C].

    Raises:
      ValueError: the number of coefficients is none of 1, 4, 9, 16.
    """
    values = basis(directions, degree=degree_of(sh))
    # A product and a sum, not a dot: accelerators round the inputs of a float32 dot.
    return jnp.sum(values[..., None] * sh, axis=-2)


def rotate(sh: Array, rotation: Array) -> Array:
    """Coefficients of the turned function: `evaluate(rotate(sh, q), q d)` is `evaluate(sh, d)`.

    A degree's functions turn among themselves, so a few values of the turned function tell its coefficients.

    Args:
      sh: [...,(degree+1)^2,C] coefficients, degree 0..3.
      rotation: [...,4] wxyz, need not be unit; leading axes broadcast with those of `sh`.

    Returns:
      Coefficients of the same degree; degree 0 has no direction and stays as it is. Differentiable in both.

    Raises:
      ValueError: the number of coefficients is none of 1, 4, 9, 16.
    """
    degree = degree_of(sh)
    if degree == 0:
        return sh
    matrices = quaternion.to_matrix(rotation)[..., None, :, :]
    shape = (*jnp.broadcast_shapes(sh.shape[:-2], rotation.shape[:-1]), *sh.shape[-2:])
    turned = [jnp.broadcast_to(sh, shape)[..., :1, :]]
    for band in range(1, degree + 1):
        directions, solve = _probe(band)
        # R^T d, written out: accelerators round the inputs of a float32 product.
        back = functools.reduce(jnp.add, [matrices[..., i, :] * directions[:, i, None] for i in range(3)])
        values = _band(back, band)[..., None] * sh[..., None, band**2 : (band + 1) ** 2, :]
        turned.append(jnp.matmul(solve, jnp.sum(values, axis=-2), precision=lax.Precision.HIGHEST))
    return jnp.concatenate(turned, axis=-2)


@functools.cache
def _probe(band: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions [S,3] over the sphere, and the matrix [2 band + 1, S] that makes coefficients of values there."""
    count = 2 * band + 3
    index = np.arange(count)
    z = 1 - (2 * index + 1) / count
    angle, ring = index * math.pi * (3 - math.sqrt(5)), np.sqrt(1 - z * z)
    directions = np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=-1).astype(np.float32)
    with jax.ensure_compile_time_eval():
        values = np.asarray(_band(jnp.asarray(directions), band), np.float64)
    return directions, np.linalg.pinv(values).astype(np.float32)


def _band(directions: Array, band: int) -> Array:
    """The basis functions [...,2 band + 1] of one degree."""
    return basis(directions, degree=band)[..., band**2 :]


def degree_of(sh: Array) -> int:
    """The degree of coefficients [...,(degree+1)^2,C], 0..3; ValueError where their number fits none."""
    count = sh.shape[-2] if sh.ndim >= 2 else 0
    for degree in range(MAX_DEGREE + 1):
        if count == (degree + 1) ** 2:
            return degree
    raise ValueError(f"spherical harmonics: found shape {sh.shape}, expected [..., 1 | 4 | 9 | 16, channels]")


def basis(directions: Array, *, degree: int) -> Array:
    """Values of the basis functions.

    Args:
      directions: [...,3] unit vectors.
      degree: 0..3.

    Returns:
      [...,(degree+1)^2]. Orthonormal over the sphere.

    Raises:
      ValueError: the degree is outside 0..3.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"spherical harmonics: found degree {degree}, expected 0..{MAX_DEGREE}")
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    values = [jnp.full_like(x, DEGREE0)]
    if degree >= 1:
        values += [-DEGREE1 * y, DEGREE1 * z, -DEGREE1 * x]
    if degree >= 2:
        values += _degree2(x, y, z)
    if degree >= 3:
        values += _degree3(x, y, z)
    return jnp.stack(values, axis=-1)


def from_rgb(rgb: Array) -> Array:
    """Degree 0 coefficients that give the colour rgb (0..1) from every side; any shape."""
    return (rgb - 0.5) / DEGREE0


def to_rgb(sh: Array) -> Array:
    """Colour of degree 0 coefficients, 0.5 + DEGREE0 * sh, not clamped; any shape."""
    return 0.5 + DEGREE0 * sh


def _degree2(x: Array, y: Array, z: Array) -> list[Array]:
    mixed, zonal, planar = (math.sqrt(n / (16 * math.pi)) for n in (60, 5, 15))
    return [
        mixed * x * y,
        -mixed * y * z,
        zonal * (2 * z * z - x * x - y * y),
        -mixed * x * z,
        planar * (x * x - y * y),
    ]


def _degree3(x: Array, y: Array, z: Array) -> list[Array]:
    sectoral, mixed, tilted, zonal, planar = (math.sqrt(n / (32 * math.pi)) for n in (35, 840, 21, 14, 210))
    ring = 4 * z * z - x * x - y * y
    return [
        -sectoral * y * (3 * x * x - y * y),
        mixed * x * y * z,
        -tilted * y * ring,
        zonal * z * (2 * z * z - 3 * x * x - 3 * y * y),
        -tilted * x * ring,
        planar * z * (x * x - y * y),
        -sectoral * x * (x * x - 3 * y * y),
    ]
