"""Pose maps: pictures of a skeleton, a disc of its own colour at every marker and a line to the one above it.

After AnimaX (Sec. 3.2), with three departures. Lines are grey, thin and behind all discs, so that nothing but another
disc hides a disc. Discs have the same radius at any distance, so that the middle of a disc is the marker's projection.
What is drawn are markers (`rigs.pose_markers`), not all joints.
"""

from __future__ import annotations

import numpy as np

from dimo_jax.cameras.triangulation import project
from dimo_jax.core.types import Camera
from dimo_jax.rigs.palette import BACKGROUND, LINE

RADIUS = 1 / 110  # of a disc, by the picture's height
_THICKNESS = 1 / 320  # of a line, by the picture's height


def disc_radius(height: int) -> float:
    """Radius in pixels of the discs in a picture of some height."""
    return max(2.5, RADIUS * height)


def line_thickness(height: int) -> float:
    """Thickness in pixels of the lines in a picture of some height."""
    return max(1.0, _THICKNESS * height)


def disc_coverage(center: np.ndarray, radius: float, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Share of each pixel of a box that a disc covers -> [height,width], from the distance to its rim."""
    x = np.arange(left, left + width) + 0.5 - center[0]
    y = np.arange(top, top + height) + 0.5 - center[1]
    return np.clip(radius + 0.5 - np.sqrt(x[None] ** 2 + y[:, None] ** 2), 0, 1)


def _box(low: np.ndarray, high: np.ndarray, height: int, width: int) -> tuple[int, int, int, int] | None:
    """(left, top, width, height) of the pixels from `low` to `high` that are in the picture; None where none is."""
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    left, top = (int(max(np.floor(v), 0)) for v in low)
    right, bottom = int(min(np.ceil(high[0]), width)), int(min(np.ceil(high[1]), height))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def _blend(image: np.ndarray, box: tuple[int, int, int, int], coverage: np.ndarray, color: np.ndarray) -> None:
    left, top, width, height = box
    patch = image[top : top + height, left : left + width]
    patch += coverage[..., None].astype(image.dtype) * (color - patch)


def draw_lines(image: np.ndarray, pixels: np.ndarray, parents: np.ndarray, thickness: float) -> None:
    """Draws lines between markers [K,2] and their parents into `image` [H,W,3] float32 of 0..255, in place."""
    cover = np.zeros(image.shape[:2], np.float32)
    for index in np.flatnonzero(parents >= 0):
        first, second = pixels[index], pixels[parents[index]]
        if np.isfinite(first).all() and np.isfinite(second).all():
            _cover_line(cover, first, second, 0.5 * thickness)
    rows, columns = np.nonzero(cover)
    color = np.array(LINE, np.float32)
    image[rows, columns] += cover[rows, columns, None] * (color - image[rows, columns])


def _cover_line(cover: np.ndarray, a: np.ndarray, b: np.ndarray, half: float) -> None:
    """Raises the share of pixels that a line covers, in a band along the axis that it follows most."""
    along = b - a
    steep = abs(along[1]) > abs(along[0])
    if steep:
        cover, a, b, along = cover.T, a[::-1], b[::-1], along[::-1]
    low = int(max(np.floor(min(a[0], b[0]) - half - 0.5), 0))
    high = int(min(np.ceil(max(a[0], b[0]) + half + 0.5), cover.shape[1]))
    if high <= low:
        return
    columns = np.arange(low, high)
    slope = along[1] / along[0] if along[0] else 0.0
    middle = np.floor(a[1] + slope * (np.clip(columns + 0.5, min(a[0], b[0]), max(a[0], b[0])) - a[0])).astype(int)
    spread = int(np.ceil((half + 0.5) * 1.5)) + 1
    rows = middle[None] + np.arange(-spread, spread + 1)[:, None]
    columns = np.broadcast_to(columns, rows.shape)
    inside = (rows >= 0) & (rows < cover.shape[0])
    rows, columns = rows[inside], columns[inside]
    x, y = columns + 0.5 - a[0], rows + 0.5 - a[1]
    share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-12), 0, 1)
    coverage = np.clip(half + 0.5 - np.hypot(x - share * along[0], y - share * along[1]), 0, 1)
    cover[rows, columns] = np.maximum(cover[rows, columns], coverage)


def draw_discs(image: np.ndarray, pixels: np.ndarray, depths: np.ndarray, colors: np.ndarray, radius: float) -> None:
    """Draws discs into `image` [H,W,3] float32 of 0..255, in place, the furthest first."""
    height, width = image.shape[:2]
    for index in np.argsort(-depths, kind="stable"):
        box = _box(pixels[index] - radius - 1, pixels[index] + radius + 1, height, width)
        if box is not None and depths[index] > 0:
            _blend(image, box, disc_coverage(pixels[index], radius, *box), colors[index].astype(np.float32))


def draw_pose_map(
    pixels: np.ndarray, depths: np.ndarray, parents: np.ndarray, colors: np.ndarray, *, height: int, width: int
) -> np.ndarray:
    """One pose map.

    Args:
      pixels: [K,2] of the markers; NaN for one behind the camera.
      depths: [K] camera z.
      parents: [K] index of the marker that a line goes to; -1 for none.
      colors: [K,3] of 0..255.
      height, width: of the picture.

    Returns:
      [height,width,3] uint8.
    """
    image = np.empty((height, width, 3), np.float32)
    image[:] = BACKGROUND
    draw_lines(image, pixels, parents, line_thickness(height))
    draw_discs(image, pixels, depths, colors, disc_radius(height))
    return np.round(image).astype(np.uint8)


def draw_pose_maps(points: np.ndarray, cameras: Camera, parents: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Pose maps of moving markers.

    Args:
      points: [T,K,3] world.
      cameras: V of them, stacked.
      parents, colors: of `draw_pose_map`.

    Returns:
      [V,T,H,W,3] uint8.
    """
    pixels, depths = project(points, cameras)
    size = dict(height=cameras.height, width=cameras.width)
    return np.stack(
        [
            np.stack([draw_pose_map(p, d, parents, colors, **size) for p, d in zip(view, view_depths)])
            for view, view_depths in zip(pixels, depths)
        ]
    )
