"""Mirror planes of a shape that is given as points spread evenly over its surface (NumPy, SciPy)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree


class Mirror(NamedTuple):
    """A plane that a shape is nearly symmetric about."""

    normal: np.ndarray  # [3] unit
    center: np.ndarray  # [3] a point of the plane
    residual: float  # mean distance of mirrored points from the shape, over its root mean square size


def mirror_residual(tree: cKDTree, points: np.ndarray, normal: np.ndarray, center: np.ndarray) -> float:
    """Mean distance of mirrored points [N,3] from those of `tree`, less their spacing, over the shape's size."""
    size = float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))
    off = tree.query(reflect(points, normal, center))[0]
    spacing = float(np.median(tree.query(tree.data[::8], k=2)[0][:, 1]))
    return float(np.maximum(off - spacing, 0).mean() / max(size, 1e-30))


def reflect(points: np.ndarray, normal: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Points [N,3] mirrored by the plane through `center` with unit `normal`."""
    return points - 2 * ((points - center) @ normal)[:, None] * normal


def find_mirrors(points: np.ndarray, *, rounds: int = 12, largest: float = 0.1, between: bool = False) -> list[Mirror]:
    """Mirror planes near the principal axes: each is refined between points and their nearest mirrored partners.

    Args:
      points: [N,3] spread evenly over the surface.
      rounds: of matching and refitting.
      largest: residual up to which a plane is returned.
      between: whether to look halfway between two principal axes too.

    Returns:
      The planes, the best first; different starts that end alike give one.
    """
    tree, few = cKDTree(points), points[:: max(1, len(points) // 500)]
    found: list[Mirror] = []
    axes = np.linalg.eigh(np.cov(points.T))[1].T
    halfway = [(axes[i] + sign * axes[j]) / np.sqrt(2) for i, j in ((0, 1), (0, 2), (1, 2)) for sign in (1, -1)]
    for start in (*axes, *(halfway if between else ())):
        normal, center = start, points.mean(axis=0)
        for _ in range(rounds):
            partner = points[tree.query(reflect(few, normal, center))[1]]
            away = few - partner
            moment = away.T @ away
            normal = np.linalg.eigh(moment)[1][:, -1] if moment.trace() > 1e-18 else normal
            center = ((few + partner) / 2).mean(axis=0)
        residual = mirror_residual(tree, few, normal, center)
        if residual < largest:
            found.append(Mirror(normal, center, residual))
    kept: list[Mirror] = []
    for mirror in sorted(found, key=lambda mirror: mirror.residual):
        if all(abs(mirror.normal @ other.normal) < 0.995 for other in kept):
            kept.append(mirror)
    return kept
