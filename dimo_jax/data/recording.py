"""Multi-view recordings in files of other programs, and how they become a dataset.

A reader of some layout (`authors`, `sv4d`, `camera_file`) says in a `Recording` where the clips lie and where the
cameras stand, without decoding anything; `assemble` decodes, cuts out, samples in time and resizes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dimo_jax.data import matte as mattes
from dimo_jax.data.clips import Clip
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.jobs import run_all
from dimo_jax.data.matte import Matte
from dimo_jax.errors import UserError
from dimo_jax.types import Camera

MAX_CLIP_BYTES = 2 << 30  # of one clip in memory, at the size of the dataset
_ASPECT_SLACK = 0.01  # share by which two pictures' aspect ratios may differ (rounded sizes)


@dataclass(frozen=True)
class Lens:
    """A camera without its resolution: shares of the picture, so that any size of it has the same view."""

    world_to_camera: np.ndarray  # [4,4] OpenCV
    focal: tuple[float | None, float]  # over width and over height; None over width: square pixels
    center: tuple[float, float] = (0.5, 0.5)  # of width and of height


@contextlib.contextmanager
def collect(problems: list[str] | None) -> Iterator[None]:
    """Adds a UserError of its block to `problems`; where that is None, the error goes on its way."""
    try:
        yield
    except UserError as error:
        if problems is None:
            raise
        problems.append(str(error))


def lens_of_fov(world_to_camera: np.ndarray, fov_deg: float) -> Lens:
    """A lens with square pixels, its axis in the middle of the picture, and a vertical field of view in degrees."""
    return Lens(np.asarray(world_to_camera), (None, float(0.5 / np.tan(0.5 * np.deg2rad(fov_deg)))))


@dataclass(frozen=True)
class Recording:
    """Where the clips of M motions by V views lie, and what is known of them."""

    source: str  # folder or file, for errors
    object_name: str
    lenses: tuple[Lens, ...]  # [V]
    view_names: tuple[str, ...]  # [V]
    view_splits: tuple[str, ...]  # [V]
    names: tuple[str, ...]  # [M]
    sentences: tuple[tuple[str, ...], ...]  # [M] the caption, then paraphrases
    splits: tuple[str, ...]  # [M]
    clips: Mapping[tuple[int, int], Clip]  # by motion and view
    masks: Mapping[tuple[int, int], Clip] = field(default_factory=dict)
    frame_rate: float | None = None  # of clips whose files do not say theirs
    up: str = "y"  # of the world in which the lenses stand, see `data.upright.choose_turn`


@dataclass(frozen=True)
class Sampling:
    """Which frames of clips are kept, and at what size.

    With a `frame_rate`, frames are taken at that pace from a clip's beginning (the nearest in time); with `num_frames`
    alone, they are spread evenly over the clip, both ends included; with neither, all are kept.
    """

    num_frames: int | None = None
    frame_rate: float | None = None  # frames a second
    size: int | None = None  # height in pixels; None: that of the files

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          UserError: an option is out of range.
        """
        if self.num_frames is not None and self.num_frames < 1:
            raise UserError(f"num_frames: found {self.num_frames}, expected 1 or more")
        if self.frame_rate is not None and not 0 < self.frame_rate <= 1000:
            raise UserError(f"frame_rate: found {self.frame_rate:g}, expected more than 0 and at most 1000")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise UserError(f"size: found {self.size}, expected 8..4096")


def pick_frames(count: int, rate: float | None, sampling: Sampling, where: str) -> tuple[np.ndarray, float | None]:
    """Which of a clip's frames are kept.

    Args:
      count: frames of the clip.
      rate: frames a second of the clip; None where it is not known.
      sampling: what to keep.
      where: the clip's name, for errors.

    Returns:
      Indices [T], and the rate of the kept frames (None where the clip's is not known).

    Raises:
      UserError: more frames are asked for than there are, or a pace is and the clip's is not known.
    """
    wanted = sampling.num_frames
    if sampling.frame_rate is not None:
        if rate is None:
            raise UserError(f"{where}: its frame rate is not known, expected frame_rate beside the cameras")
        step = rate / sampling.frame_rate
        fitting = int(np.floor((count - 1) / step + 0.5)) + 1 if wanted is None else wanted
        indices = np.round(np.arange(fitting) * step).astype(int)
        if indices[-1] > count - 1:
            raise UserError(
                f"{where}: {count} frames at {rate:g} a second, expected {indices[-1] + 1} or more for num_frames="
                f"{fitting} at {sampling.frame_rate:g} a second"
            )
        return indices, sampling.frame_rate
    if wanted is None or wanted == count:
        return np.arange(count), rate
    if wanted > count:
        raise UserError(f"{where}: {count} frames, expected at least {wanted} (num_frames)")
    indices = np.round(np.linspace(0, count - 1, wanted)).astype(int)
    return indices, None if rate is None or wanted == 1 else rate * (wanted - 1) / (count - 1)


def is_same_shape(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have one aspect ratio, up to what rounding to pixels makes of it."""
    return abs(first[0] * second[1] / (first[1] * second[0]) - 1) <= _ASPECT_SLACK


def choose_size(recording: Recording, sampling: Sampling) -> tuple[int, int]:
    """Height and width of the dataset's pictures.

    Raises:
      UserError: clips of several sizes without a `size` to bring them to, or of several shapes.
    """
    items = list(recording.clips.values())
    first = items[0]
    for clip in items:
        same = (clip.height, clip.width) == (first.height, first.width)
        found = f"{clip.path}: pictures of {clip.width}x{clip.height}, {first.path} has {first.width}x{first.height}"
        if not is_same_shape((clip.width, clip.height), (first.width, first.height)):
            raise UserError(f"{found}; expected one shape")
        if not same and sampling.size is None:
            raise UserError(f"{found}; expected one size (or --size to bring all to one)")
    if sampling.size is None:
        return first.height, first.width
    return sampling.size, max(1, round(sampling.size * first.width / first.height))


def build_cameras(lenses: Sequence[Lens], height: int, width: int) -> Camera:
    """Lenses at a resolution: NumPy arrays with a leading axis V; poses of float64 until placed, the rest float32."""
    focals = [[fy * height if fx is None else fx * width, fy * height] for fx, fy in (lens.focal for lens in lenses)]
    centers = [[lens.center[0] * width, lens.center[1] * height] for lens in lenses]
    return Camera(
        world_to_camera=np.stack([np.asarray(lens.world_to_camera, np.float64) for lens in lenses]),  # type: ignore[arg-type]
        focal=np.asarray(focals, np.float32),  # type: ignore[arg-type]
        center=np.asarray(centers, np.float32),  # type: ignore[arg-type]
        height=height,
        width=width,
    )


def read_clip(
    clip: Clip, mask: Clip | None, matte: Matte, height: int, width: int, *, keep: np.ndarray | None = None
) -> np.ndarray:
    """Frames of one clip, cut out and resized: [T,height,width,4] uint8.

    Args:
      clip: which.
      mask: its masks, if it has any.
      matte: how its background becomes transparent.
      height: of the result in pixels.
      width: likewise.
      keep: [T] indices of the frames, rising; None takes all. Cutting out takes the most time by far, so others are
        decoded only.

    Raises:
      UserError: damaged files, a mask of another size or length, no background to be found, or too many frames.
    """
    if mask is not None and (mask.height, mask.width) != (clip.height, clip.width):
        raise UserError(
            f"{mask.path}: masks of {mask.width}x{mask.height}, expected {clip.width}x{clip.height} as {clip.path}"
        )
    frames: list[np.ndarray] = []
    wanted = None if keep is None else set(keep.tolist())
    settled, covers, index = matte, None, -1
    for index, frame in enumerate(clip.frames()):
        if index == 0:
            settled = mattes.settle(matte, frame, has_masks=mask is not None, where=str(clip.path))
            covers = mask.frames() if mask is not None and settled.how == "masks" else None
        cover = None if covers is None else next(covers, None)
        if mask is not None and covers is not None and cover is None:
            raise UserError(f"{mask.path}: only {index} masks, expected one for each frame of {clip.path}")
        if wanted is not None and index not in wanted:
            continue
        frames.append(mattes.resize(mattes.apply(settled, frame, cover), height, width))
        if len(frames) * frames[0].nbytes > MAX_CLIP_BYTES:
            raise UserError(f"{clip.path}: too long for memory at {width}x{height}, expected a shorter clip or --size")
    if not frames:
        raise UserError(f"{clip.path}: no frames in it, expected a video")
    if mask is not None and covers is not None and next(covers, None) is not None:
        raise UserError(f"{mask.path}: more than {index + 1} masks, expected one for each frame of {clip.path}")
    order = slice(None) if keep is None else np.unique(keep, return_inverse=True)[1]  # a frame may be kept twice
    return np.stack(frames)[order]


def assemble(recording: Recording, *, sampling: Sampling | None = None, matte: Matte | None = None) -> Dataset:
    """Decodes a recording.

    Args:
      recording: what a reader found.
      sampling: which frames, at what size; the intrinsics follow.
      matte: how backgrounds become transparent.

    Raises:
      UserError: damaged or missing clips, motions or views of different lengths, sizes or shapes; the file is named.
    """
    sampling, matte = sampling or Sampling(), matte or Matte()
    height, width = choose_size(recording, sampling)
    kept: dict[tuple[int, int], np.ndarray] = {}
    rates: dict[tuple[int, int], float | None] = {}

    def read(key: tuple[int, int]) -> int:
        clip = recording.clips[key]
        keep, rates[key] = None, clip.frame_rate or recording.frame_rate
        if sampling.num_frames is not None or sampling.frame_rate is not None:
            keep, rates[key] = pick_frames(clip.count_frames(), rates[key], sampling, str(clip.path))
        kept[key] = read_clip(clip, recording.masks.get(key), matte, height, width, keep=keep)
        return 1

    keys = sorted(recording.clips)
    jobs = [functools.partial(read, key) for key in keys]
    run_all(jobs, len(keys), f"reading {recording.object_name}", max_workers=4)  # a clip may take 2 GiB
    num_motions, num_views = len(recording.names), len(recording.view_names)
    counts = {key: len(kept[key]) for key in keys}
    odd = next((key for key in keys if counts[key] != counts[keys[0]]), None)
    if odd is not None:
        raise UserError(
            f"{recording.clips[odd].path}: {counts[odd]} frames, expected {counts[keys[0]]} as in "
            f"{recording.clips[keys[0]].path} (or --num_frames to take as many from all)"
        )
    frames = np.empty((num_motions, num_views, counts[keys[0]], height, width, 4), np.uint8)
    for key in keys:
        frames[key] = kept.pop(key)
    return outline(recording, frames, height, width, frame_rate=_common_rate(recording, list(rates.values())))


def _common_rate(recording: Recording, rates: list[float | None]) -> float:
    known = [rate for rate in rates if rate is not None]
    if not known:
        raise UserError(f"{recording.source}: found no frame rate, expected frame_rate beside the cameras")
    return round(float(np.median(known)), 3)


def outline(recording: Recording, frames: np.ndarray, height: int, width: int, *, frame_rate: float) -> Dataset:
    """The dataset of a recording with the given frames [M,V,T,height,width,4]."""
    return Dataset(
        frames=frames,
        cameras=build_cameras(recording.lenses, height, width),
        names=recording.names,
        captions=tuple(group[0] for group in recording.sentences),
        splits=recording.splits,
        view_names=recording.view_names,
        view_splits=recording.view_splits,
        frame_rate=frame_rate,
        object_name=recording.object_name,
        paraphrases=recording.sentences if any(len(group) > 1 for group in recording.sentences) else (),
    )
