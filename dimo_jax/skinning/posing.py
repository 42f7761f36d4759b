"""Canonical Gaussians where a motion puts them."""

from __future__ import annotations

from dimo_jax.core.types import Array, Gaussians
from dimo_jax.geometry import harmonics, quaternion


def pose(gaussians: Gaussians, means: Array, quats: Array) -> Gaussians:
    """Canonical Gaussians where a motion puts them, their colours turned with them.

    Args:
      gaussians: N canonical Gaussians.
      means, quats: [N,3] and [N,4] posed; what a Gaussian's own axes turned by, turns what it shows to each side.

    Returns:
      N Gaussians. Colours of degree 0, alike from everywhere, are not touched.
    """
    sh = gaussians.sh
    if harmonics.degree_of(sh) > 0:
        turned_by = quaternion.multiply(
            quaternion.normalize(quats), quaternion.conjugate(quaternion.normalize(gaussians.quats))
        )
        sh = harmonics.rotate(sh, turned_by)
    return gaussians.replace(means=means, quats=quats, sh=sh)
