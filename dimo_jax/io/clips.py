"""Moving pictures from files of other programs: a video, an animation, numbered images, or numbered arrays.

A clip is known by its headers first (`open_clip`), which bounds what decoding may take; then its frames come one by one
(`Clip.frames`), so that a long video is never in memory at its full size.
"""

from __future__ import annotations

import re
import threading
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io.clocks import MAX_FRAMES, Clock
from dimo_jax.io.ffmpeg import decode_video, probe_video, read_video_clock
from dimo_jax.io.pictures import DAMAGE, IMAGES, check_size, open_picture, picture_size, read_image, refuse

VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")
ANIMATIONS = (".gif", ".webp", ".apng", ".png")
# NumPy reads the header of an array as Python source, and the parser of Python 3.11 counts the depth of all threads
# together: now and then it raises SystemError where two parse at once (python/cpython issue 106905).
_PARSER = threading.Lock()
_HASTY, _UNHURRIED = 0.01, 0.1  # seconds: browsers show an animation's frames of no delay, or of next to none, so long


@dataclass(frozen=True)
class Clip:
    """A moving picture whose headers are read and found plausible."""

    path: Path  # the file, or the folder of the images
    kind: str  # "video", "animation", "images" or "arrays"
    height: int  # as it is shown: turned, and with square pixels, where the file says so
    width: int
    files: tuple[Path, ...] = ()  # of images and arrays, in order
    codec: str = ""  # of a video

    def frames(self) -> Iterator[np.ndarray]:
        """Decodes frame by frame: [H,W,4] uint8, straight alpha. Arrays are masks, see `data.masks`.

        Raises:
          UserError: a file that is damaged, changes its size, or has more than `MAX_FRAMES` frames.
        """
        decode = {"video": _decode_video, "animation": _decode_animation, "images": _decode_images}
        for index, frame in enumerate(decode[self.kind](self)):
            if index >= MAX_FRAMES:
                raise UserError(f"{self.path}: more than {MAX_FRAMES} frames, expected fewer")
            yield frame

    def read_clock(self) -> Clock | int:
        """The time of every frame by its own stamp; of files that have none only how many there are.

        A video is decoded for that.

        Raises:
          UserError: as `frames`, or a video is cut off.
        """
        if self.kind == "video":
            return read_video_clock(self.path, self.codec)
        if self.kind == "animation":
            return _read_delays(self.path)
        return len(self.files)


def find_clip(stem: Path) -> Path | None:
    """What holds the clip named `stem`: a folder of that name, or a file of that name and a known suffix."""
    if stem.is_dir():
        return stem
    suffixes = (*VIDEOS, *ANIMATIONS)
    candidates = [stem.with_name(stem.name + suffix) for suffix in (*suffixes, *(each.upper() for each in suffixes))]
    return next((path for path in candidates if path.is_file()), None)


def open_clip(path: Path) -> Clip:
    """Reads the headers of a clip.

    Args:
      path: a video, an animation, or a folder of numbered images.

    Raises:
      UserError: no such file, a kind that is not known, a damaged header, no frames, a size out of range, or a video
        that is cut off.
    """
    if path.is_dir():
        return open_images(path, sorted(entry for entry in path.iterdir() if _is_frame(entry)))
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a video, an animation or a folder of images")
    if path.suffix.lower() in ANIMATIONS:
        with open_picture(path) as image:
            height, width = check_size(path, *image.size)
        return Clip(path, "animation", height, width)
    if path.suffix.lower() in VIDEOS:
        height, width, codec = probe_video(path)
        return Clip(path, "video", height, width, codec=codec)
    known = ", ".join((*VIDEOS, *ANIMATIONS))
    raise UserError(f"{path}: a {path.suffix or 'file without suffix'}, expected one of {known}")


def _is_frame(path: Path) -> bool:
    is_mask = path.stem.lower().endswith("_mask")
    return path.suffix.lower() in IMAGES and not is_mask and path.name[0] != "."


def _in_order(folder: Path, files: list[Path]) -> tuple[Path, ...]:
    """Files by the last number in their names.

    Raises:
      UserError: no files, a name without a number, or a number twice or left out.
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
    return tuple(numbered[number] for number in order)


def open_images(folder: Path, files: list[Path]) -> Clip:
    """A clip of images of a folder, in the order of the last number in their names.

    Raises:
      UserError: no images, a name without a number, a number twice or left out, or a damaged header.
    """
    ordered = _in_order(folder, files)
    width, height = picture_size(ordered[0])
    return Clip(folder, "images", height, width, files=ordered)


def open_arrays(folder: Path, files: list[Path]) -> Clip:
    """A clip of masks in `.npy` files, [H,W] or [H,W,1], in the order of the last number in their names.

    Raises:
      UserError: as `open_images`.
    """
    ordered = _in_order(folder, files)
    array = load_array(ordered[0])
    return Clip(folder, "arrays", array.shape[0], array.shape[1], files=ordered)


def load_array(path: Path) -> np.ndarray:
    """The array of a mask, mapped from the disk, so that a false shape takes no memory."""
    try:
        with _PARSER:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*DAMAGE, MemoryError, tokenize.TokenError) as error:
        raise refuse(path, error, "a .npy mask") from error
    shape, kind = array.shape, array.dtype
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)) or kind.kind not in "fbiu":
        raise UserError(f"{path}: {kind} {list(shape)}, expected a mask [H,W] or [H,W,1] of numbers or bools")
    check_size(path, shape[1], shape[0])
    return array


def _decode_images(clip: Clip) -> Iterator[np.ndarray]:
    for file in clip.files:
        yield read_image(file, (clip.width, clip.height), source="as before")


def _decode_video(clip: Clip) -> Iterator[np.ndarray]:
    return decode_video(clip.path, clip.codec, clip.height, clip.width)


def _seek_all(image: Image.Image) -> Iterator[int]:
    """Goes to every frame of an animation; the picture that an APNG has for programs without animation is none."""
    for index in range(1 if getattr(image, "default_image", False) else 0, int(getattr(image, "n_frames", 1))):
        image.seek(index)
        yield index


def _decode_animation(clip: Clip) -> Iterator[np.ndarray]:
    with open_picture(clip.path) as image:
        for _ in _seek_all(image):
            yield np.array(image.convert("RGBA"))


def _read_delays(path: Path) -> Clock | int:
    """The times of an animation's frames; of a still picture only that it is one."""
    delays: list[float] = []
    with open_picture(path) as image:
        if getattr(image, "n_frames", 1) == 1:
            return 1
        for index in _seek_all(image):
            if index > MAX_FRAMES:
                raise UserError(f"{path}: more than {MAX_FRAMES} frames, expected fewer")
            if image.format == "WEBP":
                image.load()  # tells its delay only then
            seconds = float(image.info.get("duration", 0)) / 1000
            delays.append(seconds if seconds > _HASTY else _UNHURRIED)
    times = np.concatenate([[0.0], np.cumsum(delays)])
    return Clock(times[:-1], float(times[-1]), tick=0.001)
