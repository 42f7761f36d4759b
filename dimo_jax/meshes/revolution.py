"""Surfaces of revolution: the line that all normals of a surface meet (NumPy)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Revolution(NamedTuple):
    """An axis that a surface may turn around without changing."""

    axis: np.ndarray  # [3] unit
    origin: np.ndarray  # [3] the point of the axis nearest to the surface's centroid
    residual: float  # root mean square of the sine between normals and the planes that hold the axis; 0: exact


def fit_center(points: np.ndarray, normals: np.ndarray, axis: np.ndarray) -> Revolution | None:
    """The best axis of a given direction: least squares on n . (d x (x - c)) = 0, reweighted to leave outliers out.

    Args:
      points: [N,3] spread evenly over the surface.
      normals: [N,3] unit.
      axis: [3] unit.

    Returns:
      None where the surface does not settle it: normals that all lie along the axis or in one plane with it.
    """
    sideways = np.cross(normals, axis)  # n . (d x c) = c . (n x d)
    size = np.linalg.norm(sideways, axis=1)
    mean = points.mean(axis=0)
    right = np.einsum("nd,nd->n", sideways, points - mean)
    weights = np.where(size > 0.05, 1.0, 0.0)
    if weights.sum() < 12:
        return None
    scale = max(float(np.sqrt(((points - mean) ** 2).sum(axis=1).mean())), 1e-30)
    center = np.zeros(3)
    for _ in range(4):
        matrix = np.einsum("n,ni,nj->ij", weights, sideways, sideways)
        values, vectors = np.linalg.eigh(matrix)
        if values[1] < 0.02 * max(values[2], 1e-30):  # the least is that of the axis itself
            return None
        target = (weights * right) @ sideways
        center = sum(((vectors[:, k] @ target) / values[k]) * vectors[:, k] for k in (1, 2))
        error = np.abs(sideways @ center - right) / scale
        weights = np.where(size > 0.05, 1 / (1 + (error / 0.05) ** 2), 0.0)
    foot = mean + center
    return Revolution(axis, foot, revolution_residual(points, normals, axis, foot))


def revolution_residual(points: np.ndarray, normals: np.ndarray, axis: np.ndarray, origin: np.ndarray) -> float:
    """Root mean square of n . t, t the direction in which each point would turn; 0 for a surface of revolution."""
    travel = np.cross(axis, points - origin)
    length = np.linalg.norm(travel, axis=1)
    reach = max(float(length.max(initial=0.0)), 1e-30)
    keep = length > 0.05 * reach
    if keep.sum() < 8:
        return 1.0
    sine = np.einsum("nd,nd->n", normals[keep], travel[keep]) / length[keep]
    return float(np.sqrt(np.average(sine**2, weights=length[keep])))


def fit_revolution(points: np.ndarray, normals: np.ndarray) -> Revolution | None:
    """The best axis of any direction: the linear complex of the normals' lines (Pottmann and Wallner 2001, ch. 3).

    Returns None where several axes fit alike: planes, spheres, and prisms without turn.
    """
    mean = points.mean(axis=0)
    scale = max(float(np.sqrt(((points - mean) ** 2).sum(axis=1).mean())), 1e-30)
    local = (points - mean) / scale
    rows = np.concatenate([np.cross(local, normals), normals], axis=1)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    if values[1] < 0.01 or values[0] > 0.1 * values[1]:
        return None
    turn, drift = vectors[:3, 0], vectors[3:, 0]
    length = float(np.linalg.norm(turn))
    if length < 0.2:
        return None  # a sliding motion, not a turn
    axis = turn / length
    pitch = float(turn @ drift) / length**2
    if abs(pitch) > 0.1:
        return None
    origin = mean + scale * np.cross(turn, drift) / length**2
    return Revolution(axis, origin, revolution_residual(points, normals, axis, origin))
