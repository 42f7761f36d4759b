"""Oriented bounding boxes and the paper's candidates from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.systems.atop.seen.course import Course, plane_of


@dataclass(frozen=True)
class Box:
    """An oriented box."""

    center: np.ndarray  # [3]
    axes: np.ndarray  # [3,3], rows unit and orthogonal
    extents: np.ndarray  # [3] whole lengths along the rows

    def origins(self) -> np.ndarray:
        """The centre and the middles of the six faces [7,3] (paper Sec. 4.3.2)."""
        arms = 0.5 * self.extents[:, None] * self.axes
        return np.concatenate([self.center[None], self.center + arms, self.center - arms])


def fit_box(points: np.ndarray) -> Box:
    """The box of least volume around points [P,3] that has a face in a plane of their convex hull.

    Flat or straight sets of points, which have no hull, get a box along their principal components.
    """
    try:
        hull = ConvexHull(points)
    except QhullError:
        return _enclose(points, np.linalg.svd(points - points.mean(0), full_matrices=False)[2])
    corners = points[hull.vertices]
    normals = np.unique(np.round(hull.equations[:, :3], 4), axis=0)
    boxes = [_enclose(corners, _turn_flat(corners, normal / np.linalg.norm(normal))) for normal in normals[:400]]
    return min(boxes, key=lambda box: float(np.prod(box.extents)))


def _turn_flat(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Axes [3,3] of the box with a face across `normal` and the least area along it, by angles of flat hull edges."""
    first, second = plane_of(normal)
    flat = points @ np.stack([first, second], axis=1)
    try:
        ring = flat[ConvexHull(flat).vertices]
    except QhullError:
        return np.stack([normal, first, second])
    edges = np.roll(ring, -1, axis=0) - ring
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    along = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=-1)
    areas = np.ptp(ring @ along.T, axis=0) * np.ptp(ring @ across.T, axis=0)
    best = np.argmin(areas)
    sides = np.stack([along[best], across[best]]) @ np.stack([first, second])
    return np.concatenate([normal[None], sides])


def _enclose(points: np.ndarray, axes: np.ndarray) -> Box:
    low, high = (points @ axes.T).min(0), (points @ axes.T).max(0)
    return Box(0.5 * (low + high) @ axes, axes, high - low)


def propose_lines(box: Box, num_frames: int) -> list[Course]:
    """The paper's candidates, both types, with values of zero.

    Its six signed directions are three lines here, whose values have a sign; the seven origins of a direction lie on
    five lines; where a part slides has no place.
    """
    rest = np.zeros(num_frames)
    lines = [Course(PRISMATIC, axis, box.center, rest) for axis in box.axes]
    for i, axis in enumerate(box.axes):
        origins = np.delete(box.origins(), [1 + i, 4 + i], axis=0)  # those lie on the line through the centre
        lines += [Course(REVOLUTE, axis, origin, rest) for origin in origins]
    return lines
