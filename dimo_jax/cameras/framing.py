"""One scale and one centre that bring moving points into the pictures of all cameras.

A point p is placed at s (p - c). It lies inside the border of a picture when it is on the inner side of four planes
through the camera's eye, and each plane is a bound on the support of the points along the plane's normal. So a few
numbers a frame, `support`, are enough to frame any number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.core.types import Camera


@dataclass(frozen=True)
class Framing:
    """Source units to world units: points are placed at `scale * (points - center)`."""

    center: np.ndarray  # [3]
    scale: float

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Places points [...,3]."""
        return (points - self.center) * self.scale


def border_planes(cameras: Camera, *, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The planes that bound what all cameras see.

    Args:
      cameras: V views, stacked; the origin lies in front of each.
      margin: share of the picture's width and height that stays free at every border.

    Returns:
      Normals [4V,3] and offsets [4V]: a world point p is inside when normals @ p <= offsets.
    """
    poses = np.asarray(cameras.world_to_camera, np.float64)
    focal, center = np.asarray(cameras.focal, np.float64), np.asarray(cameras.center, np.float64)
    normals, offsets = [], []
    for axis, size in enumerate((cameras.width, cameras.height)):
        for sign, border in ((1, size * (1 - margin)), (-1, size * margin)):
            # sign * (focal x / z + center) <= sign * border, times z > 0
            reach = sign * (border - center[:, axis])
            normals.append(sign * focal[:, axis, None] * poses[:, axis, :3] - reach[:, None] * poses[:, 2, :3])
            offsets.append(reach * poses[:, 2, 3] - sign * focal[:, axis] * poses[:, axis, 3])
    return np.concatenate(normals), np.concatenate(offsets)


def support(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """The furthest reach of points [...,3] along each of `normals` [n,3] -> [n]."""
    return (points.reshape(-1, 3) @ normals.T).max(axis=0)


def fit_framing(reach: np.ndarray, normals: np.ndarray, offsets: np.ndarray, start: np.ndarray) -> Framing:
    """The largest scale, and a centre that allows it, at which all points stay inside all planes.

    The scale at a centre c is 1 / max_d((reach_d - normals_d c) / offsets_d); the maximum is convex and piecewise
    linear in c, and a descent along its subgradients with falling steps finds its least value to a fraction of a
    percent. Every centre on the way is valid, so the framing is exact and only its optimality approximate.

    Args:
      reach: [n] `support` of all points along the normals.
      normals: [n,3] from `border_planes`.
      offsets: [n] from `border_planes`, positive.
      start: [3] a first centre, such as the middle of the points' box.

    Raises:
      ValueError: the points have no extent, or a plane leaves the origin outside.
    """
    if (offsets <= 0).any():
        raise ValueError("a border plane has the origin on its outer side")
    rows, bounds = normals / offsets[:, None], reach / offsets

    def crowding(center: np.ndarray) -> np.ndarray:
        return bounds - rows @ center

    center = best = np.asarray(start, np.float64)
    least = crowding(center).max()
    if least <= 1e-12:
        raise ValueError("the points have no extent")
    extent = least * (offsets / np.linalg.norm(normals, axis=1)).max()  # half the points' size
    for step in range(2000):
        values = crowding(center)
        worst = int(values.argmax())
        if values[worst] < least:
            best, least = center, values[worst]
        direction = rows[worst] / np.linalg.norm(rows[worst])
        center = center + direction * extent * 0.1 / (1 + step) ** 0.75
    return Framing(best, float(1 / least))
