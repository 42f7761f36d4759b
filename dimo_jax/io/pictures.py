"""Single pictures from files of other programs, as a person sees them: upright, whatever the sensor stored."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from dimo_jax.core.errors import UserError
from dimo_jax.runtime.jobs import one_line

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF")  # some of Pillow's others run programs of the machine
MAX_SIDE = 8192  # pixels
MODES = {"RGBA", "RGB", "L", "LA", "P", "PA", "1"}  # 8 bits or fewer a channel
# What Pillow's and NumPy's readers raise where a file's bytes are not what they expect.
DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error),
    Image.DecompressionBombError,
)
_UPRIGHT = {  # what makes a picture upright, by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)  # those that swap width and height


def check_size(path: Path, width: int, height: int) -> tuple[int, int]:
    """Height and width of pictures.

    Raises:
      UserError: out of range.
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UserError(f"{path}: pictures of {width}x{height}, expected 1 to {MAX_SIDE} pixels a side")
    return height, width


def refuse(path: Path, error: BaseException, expected: str) -> UserError:
    """The line that says why a file cannot be read."""
    return UserError(f"{path}: cannot be read ({one_line(error)}), expected {expected}")


@contextlib.contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Opens an image file, nothing of it decoded yet, for the time of a block.

    Raises:
      UserError: it is damaged, also where the block finds that.
    """
    try:
        with warnings.catch_warnings():
            # `check_size` has a bound of its own, and nothing of a JPEG's second picture is wanted.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except DAMAGE as error:
        raise refuse(path, error, "an image") from error


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as it is to be seen, EXIF's orientation heeded.

    Raises:
      UserError: a damaged file, or sides out of range.
    """
    with open_picture(path) as image:
        check_size(path, *image.size)
        return _upright_size(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) in _TURNED else (width, height)


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 where there is none that can be read: viewers show such a picture as it is stored."""
    if image.format == "TIFF":  # Pillow turns these itself, and tells their size accordingly
        return 1
    try:
        # A PNG may say it behind its pixels, and is decoded to know.
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGE:
        return 1
    return found if isinstance(found, int) else 1


def load_picture(path: Path, size: tuple[int, int] | None = None, *, source: str = "") -> Image.Image:
    """Decodes one image, upright, in the file's own mode.

    Args:
      path: of the file.
      size: width and height that its header must say, before a pixel is decoded; None takes any.
      source: of that size, for errors.

    Raises:
      UserError: a damaged file, another size, or several pictures in an animation.
    """
    with open_picture(path) as image:
        if size is not None and image.size not in (size, size[::-1]):
            raise _other_size(path, image.size, size, source)
        check_size(path, *image.size)
        # Phones write a JPEG with a second picture behind it, the camera's depth or light, which Pillow calls MPO.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise UserError(f"{path}: an animation of {getattr(image, 'n_frames', 0)} pictures, expected a single one")
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        upright = image.copy() if turn is None else image.transpose(turn)
    if size is not None and upright.size != size:
        raise _other_size(path, upright.size, size, source)
    return upright


def _other_size(path: Path, found: tuple[int, int], expected: tuple[int, int], source: str) -> UserError:
    return UserError(f"{path}: image of {found[0]}x{found[1]}, expected {expected[0]}x{expected[1]} {source}".rstrip())


def read_image(path: Path, size: tuple[int, int] | None = None, *, source: str = "") -> np.ndarray:
    """Decodes one image, upright: [H,W,4] uint8, straight alpha.

    Args:
      path: of the file.
      size: as for `load_picture`.
      source: likewise.

    Raises:
      UserError: as `load_picture`, or more than 8 bits a channel.
    """
    image = load_picture(path, size, source=source)
    if image.mode not in MODES:
        raise UserError(f"{path}: image mode {image.mode}, expected 8-bit RGBA or RGB")
    return np.array(image.convert("RGBA"))
