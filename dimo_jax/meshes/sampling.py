"""Points on triangle meshes, spread evenly over their area (NumPy)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Samples:
    """Points on a surface."""

    points: np.ndarray  # [N,3]
    normals: np.ndarray  # [N,3] unit, of the triangles, by the right hand rule of their corners
    triangles: np.ndarray  # [N] which triangle each lies on


def triangle_areas(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas [F] and unit normals [F,3] (zero where a triangle has no area) of triangles [F,3,3]."""
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(cross, axis=1)
    return length / 2, cross / np.where(length > 0, length, 1.0)[:, None]


def sample_surface(corners: np.ndarray, count: int, *, seed: int = 0) -> Samples:
    """`count` points on triangles [F,3,3]: evenly spaced along the running sum of areas, at random inside a triangle.

    Raises:
      ValueError: the triangles have no area.
    """
    areas, normals = triangle_areas(corners)
    total = np.cumsum(areas)
    if not len(total) or not np.isfinite(total[-1]) or total[-1] <= 0:
        raise ValueError("the triangles have no area")
    rng = np.random.default_rng(seed)
    places = (np.arange(count) + rng.random(count)) / count * total[-1]
    chosen = np.minimum(np.searchsorted(total, places, side="right"), len(areas) - 1)
    root, other = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - root, root * (1 - other), root * other], axis=1)
    points = np.einsum("nk,nkd->nd", weights, corners[chosen])
    return Samples(points, normals[chosen], chosen)
