"""Canonical Gaussians where a motion puts them."""

from __future__ import annotations

import jax.numpy as jnp

from dimo_jax.core.types import Array, Gaussians
from dimo_jax.geometry import harmonics, quaternion


def pose(gaussians: Gaussians, means: Array, quats: Array, *, light: Array | None = None) -> Gaussians:
    """Canonical Gaussians where a motion puts them, their colours turned with them.

    Args:
      gaussians: N canonical Gaussians.
      means, quats: [N,3] and [N,4] posed; what a Gaussian's own axes turned by, turns what it shows to each side.
      light: [3] towards a light that stands still, any length above 0: colours then change as the Gaussians turn under
        it and are alike from everywhere; their harmonics, of degree 1, are over directions of light, not of view.

    Returns:
      N Gaussians, of degree 0 with a light. Colours of degree 0 are not touched.
    """
    sh = gaussians.sh
    if light is not None:
        sh = _receive(sh, gaussians.quats, quats, light)
    elif harmonics.degree_of(sh) > 0:
        turned_by = quaternion.multiply(
            quaternion.normalize(quats), quaternion.conjugate(quaternion.normalize(gaussians.quats))
        )
        sh = harmonics.rotate(sh, turned_by)
    return gaussians.replace(means=means, quats=quats, sh=sh)


def rest(gaussians: Gaussians, light: Array | None) -> Gaussians:
    """Canonical Gaussians as they look where no motion turns them: of degree 0 with a light, else as they are."""
    return gaussians if light is None else pose(gaussians, gaussians.means, gaussians.quats, light=light)


def _receive(sh: Array, canonical: Array, posed: Array, light: Array) -> Array:
    """Coefficients [N,1,3] of what a light shows of harmonics [N,4,3] that go with axes, quaternions [N,4].

    Turned into the Gaussians' own axes first, once for all poses; then component by component, several times as fast.
    """
    own = harmonics.rotate(sh, quaternion.conjugate(quaternion.normalize(canonical)))
    a, b, c = light / jnp.linalg.norm(light)
    w, x, y, z = (posed[..., i] for i in range(4))
    twice = 2 / jnp.maximum(w * w + x * x + y * y + z * z, 1e-12)
    p, q, r = twice * (z * b - y * c), twice * (x * c - z * a), twice * (y * a - x * b)
    # Towards the light in the posed axes.
    a, b, c = a + w * p - y * r + z * q, b + w * q - z * p + x * r, c + w * r - x * q + y * p
    shade = own[..., 2, :] * c[..., None] - own[..., 1, :] * b[..., None] - own[..., 3, :] * a[..., None]
    return (own[..., 0, :] + harmonics.DEGREE1 / harmonics.DEGREE0 * shade)[..., None, :]
