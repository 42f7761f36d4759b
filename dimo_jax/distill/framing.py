"""One square cut for all videos of an object, so that it has one size and one place in the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dimo_jax.distill.failures import Failure
from dimo_jax.distill.masks import SOLID
from dimo_jax.errors import UserError


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


def bound(alpha: np.ndarray) -> Box:
    """The box around an object in all masks [T,H,W] uint8.

    Raises:
      Failure: no pixel of it.
    """
    solid = (alpha >= SOLID).any(axis=0)
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


def cut(frames: np.ndarray, alpha: np.ndarray, square: Square, *, size: int) -> np.ndarray:
    """The square of every frame, with straight alpha; where it reaches over the picture it is empty.

    Colours are weighted by alpha when they are resampled, so that the ground does not bleed into the edge.

    Args:
      frames: [T,H,W,3] uint8.
      alpha: [T,H,W] uint8.
      square: which part.
      size: side of the result in pixels.

    Returns:
      [T,size,size,4] uint8.
    """
    return np.stack([_cut(frame, mask, square, size) for frame, mask in zip(frames, alpha)])


def _cut(frame: np.ndarray, mask: np.ndarray, square: Square, size: int) -> np.ndarray:
    opacity = mask.astype(np.float32) / 255
    planes = [frame[..., channel] * opacity for channel in range(3)] + [opacity]
    pad = int(np.ceil(max(0.0, -square.left, -square.top, square.left + square.side - frame.shape[1],
                          square.top + square.side - frame.shape[0]))) + 1  # fmt: skip
    box = (square.left + pad, square.top + pad, square.left + square.side + pad, square.top + square.side + pad)
    cuts = [
        np.asarray(
            Image.fromarray(np.pad(plane, pad)).resize((size, size), Image.Resampling.LANCZOS, box=box), np.float32
        )
        for plane in planes
    ]
    # Lanczos overshoots on both sides of an edge.
    opacity = np.clip(cuts[3], 0, 1)
    color = np.clip(np.stack(cuts[:3], axis=-1) / np.maximum(opacity, 1e-3)[..., None], 0, 255)
    color[opacity < 0.5 / 255] = 255
    return np.concatenate([color + 0.5, opacity[..., None] * 255 + 0.5], axis=-1).clip(0, 255).astype(np.uint8)


def pick_frames(num_frames: int, count: int) -> np.ndarray:
    """Indices [count] of frames at even distances, first and last among them; all where there are no more.

    Raises:
      UserError: more are asked for than there are.
    """
    if not 2 <= count <= num_frames:
        raise UserError(f"config.framing.num_frames: found {count}, expected 2 to {num_frames} (frames of a video)")
    return np.linspace(0, num_frames - 1, count).round().astype(int)


def prepare_image(image: np.ndarray, alpha: np.ndarray, *, height: int, width: int, share: float) -> np.ndarray:
    """The picture as a video model gets it: the object on white, in the middle, with room to move.

    Args:
      image: [H,W,3] uint8.
      alpha: [H,W] uint8, the object.
      height: of the result in pixels.
      width: likewise.
      share: of the smaller side that the object's box takes at most, 0.1 to 1.

    Returns:
      [height,width,3] uint8.

    Raises:
      UserError: a share out of range.
    """
    if not 0.1 <= share <= 1:
        raise UserError(f"config.image.share: found {share:g}, expected 0.1 to 1")
    square = fit_square([bound(alpha[None])], margin=(1 - share) / 2)
    side = min(height, width)
    small = cut(image[None], alpha[None], square, size=side)[0]
    opacity = small[..., 3:].astype(np.float32) / 255
    canvas = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    canvas[top : top + side, left : left + side] = small[..., :3] * opacity + 255 * (1 - opacity) + 0.5
    return canvas
