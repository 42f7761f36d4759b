"""Videos cut to where the part is and something changes, so that small parts are looked at as closely as large ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from dimo_jax.core.types import Camera

LEAST = 64  # pixels of a side that are left
MARGIN = 0.15  # of the window, on every side
CHANGE, SIGMAS = 0.08, 6.0  # change of a channel that counts, 0..1; and in standard deviations of what is not motion


def crop_to_motion(frames: np.ndarray, cameras: Camera, points: np.ndarray) -> tuple[np.ndarray, Camera]:
    """The same videos in square windows of one size, a place for each view.

    Args:
      frames: [V,T,H,W,4] uint8, straight alpha.
      cameras: V views.
      points: [P,3] of the part at rest.

    Returns:
      Frames [V,T,S,S,4] and their cameras; what was given where little would be cut away.
    """
    height, width = frames.shape[2:4]
    boxes = np.array([_find_box(view, _project(points, cameras, index)) for index, view in enumerate(frames)])
    low, high = boxes[:, 0], boxes[:, 1]
    side = int(np.ceil(max((high - low).max() * (1 + 2 * MARGIN), LEAST)))
    if side > 0.75 * min(height, width):
        return frames, cameras
    corners = np.rint((low + high) / 2 - side / 2).astype(int)
    corners = np.clip(corners, 0, [width - side, height - side])
    cut = np.stack([view[:, y : y + side, x : x + side] for view, (x, y) in zip(frames, corners)])
    center = np.broadcast_to(np.asarray(cameras.center, np.float64), (len(frames), 2)) - corners
    return cut, replace(cameras, center=center.astype(np.float32), height=side, width=side)


def _project(points: np.ndarray, cameras: Camera, view: int) -> np.ndarray:
    """Pixels [P,2] of points."""
    pose = np.asarray(cameras.world_to_camera[view], np.float64)
    inside = points @ pose[:3, :3].T + pose[:3, 3]
    focal = np.broadcast_to(np.asarray(cameras.focal[view], np.float64), (2,))
    return inside[:, :2] / np.maximum(inside[:, 2:], 1e-9) * focal + np.asarray(cameras.center[view], np.float64)


def _find_box(view: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Corners [2,2] (x, y) around the part at rest and all that changes in [T,H,W,4]."""
    height, width = view.shape[1:3]
    scaled = view.astype(np.float32) / 255
    scaled[..., :3] *= scaled[..., 3:]
    smooth = gaussian_filter(scaled, (0, 1, 1, 0), truncate=3.0)
    change = np.abs(smooth - smooth[:1]).max(axis=(0, 3))
    spread = 1.4826 * float(np.median(np.abs(change - np.median(change))))
    rows, columns = np.nonzero(change > max(CHANGE, float(np.median(change)) + SIGMAS * spread))
    places = np.concatenate([part, np.stack([columns, rows], axis=-1)])
    return np.clip(np.stack([places.min(0), places.max(0)]), 0, [width, height])
