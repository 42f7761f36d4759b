"""Boxes around a shape and the directions that it is built along (NumPy, SciPy)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

_MOST_FACES = 60  # of a hull that the smallest box is tried on


@dataclass(frozen=True)
class Box:
    """A box that may be turned."""

    center: np.ndarray  # [3]
    axes: np.ndarray  # [3,3] unit rows, right-handed
    half: np.ndarray  # [3] half of its sizes along `axes`

    def corners(self) -> np.ndarray:
        """Its eight corners [8,3]."""
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T
        return self.center + (signs * self.half) @ self.axes


def box_along(points: np.ndarray, axes: np.ndarray) -> Box:
    """The box around points [P,3] with the given directions [3,3]."""
    along = points @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    return Box((low + high) / 2 @ axes, axes, (high - low) / 2)


def principal_axes(points: np.ndarray) -> np.ndarray:
    """Right-handed unit rows [3,3] of the principal axes of points [P,3] that are spread evenly, longest first."""
    axes = np.linalg.eigh(np.cov(points.T))[1][:, ::-1].T
    return right_handed(axes)


def right_handed(axes: np.ndarray) -> np.ndarray:
    """The frame [3,3] with its last row turned where it is left-handed."""
    return axes * np.array([1.0, 1.0, np.sign(np.linalg.det(axes)) or 1.0])[:, None]


def smallest_box(points: np.ndarray) -> Box:
    """The box of least volume among those with a side on a face of the convex hull of points [P,3].

    A flat or degenerate set of points gets the box of its principal axes.
    """
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):
        return box_along(points, principal_axes(points))
    tips = points[hull.vertices]
    normals = _most_frequent(hull.equations[:, :3], _hull_areas(points, hull))
    best: Box | None = None
    for normal in normals:
        axes = frame_around(normal)
        flat = tips @ axes[:2].T
        turn = _smallest_rectangle(flat)
        box = box_along(tips, right_handed(np.vstack([turn @ axes[:2], normal])))
        if best is None or box.half.prod() < best.half.prod():
            best = box
    return best if best is not None else box_along(points, principal_axes(points))


def _hull_areas(points: np.ndarray, hull: ConvexHull) -> np.ndarray:
    corners = points[hull.simplices]
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def _most_frequent(normals: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Different directions among unit normals, up to sign, the largest areas first."""
    keys = np.round(normals * np.sign(normals[np.arange(len(normals)), np.abs(normals).argmax(1)])[:, None], 3)
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(-np.bincount(which.reshape(-1), areas))[:_MOST_FACES]
    return normals[first[order]]


def _smallest_rectangle(flat: np.ndarray) -> np.ndarray:
    """The rotation [2,2], rows, to the axes of the least rectangle around points [P,2]."""
    try:
        ring = flat[ConvexHull(flat).vertices]
    except (QhullError, ValueError):
        return np.eye(2)
    edges = np.roll(ring, -1, axis=0) - ring
    angles = np.unique(np.round(np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2), 6))
    turns = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], axis=1).reshape(-1, 2, 2)
    along = np.einsum("aij,pj->api", turns, ring)
    return turns[np.ptp(along, axis=1).prod(axis=1).argmin()]


def frame_around(direction: np.ndarray) -> np.ndarray:
    """Any right-handed frame [3,3] whose last row is the unit vector `direction` [3]."""
    least = np.eye(3)[np.abs(direction).argmin()]
    first = np.cross(direction, least)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first), direction])


def face_frame(normals: np.ndarray, weights: np.ndarray, *, width: float = 0.04) -> tuple[np.ndarray, float]:
    """The right-angled frame that most of a surface is parallel to.

    Args:
      normals: [F,3] unit normals.
      weights: [F] areas.
      width: sine of the angle within which normals count as one direction.

    Returns:
      Frame [3,3], and the share of the area whose normals lie along one of its axes.
    """
    order = np.argsort(-weights)[:2000]
    normals, weights = normals[order], weights[order]
    near = np.abs(normals @ normals[:400].T) > np.sqrt(1 - width**2)
    votes = weights @ near
    first = _mean_direction(normals, weights, normals[votes.argmax()], width)
    across = np.abs(normals @ first) < width
    rest = np.where(across[:400], np.where(across, weights, 0.0) @ near, -1.0)
    if rest.max() <= 0:
        return frame_around(first)[::-1].copy(), float(weights[np.abs(normals @ first) > 1 - width**2].sum())
    second = _mean_direction(normals, np.where(across, weights, 0.0), normals[rest.argmax()], width)
    second -= (second @ first) * first
    second /= np.linalg.norm(second)
    frame = np.stack([first, second, np.cross(first, second)])
    along = (np.abs(normals @ frame.T) > np.sqrt(1 - width**2)).any(axis=1)
    return frame, float(weights[along].sum() / max(weights.sum(), 1e-30))


def _mean_direction(normals: np.ndarray, weights: np.ndarray, start: np.ndarray, width: float) -> np.ndarray:
    cosine = normals @ start
    chosen = np.abs(cosine) > np.sqrt(1 - width**2)
    mean = ((weights * np.sign(cosine))[chosen, None] * normals[chosen]).sum(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-30)
