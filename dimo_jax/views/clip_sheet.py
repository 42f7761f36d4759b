"""Videos and pose maps of several views as one picture, and as one video."""

from __future__ import annotations

import numpy as np

from dimo_jax.io.images import grid, upscale

HALVES = ("picture", "pose map")
_MIN_HEIGHT = 128  # of a view, pixels


def lay_out(videos: np.ndarray) -> np.ndarray:
    """Views beside each other, pictures above pose maps: [V,2,T,H,W,3] uint8 -> a labelled video [T,H',W',3] uint8."""
    views = [f"view {index + 1}" for index in range(len(videos))]
    tiles = upscale(np.moveaxis(videos, 0, 1), min_height=_MIN_HEIGHT)
    found: np.ndarray = grid(tiles, row_labels=list(HALVES), column_labels=views)
    return found


def lay_views(videos: np.ndarray) -> np.ndarray:
    """Views beside each other: [V,T,H,W,3] uint8 -> a labelled video [T,H',W',3] uint8."""
    views = [f"view {index + 1}" for index in range(len(videos))]
    found: np.ndarray = grid(upscale(videos[None], min_height=_MIN_HEIGHT), column_labels=views)
    return found


def lay_frames(videos: np.ndarray, view: int = 0) -> np.ndarray:
    """The frames of one view beside each other, pictures above pose maps: [V,2,T,H,W,3] -> [2H,T*W,3] uint8."""
    rows = np.moveaxis(videos[view], 1, 2)  # [2,H,T,W,3]
    return rows.reshape(rows.shape[0] * rows.shape[1], -1, 3)
