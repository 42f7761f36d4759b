"""Canonical Gaussians where a motion puts them."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from dimo_jax.core.types import Array, Gaussians
from dimo_jax.geometry import harmonics, quaternion


def pose(gaussians: Gaussians, means: Array, quats: Array, *, light: Array | None = None) -> Gaussians:
    """Canonical Gaussians where a motion puts them, their colours turned with them.

    Args:
      gaussians: N canonical Gaussians.
      means, quats: [N,3] and [N,4] posed; what a Gaussian's own axes turned by, turns what it shows to each side.
      light: [3] towards a light that stands still, any length above 0: colours then change as the Gaussians turn under
        it and are alike from everywhere; their harmonics are over directions of light, not of view.

    Returns:
      N Gaussians, of degree 0 with a light. Colours of degree 0 are not touched.
    """
    sh = gaussians.sh
    if harmonics.degree_of(sh) > 0:
        turned_by = quaternion.multiply(
            quaternion.normalize(quats), quaternion.conjugate(quaternion.normalize(gaussians.quats))
        )
        sh = harmonics.rotate(sh, turned_by) if light is None else _receive(sh, turned_by, light)
    return gaussians.replace(means=means, quats=quats, sh=sh)


def rest(gaussians: Gaussians, light: Array | None) -> Gaussians:
    """Canonical Gaussians as they look where no motion turns them: of degree 0 with a light, else as they are."""
    return gaussians if light is None else pose(gaussians, gaussians.means, gaussians.quats, light=light)


def _receive(sh: Array, turned_by: Array, light: Array) -> Array:
    """Coefficients [N,1,3] of what a light shows of harmonics [N,(degree+1)^2,3] that turned by quaternions [N,4]."""
    light = light / jnp.linalg.norm(light)
    matrices = quaternion.to_matrix(turned_by)
    # R^T l, written out: accelerators round the inputs of a float32 product.
    local = functools.reduce(jnp.add, [matrices[..., i, :] * light[i] for i in range(3)])
    return harmonics.evaluate(sh, local)[..., None, :] / harmonics.DEGREE0
