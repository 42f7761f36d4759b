"""What the numbers of a mask mean, whatever program wrote it: every reader of masks asks here.

Masks come as white on black, as the alpha of a cut-out picture, as 0 and 1, as the numbers of objects (with the palette
that DAVIS and SAM 2 give them, or grey), as colours of objects, with 8 or 16 bits, and as arrays. Which of them it is
cannot be told from one picture: one in which nothing is above 1 may be all labels, or a faint edge of an object that
has left. So all of a clip's are looked at first (`survey`), and then every one is read in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io.clips import Clip, find_clip, load_array, open_arrays, open_clip, open_images
from dimo_jax.io.pictures import IMAGES, load_picture

LOSSY = (".jpg", ".jpeg", ".webp")  # suffixes of pictures whose small numbers may be noise
_SLACK = 0.01  # by which floats may leave 0..1: resampling overshoots
_TINT = 24  # difference of two channels from which on a picture is coloured
_DARK = 32  # of 255, brightest channel below which a coloured picture's pixel is its ground
_WHITE = 247  # of 255, shade from which on a palette of greys is one of shades


@dataclass(frozen=True)
class Layer:
    """One mask as its file has it."""

    values: np.ndarray  # [H,W] numbers
    alpha: np.ndarray | None = None  # [H,W] uint8; None where all is opaque
    is_exact: bool = True  # the numbers are those that were written: 1 is then no noise on black


@dataclass
class Meaning:
    """What `survey` has seen of a clip's masks, and how they are to be read."""

    top: float = 0.0  # the largest number
    levels: set[float] = field(default_factory=set)  # of the numbers above 0, two at most are kept
    is_float: bool = False
    is_exact: bool = True
    alphas: set[int] = field(default_factory=set)  # the lowest and the highest alpha

    def add(self, layer: Layer, where: Path) -> None:
        """Takes another mask of the clip into account.

        Raises:
          UserError: numbers that no mask has.
        """
        values = layer.values
        self.is_float |= values.dtype.kind == "f"
        self.is_exact &= layer.is_exact
        _check_range(values, where)
        self.top = max(self.top, float(values.max()))
        if len(self.levels) < 2:
            inside = values[values > 0]
            if inside.size:
                self.levels |= {float(inside.min()), float(inside.max())}
        alpha = (255, 255) if layer.alpha is None else (int(layer.alpha.min()), int(layer.alpha.max()))
        both = (*self.alphas, *alpha)
        self.alphas = {min(both), max(both)}

    @property
    def uses_alpha(self) -> bool:
        """Whether the alpha channel is the mask: it is one that differs anywhere in the clip."""
        return len(self.alphas) > 1

    def cover(self, layer: Layer) -> np.ndarray:
        """How far a mask covers each pixel: [H,W] uint8, 255 where all of it is the object."""
        if self.uses_alpha:
            alpha = np.full(layer.values.shape, 255, np.uint8) if layer.alpha is None else layer.alpha
            return alpha * np.uint8(255) if max(self.alphas) == 1 else alpha
        full = 1.0 if self.is_float else 255.0 if self.top <= 255 else 65535.0
        # One number beside 0, or whole numbers none of which comes near white, are names of objects and no shades.
        if self.is_exact and (len(self.levels) == 1 or (not self.is_float and 0 < self.top < full / 2)):
            return np.where(layer.values > 0, np.uint8(255), np.uint8(0))
        return np.round(np.clip(layer.values.astype(np.float32) / full, 0, 1) * 255).astype(np.uint8)


def _check_range(values: np.ndarray, where: Path) -> None:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise UserError(f"{where}: has values that are not finite, expected a mask of 0..1")
        low, high = float(values.min()), float(values.max())
        if low < -_SLACK or high > 1 + _SLACK:
            raise UserError(f"{where}: floats of {low:g} to {high:g}, expected a mask of 0..1 (or bytes of 0..255)")
    elif values.dtype.kind == "i" and values.min() < 0:
        raise UserError(f"{where}: has the number {values.min()}, expected a mask of 0 and above")


def layer_of_array(values: np.ndarray) -> Layer:
    """A mask [H,W] or [H,W,1] of bools, integers or floats."""
    plain = values.reshape(values.shape[:2])
    return Layer(plain.astype(np.uint8) if plain.dtype.kind == "b" else plain)


def layer_of_rgba(frame: np.ndarray, *, is_exact: bool) -> Layer:
    """A mask in a picture [H,W,4] uint8: the brightness of a grey one; of a coloured one all that is not dark.

    `is_exact` is False for what went through a lossy codec.
    """
    rgb = frame[..., :3].astype(np.int16)
    brightest = rgb.max(axis=-1)
    if (brightest - rgb.min(axis=-1)).max() > _TINT:
        values = np.where(brightest >= _DARK, np.uint8(255), np.uint8(0))
    else:
        values = np.round(rgb.mean(axis=-1)).astype(np.uint8)
    return Layer(values, frame[..., 3] if frame[..., 3].min() < 255 else None, is_exact)


def layer_of_picture(image: Image.Image, *, is_exact: bool = True) -> Layer:
    """A mask in an image of Pillow's, of any mode; the indices of a coloured palette are the objects' numbers."""
    if image.mode == "1" or (image.mode == "L" and "transparency" not in image.info):
        return Layer(np.asarray(image.convert("L")), is_exact=is_exact)
    if image.mode.startswith("I") or image.mode == "F":
        return Layer(np.asarray(image), is_exact=is_exact)
    if image.mode == "P" and "transparency" not in image.info and _is_label_palette(image):
        return Layer(np.where(np.asarray(image) > 0, np.uint8(255), np.uint8(0)))
    return layer_of_rgba(np.asarray(image.convert("RGBA")), is_exact=is_exact)


def _is_label_palette(image: Image.Image) -> bool:
    """Whether a palette's colours only tell objects apart: they are no shades of grey from black to white."""
    indices = np.unique(np.asarray(image))
    palette = np.asarray(image.convert("P").getpalette("RGB"), np.int16).reshape(-1, 3)
    colors = palette[indices[indices < len(palette)]]
    if (colors.max(axis=-1) - colors.min(axis=-1)).max(initial=0) > _TINT:
        return True
    # A ramp of greys in which a number is its own shade is what programs write that know no other kind of picture.
    shades = colors[:, 0]
    return not (np.array_equal(shades, indices) or len(indices) == 1 or shades.max(initial=0) >= _WHITE)


def open_mask(path: Path) -> Clip:
    """Opens the masks of a clip: a video, an animation, or a folder of numbered images or .npy files.

    Raises:
      UserError: as `open_clip`.
    """
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.name[0] != ".")
        arrays = [entry for entry in files if entry.suffix.lower() == ".npy"]
        images = [entry for entry in files if entry.suffix.lower() in IMAGES]
        if arrays and images:
            raise UserError(f"{path}: found {arrays[0].name} beside {images[0].name}, expected masks of one kind")
        return open_arrays(path, arrays) if arrays else open_images(path, images)
    return open_clip(path)


def find_masks(stem: Path, clip: Clip) -> Clip | None:
    """The masks of a clip where they lie by default: in `stem`_mask, or beside its pictures as NAME_mask.

    Raises:
      UserError: as `open_mask`, or some pictures have a mask and others none.
    """
    found = find_clip(stem.with_name(f"{stem.name}_mask"))
    return open_mask(found) if found is not None else find_masks_beside(clip)


def find_masks_beside(clip: Clip) -> Clip | None:
    """Masks that lie beside a clip's pictures, named NAME_mask, as images or .npy files; None where there are none.

    Raises:
      UserError: some pictures have one and others none, or they are of two kinds.
    """
    suffixes = (".npy", *IMAGES)
    files = [next((p for s in suffixes if (p := path.with_name(f"{path.stem}_mask{s}")).is_file()), None)
             for path in clip.files]  # fmt: skip
    known = [file for file in files if file is not None]
    if not known:
        return None
    if len(known) < len(files):
        lonely = clip.files[files.index(None)]
        name = lonely.with_name(f"{lonely.stem}_mask{known[0].suffix}")
        raise UserError(f"{name}: no such file, expected a mask for every image where there is one for any")
    kinds = {file.suffix.lower() == ".npy" for file in known}
    if len(kinds) > 1:
        raise UserError(f"{clip.path}: found masks as .npy and as images, expected one kind")
    return open_arrays(clip.path, known) if kinds == {True} else open_images(clip.path, known)


def read_layers(clip: Clip) -> Iterator[tuple[Layer, Path]]:
    """A clip's masks one by one as their files have them, and the file of each.

    Raises:
      UserError: a damaged file, or one of another size.
    """
    size = (clip.width, clip.height)
    if clip.kind == "images":
        for file in clip.files:
            image = load_picture(file, size, source="as before")
            yield layer_of_picture(image, is_exact=file.suffix.lower() not in LOSSY), file
    elif clip.kind == "arrays":
        for file in clip.files:
            array = load_array(file)
            if array.shape[:2] != (clip.height, clip.width):
                raise UserError(f"{file}: mask {list(array.shape)}, expected {clip.height}x{clip.width} as before")
            yield layer_of_array(np.asarray(array)), file
    else:
        is_exact = clip.kind == "animation" and clip.path.suffix.lower() not in LOSSY
        for frame in clip.frames():
            yield layer_of_rgba(frame, is_exact=is_exact), clip.path


def survey(clip: Clip) -> Meaning:
    """Looks at all masks of a clip, to know how each is to be read.

    Raises:
      UserError: as `read_layers`, or numbers that no mask has.
    """
    meaning = Meaning()
    for layer, file in read_layers(clip):
        meaning.add(layer, file)
    return meaning


def read_covers(clip: Clip) -> Iterator[np.ndarray]:
    """A clip's masks one by one: [H,W] uint8, 255 where all of a pixel is the object.

    Raises:
      UserError: as `survey`.
    """
    meaning = survey(clip)
    for layer, _ in read_layers(clip):
        yield meaning.cover(layer)
