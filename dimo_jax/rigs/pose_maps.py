"""Pose maps: pictures of a skeleton, a disc of its own colour at every marker and a line to the one above it.

After AnimaX (Sec. 3.2), with three departures. Lines are grey, thin and behind all discs, so that nothing but another
disc hides a disc. Discs have the same radius at any distance, so that the middle of a disc is the marker's projection.
What is drawn are markers (`rigs.markers`), not all joints.
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


def disc_coverage(center: np.ndarray, radius: float, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Share of each pixel of a box that a disc covers -> [height,width], from the distance to its rim."""
    x = np.arange(left, left + width) + 0.5 - center[0]
    y = np.arange(top, top + height) + 0.5 - center[1]
    return np.clip(radius + 0.5 - np.sqrt(x[None] ** 2 + y[:, None] ** 2), 0, 1)


def _line_coverage(a: np.ndarray, b: np.ndarray, half: float, left: int, top: int, width: int, height: int) -> np.ndarray:
    x = (np.arange(left, left + width) + 0.5)[None] - a[0]
    y = (np.arange(top, top + height) + 0.5)[:, None] - a[1]
    along = b - a
    share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-12), 0, 1)
    distance = np.hypot(x - share * along[0], y - share * along[1])
    return np.clip(half + 0.5 - distance, 0, 1)


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


def draw_lines(image: np.ndarray, pixels: np.ndarray, parents: np.ndarray) -> None:
    """Draws lines between markers and their parents into `image` [H,W,3] float32 of 0..255, in place."""
    height, width = image.shape[:2]
    half = 0.5 * max(1.0, _THICKNESS * height)
    color = np.array(LINE, np.float32)
    for index, parent in enumerate(parents):
        if parent < 0:
            continue
        ends = pixels[[index, parent]]
        box = _box(ends.min(axis=0) - half - 1, ends.max(axis=0) + half + 1, height, width)
        if box is not None and box[2] * box[3] <= height * width:
            _blend(image, box, _line_coverage(ends[0], ends[1], half, *box), color)


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
    draw_lines(image, pixels, parents)
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
