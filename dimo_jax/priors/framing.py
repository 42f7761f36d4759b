"""One square cut for all videos of an object, so that it has one size and one place in the whole set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.priors.failures import Failure
from dimo_jax.priors.masks import SOLID


@dataclass(frozen=True)
class Square:
    """A square of a picture, in its pixels; it may reach over the border."""

    left: float
    top: float
    side: float


@dataclass(frozen=True)
class Box:
    """Where an object is in some pictures: edges in pixels, right and bottom not included."""

    left: int
    top: int
    right: int
    bottom: int


def bound(cutouts: np.ndarray) -> Box:
    """The box around an object in all cutouts [T,H,W,4] uint8.

    Raises:
      Failure: no pixel of it.
    """
    solid = np.asarray((cutouts[..., 3] >= SOLID).any(axis=0))
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows):
        raise Failure("the mask is empty in all frames")
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def fit_square(boxes: Sequence[Box], *, margin: float) -> Square:
    """The smallest square around all boxes, centred on what they span together.

    Args:
      boxes: at least one, of pictures of one size.
      margin: share of the square that stays free at each border, 0 to 0.4.
    """
    if not 0 <= margin <= 0.4:
        raise UserError(f"config.framing.margin: found {margin:g}, expected 0 to 0.4")
    left, top = min(box.left for box in boxes), min(box.top for box in boxes)
    right, bottom = max(box.right for box in boxes), max(box.bottom for box in boxes)
    side = max(right - left, bottom - top) / (1 - 2 * margin)
    return Square((left + right - side) / 2, (top + bottom - side) / 2, side)


def cut(cutouts: np.ndarray, square: Square, *, size: int) -> np.ndarray:
    """The square of every frame; where it reaches over the picture it is empty.

    Colours are weighted by alpha when they are resampled, so that the ground does not bleed into the edge.

    Args:
      cutouts: [T,H,W,4] uint8, straight alpha.
      square: which part.
      size: side of the result in pixels.

    Returns:
      [T,size,size,4] uint8, straight alpha.
    """
    height, width = cutouts.shape[1:3]
    right, bottom = square.left + square.side - width, square.top + square.side - height
    pad = math.ceil(max(0.0, -square.left, -square.top, right, bottom)) + 1
    left, top = square.left + pad, square.top + pad
    box = (left, top, left + square.side, top + square.side)
    padded = np.pad(cutouts, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    cuts = [
        Image.fromarray(frame).convert("RGBa").resize((size, size), Image.Resampling.BICUBIC, box=box).convert("RGBA")
        for frame in padded
    ]
    return np.stack([np.asarray(each) for each in cuts])


def pick_frames(num_frames: int, count: int) -> np.ndarray:
    """Indices [count] of frames at even distances, first and last among them; all where there are no more.

    Raises:
      UserError: more are asked for than there are.
    """
    if not 2 <= count <= num_frames:
        raise UserError(f"config.framing.num_frames: found {count}, expected 2 to {num_frames} (frames of a video)")
    return np.linspace(0, num_frames - 1, count).round().astype(int)


def prepare_image(cutout: np.ndarray, *, height: int, width: int, share: float) -> np.ndarray:
    """The picture as a video model gets it: the object on white, in the middle, with room to move.

    Args:
      cutout: [H,W,4] uint8, straight alpha.
      height: of the result in pixels.
      width: likewise.
      share: of the smaller side that the object's box takes, 0.2 to 1.

    Returns:
      [height,width,3] uint8.

    Raises:
      UserError: a share out of range.
    """
    if not 0.2 <= share <= 1:
        raise UserError(f"config.image.share: found {share:g}, expected 0.2 to 1")
    square = fit_square([bound(cutout[None])], margin=(1 - share) / 2)
    side = min(height, width)
    canvas = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    canvas[top : top + side, left : left + side] = on_white(cut(cutout[None], square, size=side))[0]
    return canvas


def on_white(cutouts: np.ndarray) -> np.ndarray:
    """[...,4] uint8, straight alpha -> [...,3] uint8."""
    opacity = cutouts[..., 3:].astype(np.float32) / 255
    return (cutouts[..., :3] * opacity + 255 * (1 - opacity) + 0.5).astype(np.uint8)
