"""Posed pictures of NeRF, instant-ngp and nerfstudio: `transforms.json`, or `transforms_train.json` and `_test.json`.

    {"camera_angle_x": 0.69, "frames": [{"file_path": "./train/r_0", "transform_matrix": [4 x 4]}]}
    {"fl_x": 600, "fl_y": 600, "cx": 320, "cy": 240, "w": 640, "h": 480, "up": [0, 0, 1],
     "frames": [{"file_path": "images/0001.jpg", "mask_path": "masks/0001.png", "transform_matrix": [4 x 4]}]}

A matrix is camera to world with OpenGL's axes (x right, y up, z back), in a world with +Z up; angles are radians; the
lens may be given for the file or for a frame, in pixels of `w` x `h` with pixel centres at +0.5. (NeRF's own code sends
rays through pixels' corners, half a pixel beside where Blender rendered; its matrices and angles are Blender's.) Facts
from https://github.com/bmild/nerf, https://github.com/NVlabs/instant-ngp and https://docs.nerf.studio. Not read are
`aabb_scale`, `scale` and `offset` (instant-ngp's box), `applied_transform` (applied already), depths and point clouds.

The pictures are one motion "still" of one frame.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from dimo_jax.cameras.upright import (
    ACROSS_DEG,
    AXES,
    CHOICES,
    NEAR_DEG,
    angle_deg,
    choose_turn,
    find_up,
    format_direction,
)
from dimo_jax.core.errors import UserError
from dimo_jax.data.captions import read_captions
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats.assembly import fill, plan_recording
from dimo_jax.data.formats.camera_file import FLIP, find_inside, get_number
from dimo_jax.data.formats.native import store_frames
from dimo_jax.data.formats.recording import Lens, Recording, collect, is_same_shape, outline
from dimo_jax.data.world import place_dataset
from dimo_jax.geometry.world import World
from dimo_jax.io.clips import Clip
from dimo_jax.io.json_fields import check_rigid, get_array, get_field, load_json
from dimo_jax.io.matte import Matte
from dimo_jax.io.pictures import IMAGES, check_size, open_picture

FILE = "transforms.json"
SPLIT_FILES = {"train": "transforms_train.json", "test": "transforms_test.json"}
MOTION = "still"
FRAME_RATE = 1.0  # of one frame
TEST_EVERY = 8  # of a single file's pictures the 8th, 16th, ... are kept from training; the first is the reference
MAX_FRAMES = 10_000
MODELS = (
    "PINHOLE",
    "SIMPLE_PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "perspective",
)  # without distortion, all one
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_ODD_LENSES = ("is_fisheye", "equirectangular", "ftheta_p0", "latlong", "orthographic")
_FOCALS = ("fl_x", "camera_angle_x")
_MAX_PIXELS = 1e6
_AXIS_DEG = 1.0  # from an axis within which a vector `up` is that axis


@dataclass(frozen=True)
class _Shot:
    """An entry of `frames`."""

    entry: Any
    table: Any  # of its file, for what the entry does not say
    split: str
    where: str  # file and place, for errors


def is_transforms(folder: Path) -> bool:
    """Whether a folder has one of the files."""
    return any((folder / name).is_file() for name in (FILE, SPLIT_FILES["train"]))


def describe_transforms(folder: str | Path, *, problems: list[str] | None = None) -> Recording:
    """Finds the pictures, masks, cameras and splits of a folder.

    Args:
      folder: the one with `transforms_train.json` (and `transforms_test.json`), or with `transforms.json`.
      problems: takes what is wrong with single pictures, which are then left out of `clips`; None raises the first.

    Returns:
      A recording of one motion, views in the order of the files, those that train first where there are two; `up` is
      what the file says, or +Z unless level cameras see up across it.

    Raises:
      UserError: anything missing, malformed, inconsistent, outside of the folder, or a lens that is not a pinhole; one
        line with the file and the entry.
    """
    root = Path(folder)
    shots = _list_shots(root)
    poses = np.stack([_parse_pose(shot) for shot in shots])
    paths = [_find_picture(root, shot) for shot in shots]
    _check_pairs(shots, paths)
    clips, masks, notes = _open_pictures(root, shots, paths, problems)
    size = (clips[min(clips)].width, clips[min(clips)].height)
    lenses = [_parse_lens(shot, pose, size) for shot, pose in zip(shots, poses)]
    up, said = _parse_up(shots[0], poses)
    return Recording(
        source=str(root),
        object_name=root.resolve().name,
        lenses=tuple(lenses),
        view_names=_name_views(root, paths),
        view_splits=tuple(shot.split for shot in shots),
        names=(MOTION,),
        sentences=tuple(read_captions(root, (MOTION,), ((MOTION,),))),
        splits=("train",),
        clips=clips,
        masks=masks,
        frame_rate=FRAME_RATE,
        up=up,
        may_fill=True,
        notes=(*said, *notes),
    )


def choose_matte(recording: Recording) -> Matte:
    """Masks where the frames have them; else the pictures' own alpha, 255 where there is none."""
    return Matte(how="masks" if recording.masks else "alpha")


def read_transforms(folder: str | Path, *, store: str = "memory") -> Dataset:
    """Reads a folder with `transforms.json` as it is, its world turned to +Y up.

    Args:
      folder: see `describe_transforms`.
      store: where the frames are kept, see `data.native.read_dataset`.

    Returns:
      One motion of one frame; `world` records the turn.

    Raises:
      UserError: as `describe_transforms`, or a damaged picture.
    """
    recording = describe_transforms(folder)
    plan = plan_recording(recording, matte=choose_matte(recording))
    for line in plan.notes:
        logging.info("%s", line)
    files = [path for clip in (*recording.clips.values(), *recording.masks.values()) for path in clip.files]
    report = functools.partial(logging.warning, "%s")
    frames = store_frames(Path(folder), files, plan.shape, lambda out: fill(plan, out, report=report), store=store)
    dataset = outline(recording, frames, plan.height, plan.width, frame_rate=plan.frame_rate)
    turn = choose_turn(np.asarray(dataset.cameras.world_to_camera), recording.up, where=f"{folder}: up")
    return place_dataset(dataset, World(rotation=turn.rotation))


def _list_shots(root: Path) -> list[_Shot]:
    """The frames of all files that count, with their splits."""
    if (root / SPLIT_FILES["train"]).is_file():
        files = {split: root / name for split, name in SPLIT_FILES.items() if (root / name).is_file()}
        shots = [shot for split, path in files.items() for shot in _read_file(path, split)]
    elif (root / FILE).is_file():
        shots = _read_file(root / FILE)
    else:
        raise UserError(f"{root}: found no {FILE} and no {SPLIT_FILES['train']}, expected one of them")
    if len(shots) > MAX_FRAMES or not any(shot.split == "train" for shot in shots):
        count = sum(shot.split == "train" for shot in shots)
        raise UserError(f"{root}: {count} of {len(shots)} frames train, expected 1 to {MAX_FRAMES}")
    return shots


def _read_file(path: Path, split: str = "") -> list[_Shot]:
    """The frames of a file, of one split, or of those that the file tells."""
    table, where = load_json(path), str(path)
    entries = get_field(table, "frames", list, where)
    if not 1 <= len(entries) <= MAX_FRAMES:
        raise UserError(f"{where}: {len(entries)} frames, expected 1 to {MAX_FRAMES}")
    shots, choose = [], (lambda index, name: split) if split else _choose_splits(table, where)
    for index, entry in enumerate(entries):
        here = f"{where}: frames[{index}]"
        chosen = choose(index, get_field(entry, "file_path", str, here))
        if chosen:
            shots.append(_Shot(entry, table, chosen, here))
    return shots


def _choose_splits(table: Any, where: str) -> Callable[[int, str], str]:
    """Splits of a single file's frames by index and `file_path`: those of nerfstudio's lists, where it has them.

    A frame that no list has is left out (""). Without lists every 8th tests.
    """
    lists = {
        split: {name for name in get_field(table, f"{split}_filenames", list, where) if isinstance(name, str)}
        for split in ("test", "train")
        if f"{split}_filenames" in table
    }
    if not lists:
        return lambda index, name: "test" if index % TEST_EVERY == TEST_EVERY - 1 else "train"
    otherwise = "" if "train" in lists else "train"
    return lambda index, name: next((split for split, names in lists.items() if name in names), otherwise)


def _find_picture(root: Path, shot: _Shot) -> Path:
    """The file of a picture, whose suffix NeRF's own data leaves out."""
    text, where = shot.entry["file_path"], shot.where
    path = find_inside(root, text, f"{where}: file_path")
    suffixes = [suffix for each in IMAGES for suffix in (each, each.upper()) if 0 < len(path.name.encode()) <= 250]
    tried = [path, *(path.with_name(path.name + suffix) for suffix in suffixes)]
    found = next((each for each in tried if each.is_file()), None)
    if found is None:
        raise UserError(f"{where}: file_path is {text[:80]!r}, and {path} is no file, nor with {', '.join(IMAGES)}")
    return find_inside(root, found.relative_to(root).as_posix(), f"{where}: file_path")


def _open_pictures(
    root: Path, shots: list[_Shot], paths: list[Path], problems: list[str] | None
) -> tuple[dict[tuple[int, int], Clip], dict[tuple[int, int], Clip], list[str]]:
    """Clips and masks by motion and view, by their headers; and a line where pictures are opaque."""
    clips: dict[tuple[int, int], Clip] = {}
    masks: dict[tuple[int, int], Clip] = {}
    num_opaque = 0
    for v, (shot, path) in enumerate(zip(shots, paths)):
        with collect(problems):
            (width, height), is_opaque = _look(path)
            first = clips[min(clips)] if clips else Clip(path, "images", height, width)
            if {width, height} != {first.width, first.height}:
                raise UserError(
                    f"{path}: picture of {width}x{height}, expected {first.width}x{first.height} as {first.path}"
                )
            mask = _find_mask(root, shot)
            if mask is not None:
                masks[0, v] = mask
            num_opaque += is_opaque and mask is None
            clips[0, v] = Clip(path, "images", first.height, first.width, files=(path,))
    if not clips:  # only where problems are collected
        raise UserError(problems[0] if problems else f"{root}: found no pictures, expected some")
    notes = [
        f"{root}: {num_opaque} of {len(shots)} pictures have neither alpha nor mask_path: they are opaque, so that "
        "what is behind the object is learned as part of it"
    ]
    return clips, masks, notes if num_opaque else []


def _look(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height of a picture by its header, and whether it has no alpha."""
    with open_picture(path) as image:
        height, width = check_size(path, *image.size)
        return (width, height), not (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info)


def _find_mask(root: Path, shot: _Shot) -> Clip | None:
    text = get_field(shot.entry, "mask_path", (str, type(None)), shot.where, default=None)
    if text is None:
        return None
    path = find_inside(root, text, f"{shot.where}: mask_path")
    if not path.is_file():
        raise UserError(f"{shot.where}: mask_path is {text[:80]!r}, and {path} is no file, expected a picture")
    (width, height), _ = _look(path)
    return Clip(path, "images", height, width, files=(path,))


def _check_pairs(shots: list[_Shot], paths: list[Path]) -> None:
    """Raises UserError where only some frames have masks, or two have one picture."""
    lonely = [shot for shot in shots if shot.entry.get("mask_path") is None]
    if 0 < len(lonely) < len(shots):
        raise UserError(f"{lonely[0].where}: no mask_path, expected one for every frame where there is one for any")
    twice = next((path for path, count in Counter(paths).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{twice}: is the picture of two frames, expected one of each")


def _parse_pose(shot: _Shot) -> np.ndarray:
    """World to camera [4,4], OpenCV, float64; the last row of the file's matrix may be left out."""
    rows = get_field(shot.entry, "transform_matrix", list, shot.where)
    pose = get_array(shot.entry, "transform_matrix", (3 if len(rows) == 3 else 4, 4), shot.where, dtype=np.float64)
    pose = np.concatenate([pose, np.eye(4)[len(pose) :]])
    check_rigid(pose, "transform_matrix", shot.where)
    return FLIP @ np.linalg.inv(pose)


def _parse_lens(shot: _Shot, pose: np.ndarray, picture: tuple[int, int]) -> Lens:
    """Pose and intrinsics; `picture` is the width and height of the files, `w` and `h` those that pixels are of."""
    _check_pinhole(shot)
    own = any(key in shot.entry for key in _FOCALS)
    source = shot.entry if own else shot.table
    both = shot.table | shot.entry
    size = tuple(
        get_number(both, key, shot.where, 1, _MAX_PIXELS, default=float(side)) for key, side in zip("wh", picture)
    )
    if not is_same_shape(size, picture):  # type: ignore[arg-type]
        raise UserError(
            f"{shot.where}: w x h is {size[0]:g}x{size[1]:g}, the picture {picture[0]}x{picture[1]}; expected one shape"
        )
    center = [get_number(both, key, shot.where, -_MAX_PIXELS, _MAX_PIXELS, default=side / 2) / side
              for key, side in zip(("cx", "cy"), size)]  # fmt: skip
    if "fl_x" in source:
        across = get_number(source, "fl_x", shot.where, 1e-3, 1e9)
        down = get_number(source, "fl_y", shot.where, 1e-3, 1e9, default=across)
        return Lens(pose, (across / size[0], down / size[1]), (center[0], center[1]))
    if "camera_angle_x" not in source:
        raise UserError(f"{shot.where}: found neither fl_x nor camera_angle_x, there or for the file, expected one")
    wide = 0.5 / np.tan(0.5 * get_number(source, "camera_angle_x", shot.where, 1e-3, 3.1))
    high = wide * size[0] / size[1]
    if "camera_angle_y" in source:
        high = 0.5 / np.tan(0.5 * get_number(source, "camera_angle_y", shot.where, 1e-3, 3.1))
    return Lens(pose, (float(wide), float(high)), (center[0], center[1]))


def _check_pinhole(shot: _Shot) -> None:
    """Raises UserError for lenses that bend lines, in the frame or in its file."""
    both = shot.table | shot.entry
    advice = "expected a pinhole camera (undistort the pictures first)"
    for key in DISTORTION:
        value = get_field(both, key, (int, float), shot.where, default=0.0)
        if value != 0:
            raise UserError(f"{shot.where}: the lens is distorted, {key} is {value:g}, {advice}")
    model = get_field(both, "camera_model", str, shot.where, default=MODELS[0])
    if model not in MODELS:
        raise UserError(f"{shot.where}: camera_model is {model[:40]!r}, {advice}")
    odd = next((key for key in _ODD_LENSES if both.get(key)), None)
    if odd is not None:
        raise UserError(f"{shot.where}: {odd} is {str(both[odd])[:40]}, {advice}")


def _parse_up(shot: _Shot, poses: np.ndarray) -> tuple[str, list[str]]:
    """What is up, one of `upright.CHOICES`, and a line where that is not +Z and the file did not say so."""
    table, where = shot.table, shot.where.rpartition(": ")[0]
    if isinstance(table.get("up"), list):
        vector = get_array(table, "up", (3,), where, dtype=np.float64)
        length = float(np.linalg.norm(vector))
        for name, axis in AXES.items():
            if length > 0 and angle_deg(vector / length, axis) <= _AXIS_DEG:
                return name, []
        raise UserError(f"{where}: up is {vector.tolist()}, expected an axis, such as [0, 0, 1]")
    if "up" in table:
        up = get_field(table, "up", str, where)
        if up not in CHOICES:
            raise UserError(f"{where}: up is {up[:20]!r}, expected an axis such as [0, 0, 1], or {', '.join(CHOICES)}")
        return up, []
    seen = find_up(poses)
    if seen is None or not seen.is_vertical or angle_deg(seen.direction, AXES["z"]) <= ACROSS_DEG:
        return "z", []
    name = min(AXES, key=lambda axis: angle_deg(seen.direction, AXES[axis]))
    if angle_deg(seen.direction, AXES[name]) > NEAR_DEG:
        name = "cameras"
    said = f"the cameras see up in {format_direction(seen.direction)}, not in +Z as in NeRF's convention"
    return name, [f'{where}: {said}: that is taken for up ("up": [0, 0, 1] in the file leaves +Z up)']


def _name_views(root: Path, paths: list[Path]) -> tuple[str, ...]:
    """Names that folders can have: the pictures' paths without suffixes, such as train_r_0."""
    names: list[str] = []
    taken: set[str] = set()
    for index, path in enumerate(paths):
        stem = path.relative_to(root).with_suffix("").as_posix()
        name = re.sub(r"[^\w-]+", "_", stem).strip("_")[-80:] or "view"
        name = name if name not in taken else f"{name}_{index}"
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return tuple(names)
