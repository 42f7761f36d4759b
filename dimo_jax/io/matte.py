"""Backgrounds to alpha: the file's own alpha, given masks, or a colour key; and resizing that respects alpha."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor
from scipy import ndimage

from dimo_jax.core.errors import UserError

HOW = ("auto", "alpha", "masks", "key", "none")
# Share of the border's pixels in one colour from which on "auto" takes it for the background's; less will do where the
# colour is known, because the object may stand against the border.
_PLAIN, _KNOWN = 0.85, 0.2
_BAND = 2  # pixels beside the background in which the object's edge is taken to be mixed with it


@dataclass(frozen=True)
class Matte:
    """How the background of pictures becomes transparent.

    "alpha" takes the file's alpha channel, "masks" the masks that lie beside the pictures, "key" removes one colour,
    "none" leaves pictures opaque; "auto" takes masks where there are any, else an alpha channel that is not all
    opaque, else the key where the picture's border has one colour (or enough of the colour that is given).
    """

    how: str = "auto"
    color: tuple[int, int, int] | None = None  # the key, 0..255; None: the border's median colour
    tolerance: float = 12.0  # of 255, how far a background pixel may be from the key in any channel
    enclosed: bool = False  # the key also removes areas that the object encloses (between arm and body)

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          UserError: an option is out of range.
        """
        if self.how not in HOW:
            raise UserError(f"matte: found {self.how!r}, expected one of {', '.join(HOW)}")
        if not 0 <= self.tolerance < 128:
            raise UserError(f"key_tolerance: found {self.tolerance:g}, expected 0 to 128")


def parse_color(text: str) -> tuple[int, int, int] | None:
    """A colour as `#rrggbb` or a name such as `white`; None for `auto`.

    Raises:
      UserError: it is no colour.
    """
    if text == "auto":
        return None
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise UserError(f"key_color: found {text[:40]!r}, expected #rrggbb, a colour's name, or auto") from error


def border_color(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median colour [3] of the outermost pixels of a picture [H,W,4], and these pixels [n,3]."""
    rgb = frame[..., :3]
    border = np.concatenate([rgb[0], rgb[-1], rgb[1:-1, 0], rgb[1:-1, -1]]).astype(np.float32)
    return np.median(border, axis=0), border


def settle(matte: Matte, first: np.ndarray, *, has_masks: bool, where: str) -> Matte:
    """What "auto" and an unknown key colour mean for one clip, by its first frame.

    Args:
      matte: as the user asks.
      first: [H,W,4] uint8.
      has_masks: whether masks lie beside the clip.
      where: the clip's name, for errors.

    Returns:
      A matte that leaves nothing open.

    Raises:
      UserError: masks are asked for and are not there, or nothing tells the background.
    """
    how = matte.how
    median, border = border_color(first)
    color = median if matte.color is None else np.asarray(matte.color, np.float32)
    share = (np.abs(border - color).max(axis=-1) <= matte.tolerance).mean()
    if how == "auto":
        plain = share >= (_PLAIN if matte.color is None else _KNOWN)
        how = "masks" if has_masks else "alpha" if first[..., 3].min() < 255 else "key" if plain else ""
        if not how:
            raise UserError(
                f"{where}: found no masks, no transparency, and no plain background, expected one of them "
                "(--matte=none keeps the background)"
            )
    if how == "masks" and not has_masks:
        raise UserError(f"{where}: found no masks beside it, expected them for --matte=masks")
    key = tuple(round(float(c)) for c in color)
    return Matte(how=how, color=key, tolerance=matte.tolerance, enclosed=matte.enclosed)  # type: ignore[arg-type]


def apply(matte: Matte, frame: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """One picture [H,W,4] uint8 with its background transparent.

    `mask` [H,W] uint8, from `data.masks`, becomes its alpha where the matte takes masks.
    """
    if matte.how == "alpha":
        return frame
    result = frame.copy()
    if matte.how == "none":
        result[..., 3] = 255
    elif matte.how == "masks" and mask is not None:
        result[..., 3] = mask
    else:
        return key_out(frame, matte)
    return result


def key_out(frame: np.ndarray, matte: Matte) -> np.ndarray:
    """Removes a background of one colour.

    The background is what has the key's colour and touches the border, so that a white shirt stays on a white ground
    (with `enclosed`, all that has the colour). Pixels next to it are mixtures a F + (1 - a) K of object and key: their
    alpha is their distance from the key over that of the pure colours nearby, and the key's share is taken out of them.

    Args:
      frame: [H,W,4] uint8; its alpha is not read.
      matte: with a `color`.

    Returns:
      [H,W,4] uint8, straight alpha.
    """
    rgb, key = frame[..., :3], np.asarray(matte.color, np.int16)
    distance = functools.reduce(np.maximum, (np.abs(rgb[..., i] - key[i]) for i in range(3))).astype(np.uint8)
    background = distance <= matte.tolerance
    if not matte.enclosed:
        labels, count = ndimage.label(background)
        outside = np.zeros(count + 1, bool)
        for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            outside[border] = True
        outside[0] = False  # what is not background
        background = outside[labels]
    result = np.dstack([rgb, np.where(background, np.uint8(0), np.uint8(255))])
    band = np.nonzero(_spread(background) & ~background)
    alpha = (distance[band] / np.maximum(_spread(distance)[band], 1e-3)).astype(np.float32)
    share = np.maximum(alpha, 1 / 255)[:, None]
    color = (rgb[band].astype(np.float32) - (1 - share) * key.astype(np.float32)) / share
    result[band] = np.round(np.column_stack([np.clip(color, 0, 255), 255 * alpha]))
    return result


def _spread(values: np.ndarray) -> np.ndarray:
    """The largest of the values [H,W] within `_BAND` pixels along both axes; a tenth of a filter's time."""
    for axis in (0, 1):
        source = np.moveaxis(values, axis, 0)
        result = source.copy()
        for step in range(1, _BAND + 1):
            np.maximum(result[step:], source[:-step], out=result[step:])
            np.maximum(result[:-step], source[step:], out=result[:-step])
        values = np.moveaxis(result, 0, axis)
    return values


def resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture [H,W,4] uint8 at another size, filtered over each pixel's whole footprint.

    Colours are weighed by alpha: transparent pixels have no say in those beside them, which a plain resize would let
    bleed into the edges.
    """
    if frame.shape[:2] == (height, width):
        return frame
    premultiplied = Image.fromarray(np.ascontiguousarray(frame)).convert("RGBa")
    return np.array(premultiplied.resize((width, height), Image.Resampling.BILINEAR).convert("RGBA"))
