"""Plain multi-view videos with a small file `cameras.json` beside them; docs/data.md describes it for users.

    {"schema_version": 1, "object_name": "fox", "frame_rate": 12, "up": "y", "image": {"width": 640, "height": 480},
     "views": [{"name": "front", "azimuth_deg": 0, "elevation_deg": 10, "radius": 2, "fov_deg": 33.9},
               {"name": "side", "split": "test", "world_to_camera": [4 x 4], "focal": [fx, fy], "center": [cx, cy]},
               {"name": "back", "camera_to_world": [4 x 4], "axes": "opengl", "fov_deg": 40}],
     "motions": [{"name": "walk", "caption": "It walks.", "split": "train",
                  "clips": {"front": "walk_front.mp4", "side": "walk/side"}, "masks": {"front": "walk_mask.mp4"}}]}

Only `views` is needed: a motion is then every folder beside the file, its clips are `<motion>/<view>.mp4` (or another
video, or an animation, or a folder of images) and its masks `<motion>/<view>_mask.*`, or NAME_mask.* beside its images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dimo_jax.cameras.orbits import orbit
from dimo_jax.cameras.upright import CHOICES
from dimo_jax.core.errors import UserError
from dimo_jax.data.captions import read_captions
from dimo_jax.data.formats.recording import Lens, Recording, collect, is_same_shape, lens_of_fov
from dimo_jax.io.clips import Clip, find_clip, open_clip
from dimo_jax.io.json_fields import (
    check_distinct,
    check_name,
    check_rigid,
    get_array,
    get_count,
    get_field,
    get_split,
    load_json,
)
from dimo_jax.io.masks import find_masks, open_mask

FILE = "cameras.json"
SCHEMA_VERSION = 1
MAX_SIDE = 8192
_ORBIT = ("azimuth_deg", "elevation_deg", "radius")
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's camera looks along -z with y up, OpenCV's along +z with y down


def get_number(table: Any, key: str, where: str, low: float, high: float, *, default: float | None = None) -> float:
    """A number of `low` to `high` in field `key`.

    Raises:
      UserError: none, or out of range.
    """
    absent: dict[str, Any] = {} if default is None else {"default": default}
    value = float(get_field(table, key, (int, float), where, **absent))
    if not low <= value <= high:
        raise UserError(f"{where}: {key} is {value:g}, expected {low:g} to {high:g}")
    return value


def _parse_pose(view: Any, where: str) -> np.ndarray:
    """World to camera [4,4], from any of the three forms."""
    given = [key for key in ("world_to_camera", "camera_to_world", "azimuth_deg") if key in view]
    if len(given) != 1:
        raise UserError(
            f"{where}: found {' and '.join(given) or 'no pose'}, expected one of world_to_camera, camera_to_world and "
            "azimuth_deg"
        )
    if given[0] == "azimuth_deg":
        azimuth = get_number(view, "azimuth_deg", where, -1e6, 1e6)
        elevation = get_number(view, "elevation_deg", where, -90, 90, default=0.0)
        radius = get_number(view, "radius", where, 1e-6, 1e9, default=2.0)
        return np.asarray(orbit([azimuth], elevation, radius=radius, fov_deg=45, height=1, width=1).world_to_camera[0])
    axes = get_field(view, "axes", str, where, default="opencv")
    if axes not in ("opencv", "opengl"):
        raise UserError(f"{where}: axes is {axes[:40]!r}, expected 'opencv' or 'opengl'")
    pose: np.ndarray = get_array(view, given[0], (4, 4), where, dtype=np.float64)
    check_rigid(pose, given[0], where)
    if given[0] == "camera_to_world":
        pose = np.linalg.inv(pose)
    return FLIP @ pose if axes == "opengl" else pose


def parse_lens(view: Any, image: tuple[int, int] | None, where: str) -> Lens:
    """The camera of one of `views`; `image` is the width and height that a focal length in pixels is for."""
    pose = _parse_pose(view, where)
    if "fov_deg" in view and "focal" in view:
        raise UserError(f"{where}: found both fov_deg and focal, expected one of them")
    if "focal" not in view:
        return lens_of_fov(pose, get_number(view, "fov_deg", where, 0.1, 170))
    if image is None:
        raise UserError(f"{where}: focal needs the size that it is for, expected image with width and height")
    width, height = image
    focal = get_array(view, "focal", (2,), where)
    if focal.min() <= 0:
        raise UserError(f"{where}: focal is {focal.tolist()}, expected positive pixels")
    center = get_array(view, "center", (2,), where) if "center" in view else np.asarray([width / 2, height / 2])
    return Lens(
        pose,
        (float(focal[0]) / width, float(focal[1]) / height),
        (float(center[0]) / width, float(center[1]) / height),
    )


def find_inside(root: Path, text: Any, where: str) -> Path:
    """A path that a file names, which must stay in the folder `root`.

    Raises:
      UserError: no such path; `where` names file and field.
    """
    if not isinstance(text, str) or not text:
        raise UserError(f"{where}: found {str(text)[:60]!r}, expected a path inside the folder")
    pure = PurePosixPath(text)
    path = root / pure
    if len(text) > 1000 or any(len(part.encode()) > 255 for part in pure.parts):
        raise UserError(f"{where}: path {text[:80]!r} is longer than files' names are, expected one inside {root}")
    if pure.is_absolute() or ".." in pure.parts or "\\" in text or "\0" in text:
        raise UserError(f"{where}: path {text[:80]!r} leaves the folder, expected one inside {root}")
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where}: path {text[:80]!r} is a link out of the folder, expected a file inside {root}")
    return path


def _listed_motions(table: Any, root: Path, where: str) -> list[dict[str, Any]]:
    if "motions" in table:
        motions = get_field(table, "motions", list, where)
    else:
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
        motions = [{"name": name} for name in folders]
    if not motions:
        raise UserError(f"{root}: found no motions, expected a folder for each, or motions in {FILE}")
    return motions


def _find_clip(root: Path, motion: Any, view: str, stem: Path, where: str) -> Path | None:
    """The clip of a view: as the file says, or where it lies by default."""
    table = get_field(motion, "clips", dict, where, default={})
    return find_inside(root, table[view], f"{where}: clips of {view}") if view in table else find_clip(stem)


def _find_masks(root: Path, motion: Any, view: str, stem: Path, clip: Clip, where: str) -> Clip | None:
    """Likewise its masks."""
    table = get_field(motion, "masks", dict, where, default={})
    return (
        open_mask(find_inside(root, table[view], f"{where}: masks of {view}"))
        if view in table
        else find_masks(stem, clip)
    )


def describe_videos(folder: str | Path, *, problems: list[str] | None = None) -> Recording:
    """Reads `cameras.json` of a folder and finds its clips.

    Args:
      folder: the one with that file.
      problems: takes what is wrong with single clips, which are then left out of `clips`; None raises the first.

    Raises:
      UserError: anything missing, malformed, inconsistent, or outside of the folder.
    """
    root = Path(folder)
    path = root / FILE
    if not path.is_file():
        raise UserError(f"{root}: found no {FILE}, expected one beside the videos")
    table, where = load_json(path), str(path)
    version = get_field(table, "schema_version", int, where)
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version}, expected {SCHEMA_VERSION}")
    image = None
    if "image" in table:
        width, height = (get_count(table["image"], key, MAX_SIDE, f"{where}: image") for key in ("width", "height"))
        image = (width, height)
    views = get_field(table, "views", list, where)
    if not views:
        raise UserError(f"{path}: views is empty, expected at least 1")
    names, splits, lenses = [], [], []
    for index, view in enumerate(views):
        names.append(check_name(get_field(view, "name", str, f"{where}: views[{index}]"), f"{where}: views[{index}]"))
        splits.append(get_split(view, f"{where}: view {names[-1]}", default="train"))
        lenses.append(parse_lens(view, image, f"{where}: view {names[-1]}"))
    check_distinct(names, "view", path)
    up = _parse_up(table, views, where)
    motions, motion_splits, sentences, clips, masks = _parse_motions(table, root, names, where, problems)
    if image is not None and any("focal" in view for view in views):
        _check_aspects(clips, image, where, problems)
    return Recording(
        source=str(root),
        object_name=get_field(table, "object_name", str, where, default=root.resolve().name),
        lenses=tuple(lenses),
        view_names=tuple(names),
        view_splits=tuple(splits),
        names=tuple(motions),
        sentences=tuple(read_captions(root, motions, sentences)),
        splits=tuple(motion_splits),
        clips=clips,
        masks=masks,
        frame_rate=get_number(table, "frame_rate", where, 1e-3, 1000) if "frame_rate" in table else None,
        up=up,
    )


def _parse_up(table: Any, views: list[Any], where: str) -> str:
    """Which way is up in the world of the poses: as the file says, else as the cameras see it."""
    on_orbit = [view for view in views if "azimuth_deg" in view]
    up = str(get_field(table, "up", str, where, default="y" if on_orbit else "auto"))
    if up not in CHOICES:
        raise UserError(f"{where}: up is {up[:20]!r}, expected one of {', '.join(CHOICES)}")
    if on_orbit and up != "y":
        raise UserError(f"{where}: up is {up}, expected y, which azimuth_deg of view {on_orbit[0]['name']} is about")
    return up


def _check_aspects(
    clips: Mapping[tuple[int, int], Clip], image: tuple[int, int], where: str, problems: list[str] | None
) -> None:
    """Intrinsics in pixels of `image` fit clips of its shape alone, not ones that were cropped or stretched since."""
    for clip in clips.values():
        with collect(problems):
            if not is_same_shape((clip.width, clip.height), image):
                raise UserError(
                    f"{clip.path}: pictures of {clip.width}x{clip.height}, expected the shape of image in {where}, "
                    f"{image[0]}x{image[1]}, which focal is for"
                )


def _parse_motions(table: Any, root: Path, views: list[str], where: str, problems: list[str] | None) -> tuple[Any, ...]:
    """Names, splits, sentences, clips and masks of the motions."""
    names: list[str] = []
    splits: list[str] = []
    sentences: list[tuple[str, ...]] = []
    clips: dict[tuple[int, int], Clip] = {}
    masks: dict[tuple[int, int], Clip] = {}
    for m, motion in enumerate(_listed_motions(table, root, where)):
        name = check_name(get_field(motion, "name", str, f"{where}: motions[{m}]"), f"{where}: motions[{m}]")
        here = f"{where}: motion {name}"
        names.append(name)
        splits.append(get_split(motion, here, default="train"))
        sentences.append((get_field(motion, "caption", str, here, default=name.replace("_", " ")),))
        for key in ("clips", "masks"):
            unknown = [view for view in get_field(motion, key, dict, here, default={}) if view not in views]
            if unknown:
                raise UserError(f"{here}: {key} has {unknown[0][:40]!r}, expected names of views: {', '.join(views)}")
        for v, view in enumerate(views):
            stem = root / name / view
            with collect(problems):
                found = _find_clip(root, motion, view, stem, here)
                if found is None:
                    raise UserError(f"{stem}: no such clip, expected {view}.mp4, another video, or a folder of images")
                clips[m, v] = open_clip(found)
                mask = _find_masks(root, motion, view, stem, clips[m, v], here)
                if mask is not None:
                    masks[m, v] = mask
    check_distinct(names, "motion", root / FILE)
    return names, splits, sentences, clips, masks
