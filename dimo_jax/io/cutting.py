"""One clip cut out of its background, frame by frame, and whether what is left can be an object."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.io import matte as mattes
from dimo_jax.io.clips import Clip
from dimo_jax.io.masks import read_covers
from dimo_jax.io.matte import Matte

OPAQUE = 128  # of 255, from which on a pixel counts as the object's
_TINY, _ALL = 0.001, 0.999  # share of a picture that an object takes: less is hardly to be seen, more is no object
_TURNED_OVER = 0.9  # share of the border's pixels above which a mask is likely that of the background


def cut_frames(
    clip: Clip, mask: Clip | None, matte: Matte, height: int, width: int, *, keep: np.ndarray | None = None
) -> Generator[np.ndarray, None, None]:
    """Frames of one clip, cut out and resized, one by one: [height,width,4] uint8.

    Args:
      clip: which.
      mask: its masks, if it has any.
      matte: how its background becomes transparent.
      height: of the result in pixels.
      width: likewise.
      keep: [T] indices of the frames, rising, a frame perhaps twice; None takes all. Cutting out takes the most time by
        far, so others are decoded only.

    Raises:
      UserError: damaged files, a mask of another size or length, or no background to be found.
    """
    if mask is not None and (mask.height, mask.width) != (clip.height, clip.width):
        raise UserError(
            f"{mask.path}: masks of {mask.width}x{mask.height}, expected {clip.width}x{clip.height} as {clip.path}"
        )
    times = None if keep is None else np.bincount(keep).tolist()
    settled, covers, index = matte, None, -1
    for index, frame in enumerate(clip.frames()):
        if index == 0:
            settled = mattes.settle(matte, frame, has_masks=mask is not None, where=str(clip.path))
            covers = read_covers(mask) if mask is not None and settled.how == "masks" else None
        cover = None if covers is None else next(covers, None)
        if mask is not None and covers is not None and cover is None:
            raise UserError(f"{mask.path}: only {index} masks, expected one for each frame of {clip.path}")
        repeats = 1 if times is None else times[index] if index < len(times) else 0
        if repeats:
            cut = mattes.resize(mattes.apply(settled, frame, cover), height, width)
            for _ in range(repeats):
                yield cut
    if index < 0:
        raise UserError(f"{clip.path}: no frames in it, expected a video")
    if times is not None and index + 1 < len(times):
        raise UserError(f"{clip.path}: ends after {index + 1} of {len(times)} frames, expected a whole video")
    if mask is not None and covers is not None and next(covers, None) is not None:
        raise UserError(f"{mask.path}: more than {index + 1} masks, expected one for each frame of {clip.path}")


@dataclass
class Shares:
    """How much of a clip's pictures is object."""

    of_all: list[float] = field(default_factory=list)  # share of each picture
    of_border: list[float] = field(default_factory=list)  # share of its outermost pixels
    has_ground: bool = False  # whether anything is transparent

    def add(self, frame: np.ndarray) -> None:
        """Takes another picture [H,W,4] uint8 into account."""
        alpha = frame[..., 3]
        opaque = alpha >= OPAQUE
        border = np.concatenate([opaque[0], opaque[-1], opaque[1:-1, 0], opaque[1:-1, -1]])
        self.of_all.append(float(opaque.mean()))
        self.of_border.append(float(border.mean()))
        self.has_ground |= bool(alpha.min() < 255)

    def check(self, where: str, *, kept_ground: bool = False) -> list[str]:
        """What is odd about them, a line each.

        Args:
          where: the clip's or its masks' name.
          kept_ground: whether the user wants the background to stay.

        Raises:
          UserError: nothing is object in any of the pictures, or everything in all.
        """
        low, high = min(self.of_all), max(self.of_all)
        if high == 0:
            raise UserError(
                f"{where}: nothing is left of any of {len(self.of_all)} frames, expected the object opaque, and in "
                "masks white, or of a number above 0"
            )
        if kept_ground:
            return []
        if low > _ALL:
            raise UserError(
                f"{where}: the object fills all of {len(self.of_all)} frames, expected a background beside it "
                "(--matte=none keeps the background)"
            )
        notes = []
        if high < _TINY:
            notes.append(f"{where}: the object is at most {high:.2%} of a frame, expected {_TINY:.1%} and more")
        elif low == 0:
            empty = sum(share == 0 for share in self.of_all)
            notes.append(f"{where}: nothing to see in {empty} of {len(self.of_all)} frames")
        if float(np.median(self.of_border)) > _TURNED_OVER:
            notes.append(
                f"{where}: almost all of the border counts as the object; are object and background the wrong way "
                "round?"
            )
        return notes
