"""Multi-view recordings in files of other programs.

A reader of some layout (`authors`, `sv4d`, `camera_file`) says in a `Recording` where the clips lie and where the
cameras stand, without decoding anything; `data.assembly` makes a dataset of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.dataset import Dataset
from dimo_jax.io.clips import Clip
from dimo_jax.io.clocks import Sampling

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
    may_fill: bool = False  # whether pictures may be opaque everywhere, as those of a scene are
    notes: tuple[str, ...] = ()  # what is unusual, a line each


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
