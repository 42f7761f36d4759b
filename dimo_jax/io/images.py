"""Images for the eye: checked, rounded, enlarged, tiled into labelled grids, truth beside prediction.

All images and frames are uint8, straight RGB, [...,H,W,3].
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dimo_jax.runtime.files import replace_file

Color = tuple[int, int, int]

_RESAMPLING = {"nearest": Image.Resampling.NEAREST, "bicubic": Image.Resampling.BICUBIC}
WHITE: Color = (255, 255, 255)
INK: Color = (32, 36, 44)


def check_frames(frames: np.ndarray, *, rank: int | None = None, channels: tuple[int, ...] = (3,)) -> np.ndarray:
    """Gives `frames` as a numpy array after checking that it is uint8 and ends in H, W and colour.

    Args:
      frames: uint8 [...,H,W,C].
      rank: number of axes that it must have; None for at least three.
      channels: the values of C that are allowed.

    Raises:
      TypeError: another type than uint8 (see `to_uint8` for floats in 0..1).
      ValueError: another shape, or an empty axis.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8:
        raise TypeError(f"frames are {frames.dtype}, expected uint8")
    wrong_rank = frames.ndim < 3 if rank is None else frames.ndim != rank
    if wrong_rank or frames.shape[-1] not in channels or 0 in frames.shape:
        raise ValueError(f"frames have shape {frames.shape}, expected {rank or '3 or more'} axes ending in H, W, C "
                         f"with C in {channels}, none empty")  # fmt: skip
    return frames


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Rounds floats in 0..1 to uint8.

    Values outside 0..1 are clipped (a rendering may overshoot); NaN is an error because it would become a colour.

    Args:
      images: [...] float.

    Raises:
      ValueError: a value is NaN.
    """
    images = np.asarray(images, np.float32)
    if np.isnan(images).any():
        raise ValueError(f"{int(np.isnan(images).sum())} pixel values are NaN")
    return (np.clip(images, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def write_png(image: np.ndarray, path: Path | str) -> Path:
    """Writes one image [H,W,3] or [H,W,4] (straight alpha), uint8, as PNG. Atomic. Returns `path`."""
    image = check_frames(image, rank=3, channels=(3, 4))
    with replace_file(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, format="PNG")
    return Path(path)


@functools.lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans (Latin, Greek, Cyrillic, Arabic, signs) in pixels, from matplotlib's own files: on every machine."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def upscale(frames: np.ndarray, *, min_height: int = 384, method: str = "bicubic") -> np.ndarray:
    """Enlarges tiny frames by the smallest whole factor that reaches a height; taller ones are returned as they are.

    Args:
      frames: [...,H,W,3] uint8.
      min_height: pixels that the result has at least.
      method: "nearest" shows the pixels as they are, "bicubic" is smooth.

    Returns:
      [...,fH,fW,3] uint8 with f a whole number, 1 or more.
    """
    frames = check_frames(frames)
    if method not in _RESAMPLING:
        raise ValueError(f"method is {method!r}, expected one of {sorted(_RESAMPLING)}")
    height, width = frames.shape[-3:-1]
    factor = max(1, -(-min_height // height))
    if factor == 1:
        return frames
    size = (width * factor, height * factor)
    flat = [
        np.asarray(Image.fromarray(f).resize(size, _RESAMPLING[method])) for f in frames.reshape(-1, height, width, 3)
    ]
    return np.stack(flat).reshape(*frames.shape[:-3], size[1], size[0], 3)


def _fit(text: str, size: int, max_width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Shrinks text to a width, first by its size and then by an ellipsis, which shows that something is cut."""
    for pixels in range(size, max(8, size * 2 // 3) - 1, -1):
        if font(pixels).getlength(text) <= max_width:
            return text, font(pixels)
    small = font(max(8, size * 2 // 3))
    while text and small.getlength(text + "…") > max_width:
        text = text[:-1]
    return text + "…", small


def _write_text(
    draw: ImageDraw.ImageDraw, text: str, box: tuple[int, int, int, int], *, size: int, color: Color
) -> None:
    left, top, right, bottom = box
    shown, chosen = _fit(text, size, right - left)
    draw.text(((left + right) / 2, (top + bottom) / 2), shown, font=chosen, fill=color, anchor="mm")


def grid(
    images: np.ndarray,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    padding: int = 4,
    background: Color = WHITE,
    text_color: Color = INK,
    text_size: int = 14,
) -> np.ndarray:
    """Tiles images, or videos of equal length, into one picture with labels above the columns and left of the rows.

    Args:
      images: [R,C,...,H,W,3] uint8; axes between C and H (time) stay in front.
      row_labels: R texts, written upwards along the left edge.
      column_labels: C texts, written above. A text wider than its tile is set smaller, then cut with an ellipsis.
      padding: pixels between and around tiles.
      background: colour of padding and labels' ground.
      text_color: colour of the labels.
      text_size: size of the labels in pixels.

    Returns:
      [...,H',W',3] uint8.
    """
    images = check_frames(images)
    if images.ndim < 5:
        raise ValueError(f"images have shape {images.shape}, expected [R,C,...,H,W,3]")
    num_rows, num_columns, height, width = *images.shape[:2], *images.shape[-3:-1]
    for labels, num, axis in ((row_labels, num_rows, "row"), (column_labels, num_columns, "column")):
        if labels is not None and len(labels) != num:
            raise ValueError(f"{len(labels)} {axis}_labels for {num} {axis}s")
    band = text_size + 2 * padding
    left = padding + (band if row_labels is not None else 0)
    top = padding + (band if column_labels is not None else 0)
    rows = [top + r * (height + padding) for r in range(num_rows)]
    columns = [left + c * (width + padding) for c in range(num_columns)]

    canvas = Image.new("RGB", (columns[-1] + width + padding, rows[-1] + height + padding), background)
    draw = ImageDraw.Draw(canvas)
    for x, text in zip(columns, column_labels or ()):
        _write_text(draw, text, (x, 0, x + width, top), size=text_size, color=text_color)
    for y, text in zip(rows, row_labels or ()):
        strip = Image.new("RGB", (height, left), background)
        _write_text(ImageDraw.Draw(strip), text, (0, 0, height, left), size=text_size, color=text_color)
        canvas.paste(strip.transpose(Image.Transpose.ROTATE_90), (0, y))

    result = np.empty((*images.shape[2:-3], canvas.height, canvas.width, 3), np.uint8)
    result[...] = np.asarray(canvas)
    for r, y in enumerate(rows):
        for c, x in enumerate(columns):
            result[..., y : y + height, x : x + width, :] = images[r, c]
    return result


def tile(
    images: np.ndarray,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    min_height: int = 128,
) -> Image.Image:
    """Images side by side, as a picture that notebooks show and whose `save(path)` writes it.

    Args:
      images: one [H,W,3], a row of them [C,H,W,3], or a table [R,C,H,W,3]; floats in 0..1, or uint8. A grayscale
        image needs three channels as well.
      row_labels, column_labels: R texts left of the rows, C above the columns.
      min_height: pixels; smaller images are enlarged by a whole factor.

    Raises:
      ValueError: another shape, or NaN in it.
    """
    images = np.asarray(images)
    images = images if images.dtype == np.uint8 else to_uint8(images)
    if not 3 <= images.ndim <= 5:
        raise ValueError(f"images have shape {images.shape}, expected [H,W,3], [C,H,W,3] or [R,C,H,W,3]")
    table = images.reshape(*(1,) * (5 - images.ndim), *images.shape)
    return Image.fromarray(
        grid(upscale(table, min_height=min_height), row_labels=row_labels, column_labels=column_labels)
    )


def _amplify_difference(truth: np.ndarray, prediction: np.ndarray, *, gain: float) -> np.ndarray:
    difference = np.abs(truth.astype(np.int16) - prediction.astype(np.int16)).astype(np.float32)
    return (255 - np.minimum(difference * np.float32(gain), 255)).astype(np.uint8)


def side_by_side(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    labels: tuple[str, str] | None = ("truth", "prediction"),
    difference_gain: float | None = None,
    text_size: int = 14,
) -> np.ndarray:
    """Truth on the left, prediction on the right, and on request their difference.

    Args:
      truth: [...,H,W,3] uint8.
      prediction: [...,H,W,3] uint8, same shape.
      labels: written above the two; None for no text.
      difference_gain: adds a third picture, white where both agree and darker by |truth - prediction| times this per
        channel, clipped at black.
      text_size: size of the labels in pixels.

    Returns:
      [...,H',W',3] uint8.
    """
    truth, prediction = check_frames(truth), check_frames(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}; expected the same")
    tiles, names = [truth, prediction], list(labels or ())
    if difference_gain is not None:
        tiles.append(_amplify_difference(truth, prediction, gain=difference_gain))
        names.append(f"difference × {difference_gain:g}")
    return grid(np.stack(tiles)[None], column_labels=names if labels else None, text_size=text_size)
