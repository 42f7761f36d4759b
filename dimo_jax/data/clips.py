"""Moving pictures from files of other programs: a video, an animated GIF, numbered images, or numbered arrays.

A clip is known by its headers first (`open_clip`), which bounds what decoding may take; then its frames come one by one
(`Clip.frames`), so that a long video is never in memory at its full size.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from PIL import Image

from dimo_jax.data.jobs import one_line
from dimo_jax.errors import UserError

VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")
IMAGES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # some of Pillow's others run programs of the machine
MAX_SIDE = 8192  # pixels
MAX_FRAMES = 20_000
# NumPy reads the header of an array as Python source, and the parser of Python 3.11 counts the depth of all threads
# together: now and then it raises SystemError where two parse at once (python/cpython issue 106905).
_PARSER = threading.Lock()
MODES = {"RGBA", "RGB", "L", "LA", "P", "PA", "1"}  # 8 bits or fewer a channel
_MASK_SLACK = 0.01  # by which floats may leave 0..1: resampling overshoots
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
# What ffmpeg may take a file for: playlists, which name other files or addresses, are not among it.
SAFE_INPUT = ["-protocol_whitelist", "file", "-format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"]
_WITH_ALPHA = {"vp9": ["-c:v", "libvpx-vp9"], "vp8": ["-c:v", "libvpx"]}  # ffmpeg's own decoders leave alpha out


@dataclass(frozen=True)
class Clip:
    """A moving picture whose headers are read and found plausible."""

    path: Path  # the file, or the folder of the images
    kind: str  # "video", "gif", "images" or "arrays"
    height: int
    width: int
    frame_rate: float | None = None  # frames a second; None where the files do not say
    files: tuple[Path, ...] = ()  # of images and arrays, in order
    codec: str = ""  # of a video

    def frames(self) -> Iterator[np.ndarray]:
        """Decodes frame by frame: [H,W,4] uint8, straight alpha.

        Raises:
          UserError: a file that is damaged, ends early, changes its size, or has more than `MAX_FRAMES` frames.
        """
        decode = {"video": _decode_video, "gif": _decode_gif, "images": _decode_images, "arrays": _decode_arrays}
        for index, frame in enumerate(decode[self.kind](self)):
            if index >= MAX_FRAMES:
                raise UserError(f"{self.path}: more than {MAX_FRAMES} frames, expected fewer")
            yield frame

    def count_frames(self) -> int:
        """How many frames there are; of a video or GIF they are decoded for that.

        Raises:
          UserError: as `frames`.
        """
        return len(self.files) or sum(1 for _ in self.frames())


def find_clip(stem: Path) -> Path | None:
    """What holds the clip named `stem`: a folder of that name, or a file of that name and a known suffix."""
    if stem.is_dir():
        return stem
    suffixes = (*VIDEOS, ".gif")
    candidates = [stem.with_name(stem.name + suffix) for suffix in (*suffixes, *(each.upper() for each in suffixes))]
    return next((path for path in candidates if path.is_file()), None)


def open_clip(path: Path) -> Clip:
    """Reads the headers of a clip.

    Args:
      path: a video, a GIF, or a folder of numbered images.

    Raises:
      UserError: no such file, a kind that is not known, a damaged header, no frames, or a size out of range.
    """
    if path.is_dir():
        return open_images(path, sorted(entry for entry in path.iterdir() if _is_frame(entry)))
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a video, a GIF or a folder of images")
    if path.suffix.lower() == ".gif":
        width, height, duration, count = _probe_gif(path)
        rate = count / duration if duration > 0 else None
        return Clip(path, "gif", *_check_size(path, width, height), frame_rate=rate)
    if path.suffix.lower() in VIDEOS:
        meta = _probe_video(path)
        rate = float(meta["fps"]) or None
        height, width = _check_size(path, *meta["size"])
        return Clip(path, "video", height, width, frame_rate=rate, codec=str(meta.get("codec", "")))
    raise UserError(f"{path}: a {path.suffix or 'file without suffix'}, expected one of {', '.join((*VIDEOS, '.gif'))}")


def _is_frame(path: Path) -> bool:
    is_mask = path.stem.lower().endswith("_mask")
    return path.suffix.lower() in IMAGES and not is_mask and path.name[0] != "."


def open_images(folder: Path, files: list[Path]) -> Clip:
    """A clip of images of a folder, in the order of the last number in their names.

    Raises:
      UserError: no images, a name without a number, a number twice or left out, or a damaged header.
    """
    numbered: dict[int, Path] = {}
    for file in files:
        digits = re.findall(r"[0-9]+", file.stem)
        if not digits:
            raise UserError(f"{file}: no number in its name, expected frames such as 00000.png")
        other = numbered.setdefault(int(digits[-1]), file)
        if other != file:
            raise UserError(f"{file}: has the number of {other.name}, expected one image a frame")
    if not numbered:
        raise UserError(f"{folder}: found no images, expected frames such as 00000.png")
    order = sorted(numbered)
    absent = next((number for number in range(order[0], order[-1]) if number not in numbered), None)
    if absent is not None:
        raise UserError(f"{folder}: frame {absent} is missing, expected all from {order[0]} to {order[-1]}")
    ordered = tuple(numbered[number] for number in order)
    height, width = _check_size(ordered[0], *_image_size(ordered[0]))
    return Clip(folder, "images", height, width, files=ordered)


def open_arrays(folder: Path, files: list[Path]) -> Clip:
    """A clip of masks in `.npy` files: [H,W] or [H,W,1], floats of 0..1, bools, or bytes of 0..1 or of 0..255."""
    array = _open_array(files[0])
    return Clip(folder, "arrays", array.shape[0], array.shape[1], files=tuple(files))


def _check_size(path: Path, width: int, height: int) -> tuple[int, int]:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UserError(f"{path}: pictures of {width}x{height}, expected 1 to {MAX_SIDE} pixels a side")
    return height, width


def _refuse(path: Path, error: BaseException, expected: str) -> UserError:
    return UserError(f"{path}: cannot be read ({one_line(error)}), expected {expected}")


def _image_size(path: Path) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check_size` has a bound of its own
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except _DAMAGE as error:
        raise _refuse(path, error, "an image") from error


def read_image(path: Path, size: tuple[int, int], *, source: str) -> np.ndarray:
    """Decodes one image, whose header must say a size (width, height) that `source` asks for: [H,W,4] uint8.

    Raises:
      UserError: a damaged file, another size, or more than 8 bits a channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.size != size:
                    found = f"{image.size[0]}x{image.size[1]}"
                    raise UserError(f"{path}: image of {found}, expected {size[0]}x{size[1]} {source}")
                if image.mode not in MODES:
                    raise UserError(f"{path}: image mode {image.mode}, expected 8-bit RGBA or RGB")
                return np.array(image.convert("RGBA"))
    except _DAMAGE as error:
        raise _refuse(path, error, "an image") from error


def _decode_images(clip: Clip) -> Iterator[np.ndarray]:
    for file in clip.files:
        yield read_image(file, (clip.width, clip.height), source="as before")


def _open_array(path: Path) -> np.ndarray:
    """The array of a mask, mapped from the disk, so that a false shape takes no memory."""
    try:
        with _PARSER:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*_DAMAGE, MemoryError, OverflowError) as error:
        raise _refuse(path, error, "a .npy mask") from error
    shape, kind = array.shape, array.dtype
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)) or (kind.kind not in "fb" and kind != np.uint8):
        raise UserError(f"{path}: {kind} {list(shape)}, expected a mask [H,W] or [H,W,1] of floats, bools or bytes")
    _check_size(path, shape[1], shape[0])
    return array


def _decode_arrays(clip: Clip) -> Iterator[np.ndarray]:
    for file in clip.files:
        array = _open_array(file)
        if array.shape[:2] != (clip.height, clip.width):
            raise UserError(f"{file}: mask {list(array.shape)}, expected {clip.height}x{clip.width} as before")
        values = np.asarray(array).reshape(clip.height, clip.width)
        yield np.repeat(_mask_to_bytes(file, values)[..., None], 4, axis=-1)


def _mask_to_bytes(file: Path, values: np.ndarray) -> np.ndarray:
    """A mask of any kind that `_open_array` lets pass as uint8 of 0..255."""
    if values.dtype == np.uint8:
        # Where no pixel is above 1, 1 is the object: as 1 of 255 it could not be seen.
        return values * np.uint8(255) if values.max() <= 1 else values
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{file}: has values that are not finite, expected a mask of 0..1")
    low, high = values.min(), values.max()
    if low < -_MASK_SLACK or high > 1 + _MASK_SLACK:
        raise UserError(f"{file}: floats of {low:g} to {high:g}, expected a mask of 0..1 (or bytes of 0..255)")
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _probe_gif(path: Path) -> tuple[int, int, float, int]:
    """Width, height, seconds and frames of a GIF."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format != "GIF":
                raise UserError(f"{path}: holds a {image.format}, expected an animated GIF")
            _check_size(path, *image.size)
            count = int(getattr(image, "n_frames", 1))
            seconds = 0.0
            for index in range(min(count, MAX_FRAMES)):
                image.seek(index)
                seconds += float(image.info.get("duration", 0)) / 1000
            return image.size[0], image.size[1], seconds, count
    except _DAMAGE as error:
        raise _refuse(path, error, "an animated GIF") from error


def _decode_gif(clip: Clip) -> Iterator[np.ndarray]:
    try:
        with Image.open(clip.path, formats=FORMATS) as image:
            for index in range(int(getattr(image, "n_frames", 1))):
                image.seek(index)
                yield np.array(image.convert("RGBA"))
    except _DAMAGE as error:
        raise _refuse(clip.path, error, "an animated GIF") from error


def _read(path: Path, codec: str = "") -> Any:
    options = _WITH_ALPHA.get(codec.split(" ")[0], [])
    # An absolute path cannot be taken for an option or for an address.
    return imageio_ffmpeg.read_frames(
        str(path.absolute()), pix_fmt="rgba", bits_per_pixel=32, input_params=[*SAFE_INPUT, *options]
    )


def _probe_video(path: Path) -> dict[str, Any]:
    reader = _read(path)
    try:
        return dict(next(reader))
    except (*_DAMAGE, RuntimeError, StopIteration, KeyError) as error:
        raise _refuse(path, RuntimeError("ffmpeg finds no video in it"), "a video") from error
    finally:
        reader.close()


def _decode_video(clip: Clip) -> Iterator[np.ndarray]:
    reader = _read(clip.path, clip.codec)
    count = 0
    try:
        meta = next(reader)
        expected = round(float(meta["duration"]) * float(meta["fps"]))
        for data in reader:
            count += 1
            yield np.frombuffer(data, np.uint8).reshape(clip.height, clip.width, 4)
    except (*_DAMAGE, RuntimeError, StopIteration, KeyError) as error:
        raise _refuse(clip.path, error, "a video") from error
    finally:
        reader.close()
    # ffmpeg plays what it can of a file that was cut off; its header knows the length. Rounding costs a frame at most.
    if count < max(1, expected - 1):
        raise UserError(f"{clip.path}: ends after {count} of {expected} frames, expected a whole video")
