"""Points in space from their pictures in several views: linear, by the best pair of views, and by least squares.

NumPy in float64, since normal equations of pixels and world units lose half of float32's digits. All functions work on
any number of points at once; a view whose weight is 0 or whose pixels are NaN does not see the point.
Source: Hartley and Zisserman, Multiple View Geometry, sections 12.2 and A6.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from dimo_jax.core.types import Camera

MAX_PAIRS = 28  # of views that are tried: all of eight


def project(points: np.ndarray, cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Where points lie in the pictures of V cameras.

    Args:
      points: [...,3] world.
      cameras: V of them, stacked.

    Returns:
      Pixels [V,...,2] and depths [V,...] (camera z), float64. Pixels of points that are not in front of a camera are
      NaN.
    """
    pixels, local = _project(np.asarray(points, np.float64), cameras)
    return np.where(local[..., 2:] > 0, pixels, np.nan), local[..., 2]


def _project(points: np.ndarray, cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
    poses = np.asarray(cameras.world_to_camera, np.float64)
    lead = (len(poses),) + (1,) * (points.ndim - 1)
    local = np.einsum("vij,...j->v...i", poses[:, :3, :3], points) + poses[:, :3, 3].reshape(*lead, 3)
    depth = np.where(np.abs(local[..., 2:]) > 1e-12, local[..., 2:], 1e-12)
    focal = np.asarray(cameras.focal, np.float64).reshape(*lead, 2)
    center = np.asarray(cameras.center, np.float64).reshape(*lead, 2)
    return local[..., :2] / depth * focal + center, local


def triangulate(pixels: np.ndarray, weights: np.ndarray, cameras: Camera) -> np.ndarray:
    """Points by linear least squares.

    Args:
      pixels: [V,...,2]; NaN where a view does not see the point.
      weights: [V,...], at least 0; a point needs two views above 0.
      cameras: V of them, stacked.

    Returns:
      [...,3] float64; NaN where fewer than two views see a point.
    """
    poses = np.asarray(cameras.world_to_camera, np.float64)
    focal, center = np.asarray(cameras.focal, np.float64), np.asarray(cameras.center, np.float64)
    lead = (len(poses),) + (1,) * (pixels.ndim - 2)
    known = np.isfinite(pixels).all(axis=-1)
    # zeros, since a weight of 0 times NaN is NaN
    rays = (np.where(known[..., None], pixels, 0.0) - center.reshape(*lead, 2)) / focal.reshape(*lead, 2)
    # x (r3 X + t3) - (r1 X + t1) = 0, twice a view
    rotation, shift = poses[:, :3, :3], poses[:, :3, 3]
    third = rotation[:, 2].reshape(*lead, 1, 3)
    rows = rays[..., None] * third - rotation[:, :2].reshape(*lead, 2, 3)
    bounds = shift[:, :2].reshape(*lead, 2) - rays * shift[:, 2].reshape(*lead, 1)
    seen = np.where(known, weights, 0.0)
    normal = np.einsum("v...,v...ai,v...aj->...ij", seen, rows, rows)
    right = np.einsum("v...,v...ai,v...a->...i", seen, rows, bounds)
    enough = (seen > 0).sum(axis=0) >= 2
    solvable = np.where(enough[..., None, None], normal, np.eye(3))
    solvable = solvable + 1e-12 * np.trace(solvable, axis1=-2, axis2=-1)[..., None, None] * np.eye(3)
    points = np.linalg.solve(solvable, right[..., None])[..., 0]
    return np.where(enough[..., None], points, np.nan)


def triangulate_by_pairs(pixels: np.ndarray, weights: np.ndarray, cameras: Camera, *, tolerance: float) -> np.ndarray:
    """Points by the pair of views that most others agree with, so that views that are wrong do no harm.

    Args:
      pixels, weights, cameras: of `triangulate`.
      tolerance: pixels within which a view agrees.

    Returns:
      [...,3] float64: `triangulate` of the views that agree with the best pair, NaN where fewer than two views see a
      point. Agreement counts by weight, and smaller distances count more.
    """
    best = np.full(pixels.shape[1:-1], -np.inf)
    agreed = np.zeros(weights.shape)
    for pair in _pairs(len(pixels)):
        chosen = np.zeros(weights.shape)
        chosen[list(pair)] = weights[list(pair)]
        points = triangulate(pixels, chosen, cameras)
        error = np.linalg.norm(project(points, cameras)[0] - pixels, axis=-1)
        agrees = np.where(error < tolerance, weights * (1 - (error / tolerance) ** 2), 0.0)
        score = np.where(np.isfinite(points).all(axis=-1), agrees.sum(axis=0), -np.inf)
        better = score > best
        best = np.where(better, score, best)
        agreed = np.where(better & (error < tolerance), weights, np.where(better, 0.0, agreed))
    return triangulate(pixels, agreed, cameras)


def _pairs(count: int) -> Sequence[tuple[int, ...]]:
    pairs = list(itertools.combinations(range(count), 2))
    return pairs[:: -(-len(pairs) // MAX_PAIRS)]


def reprojection_errors(points: np.ndarray, pixels: np.ndarray, cameras: Camera) -> np.ndarray:
    """Distance in pixels [V,...] between the projections of points [...,3] and `pixels` [V,...,2]; NaN where unseen."""
    return np.linalg.norm(project(points, cameras)[0] - pixels, axis=-1)


def project_with_slopes(points: np.ndarray, cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [V,...,2] of points [...,3] and their derivatives [V,...,2,3] by the points.

    A point behind a camera has the pixels of its mirror image, so that least squares can bring it back.
    """
    pixels, local = _project(points, cameras)
    lead = (len(local),) + (1,) * (points.ndim - 1)
    depth = np.where(np.abs(local[..., 2]) > 1e-12, local[..., 2], 1e-12)[..., None, None]
    rotation = np.asarray(cameras.world_to_camera, np.float64)[:, :3, :3].reshape(*lead, 3, 3)
    focal = np.asarray(cameras.focal, np.float64).reshape(*lead, 2, 1)
    slopes = (rotation[..., :2, :] - local[..., :2, None] / depth * rotation[..., 2:, :]) / depth * focal
    return pixels, slopes
