"""Even points on a surface."""

from __future__ import annotations

import numpy as np

from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.systems.atop.seen.clouds import Surface


def sample_surface(thing: ObjectMesh, count: int, *, seed: int = 0) -> Surface:
    """Points drawn from a surface, in strata of equal area, in random order.

    Args:
      thing: with at least one triangle that has an area.
      count: how many points.
      seed: of the drawing.

    Raises:
      ValueError: the surface has no area.
    """
    rng = np.random.default_rng(seed)
    corners = thing.corners
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = 0.5 * np.linalg.norm(normals, axis=-1)
    total = float(areas.sum())
    if not total > 0:
        raise ValueError("the surface has no area")
    strata = (rng.permutation(count) + rng.random(count)) / count
    chosen = np.minimum(np.searchsorted(np.cumsum(areas) / total, strata), len(areas) - 1)
    u, v = rng.random((2, count, 1))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    a, b, c = corners[chosen].swapaxes(0, 1)
    points = a + u * (b - a) + v * (c - a)
    units = normals[chosen] / np.maximum(2 * areas[chosen], 1e-300)[:, None]
    return Surface(points, units, total)
