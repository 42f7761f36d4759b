"""The layout of DIMO's authors: `<motion>/view_VV/FF.png`, `FF_mask.npy` beside images without alpha, `info.json`.

info.json: azimuths_deg [V]; elevations_deg [V], or one number `elevation`; optionally input_videos (motions, in order),
num_frames and frame_rate. Captions lie in captions.txt (ours) or captions.json (theirs).

Their cameras (https://github.com/Friedrich-M/DIMO, cameras.py, read for its facts): a ring of radius 2 with a vertical
field of view of 33.9 degrees, looking at the origin, the world +Y up; azimuth 0 stands on +Z, increasing towards +X; a
*positive elevation is below the horizon* (y = -radius sin(elevation)). The pose is an OpenGL camera-to-world matrix,
whose inverse has its y and z axes turned over for the rasterizer. In our terms that is an orbit at minus the elevation.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.data.captions import read_authors_captions, read_captions
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats.assembly import fill, plan_recording
from dimo_jax.data.formats.native import store_frames
from dimo_jax.data.formats.recording import Lens, Recording, collect, lens_of_fov, outline
from dimo_jax.io.clips import Clip, open_images
from dimo_jax.io.json_fields import check_distinct, check_name, get_count, get_field, load_json
from dimo_jax.io.masks import find_masks_beside
from dimo_jax.io.matte import Matte

FILE = "info.json"
RADIUS = 2.0
FOV_DEG = 33.9
FRAME_RATE = 8.0  # of the videos that their code writes; the layout has none
WHITE = Matte(color=(255, 255, 255))  # their renders stand on white where no mask was kept
MAX_VIEWS = 1000
MAX_FRAMES = 10_000
MAX_DEGREES = 1e6


def make_lenses(azimuths_deg: Any, elevations_deg: Any, *, fov_deg: float = FOV_DEG) -> tuple[Lens, ...]:
    """The authors' cameras as ours: azimuths [V] and elevations [V] or one, in degrees and with their signs."""
    cameras = orbit(
        azimuths_deg, -np.asarray(elevations_deg, np.float64), radius=RADIUS, fov_deg=fov_deg, height=1, width=1
    )
    return tuple(lens_of_fov(pose, fov_deg) for pose in np.asarray(cameras.world_to_camera))


def _numbers(table: Any, key: str, where: str) -> list[float]:
    values = get_field(table, key, list, where)
    plain = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not values or len(values) > MAX_VIEWS or not plain or not all(abs(value) <= MAX_DEGREES for value in values):
        raise UserError(f"{where}: {key} is {str(values)[:60]}, expected 1 to {MAX_VIEWS} finite numbers")
    return [float(value) for value in values]


def _elevations(table: Any, num_views: int, where: str) -> list[float]:
    if "elevations_deg" in table:
        found = _numbers(table, "elevations_deg", where)
        if len(found) != num_views:
            raise UserError(f"{where}: {len(found)} elevations_deg, expected {num_views} as azimuths_deg")
    else:
        found = [float(get_field(table, "elevation", (int, float), where, default=0.0))] * num_views
    odd = [degrees for degrees in found if not -90 <= degrees <= 90]
    if odd:
        raise UserError(f"{where}: an elevation is {odd[0]:g}, expected -90 to 90 degrees")
    return found


def _motions(table: Any, folder: Path, where: str) -> list[str]:
    listed = get_field(table, "input_videos", list, where, default=None) if "input_videos" in table else None
    if listed is None:
        listed = sorted(entry.name for entry in folder.iterdir() if (entry / "view_00").is_dir())
    if not listed:
        raise UserError(f"{folder}: found no motions, expected folders <motion>/view_00 with 00.png, 01.png, ...")
    for name in listed:
        if not isinstance(name, str):
            raise UserError(f"{where}: input_videos has {str(name)[:40]!r}, expected names of motions")
        check_name(name, f"{where}: input_videos")
    check_distinct(listed, "motion", folder / FILE)
    return listed


def _open_view(folder: Path, num_frames: int | None) -> tuple[Clip, Clip | None]:
    """Images and masks of one view."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder, expected the images of a view")
    files = sorted(path for path in folder.glob("*.png") if path.stem.isascii() and path.stem.isdigit())
    clip = open_images(folder, files)
    if num_frames is not None and len(clip.files) != num_frames:
        raise UserError(f"{folder}: {len(clip.files)} images, expected {num_frames} (num_frames of {FILE})")
    if clip.height != clip.width:
        raise UserError(f"{folder}: pictures of {clip.width}x{clip.height}, expected square ones, as the authors' are")
    return clip, find_masks_beside(clip)


def describe_authors(folder: str | Path, *, problems: list[str] | None = None) -> Recording:
    """Finds the clips, masks, cameras and captions of a folder in the authors' layout.

    Args:
      folder: the one with `info.json`.
      problems: takes what is wrong with single views, which are then left out of `clips`; None raises the first.

    Raises:
      UserError: anything missing, malformed or inconsistent; one line with the file.
    """
    root = Path(folder)
    path = root / FILE
    if not path.is_file():
        raise UserError(f"{root}: found no {FILE}, expected the authors' layout")
    table, where = load_json(path), str(path)
    azimuths = _numbers(table, "azimuths_deg", where)
    lenses = make_lenses(azimuths, _elevations(table, len(azimuths), where))
    names = _motions(table, root, where)
    num_frames = get_count(table, "num_frames", MAX_FRAMES, where) if "num_frames" in table else None
    rate = float(get_field(table, "frame_rate", (int, float), where, default=FRAME_RATE))
    if not 0 < rate <= 1000:
        raise UserError(f"{where}: frame_rate is {rate}, expected frames a second above 0")
    views = tuple(f"view_{index:02d}" for index in range(len(azimuths)))
    clips: dict[tuple[int, int], Clip] = {}
    masks: dict[tuple[int, int], Clip] = {}
    for m, name in enumerate(names):
        for v, view in enumerate(views):
            with collect(problems):
                clips[m, v], mask = _open_view(root / name / view, num_frames)
                if mask is not None:
                    masks[m, v] = mask
    return Recording(
        source=str(root),
        object_name=root.resolve().name,
        lenses=lenses,
        view_names=views,
        view_splits=("train",) * len(views),
        names=tuple(names),
        sentences=tuple(read_captions(root, names, read_authors_captions(root, names))),
        splits=("train",) * len(names),
        clips=clips,
        masks=masks,
        frame_rate=rate,
    )


def read_authors(folder: str | Path, *, store: str = "memory") -> Dataset:
    """Reads a folder in the authors' layout, as it is: every frame, at its own size.

    Alpha comes from the masks, from the images' own alpha, or, where there is neither, from the white background.

    Args:
      folder: the one with `info.json`.
      store: where the frames are kept, see `data.native.read_dataset`.

    Raises:
      UserError: as `describe_authors`, or a damaged image or mask.
    """
    recording = describe_authors(folder)
    logging.info("%s: the authors' layout; positive elevations are below the horizon, as in their code", folder)
    plan = plan_recording(recording, matte=WHITE)
    files = [path for clip in (*recording.clips.values(), *recording.masks.values()) for path in clip.files]
    report = functools.partial(logging.warning, "%s")
    frames = store_frames(Path(folder), files, plan.shape, lambda out: fill(plan, out, report=report), store=store)
    return outline(recording, frames, plan.height, plan.width, frame_rate=plan.frame_rate)
