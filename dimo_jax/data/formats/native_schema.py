"""`dataset.json` of a native dataset folder: its fields, checked one by one.

schema_version: 1
object_name, frame_rate, image: {width, height}
views: [{name, split, world_to_camera: 4x4, focal: [fx, fy], center: [cx, cy]}]
motions: [{name, caption, split, num_views, num_frames, paraphrases (optional), test_paraphrases (optional)}]
world (optional): {scale, center: [3], rotation: 3x3, of}, see `data.world`
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.world import parse_world
from dimo_jax.geometry.world import World
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

SCHEMA_VERSION = 1
FILE = "dataset.json"
MAX_SIDE = 8192  # pixels


@dataclasses.dataclass(frozen=True)
class Description:
    """Everything about a dataset but its frames and its truth."""

    cameras: Camera  # NumPy, [V]
    names: tuple[str, ...]
    captions: tuple[str, ...]
    splits: tuple[str, ...]
    view_names: tuple[str, ...]
    view_splits: tuple[str, ...]
    frame_rate: float
    object_name: str
    paraphrases: tuple[tuple[str, ...], ...]
    test_paraphrases: tuple[tuple[str, ...], ...]
    num_frames: int
    world: World | None


def _parse_views(views: list[Any], height: int, width: int, path: Path) -> tuple[list[str], list[str], Camera]:
    names, splits, poses, focals, centers = [], [], [], [], []
    for index, view in enumerate(views):
        where = f"{path}: views[{index}]"
        names.append(check_name(get_field(view, "name", str, where), where))
        where = f"{path}: view {names[-1]}"
        splits.append(get_split(view, where))
        poses.append(get_array(view, "world_to_camera", (4, 4), where, dtype=np.float64))
        check_rigid(poses[-1], "world_to_camera", where)
        focals.append(get_array(view, "focal", (2,), where))
        if focals[-1].min() <= 0:
            raise UserError(f"{where}: focal is {focals[-1].tolist()}, expected positive pixels")
        centers.append(get_array(view, "center", (2,), where))
    check_distinct(names, "view", path)
    whole, short = np.stack(poses), np.stack(poses).astype(np.float32)
    cameras = Camera(
        # Ours are float32; digits that a user's have beyond are kept until the cameras stand near the origin.
        world_to_camera=short if np.array_equal(whole, short) else whole,  # type: ignore[arg-type]
        focal=np.stack(focals),  # type: ignore[arg-type]
        center=np.stack(centers),  # type: ignore[arg-type]
        height=height,
        width=width,
    )
    return names, splits, cameras


def _load(path: Path) -> Any:
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder, expected a dataset folder with {FILE}")
    if not any(folder.iterdir()):
        raise UserError(f"{folder}: the folder is empty, expected a dataset folder with {FILE}")
    if not path.is_file():
        raise UserError(f"{folder}: found no {FILE}, expected a dataset folder")
    return load_json(path)


def _parse_sentences(motion: Any, key: str, where: str) -> tuple[str, ...]:
    sentences = get_field(motion, key, list, where, default=[])
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f"{where}: {key} has values that are no strings")
    return tuple(sentences)


def _parse_motions(motions: list[Any], num_views: int, path: Path) -> tuple[list[str], list[str], list[str], int]:
    """Names, captions, splits and the common number of frames."""
    names, captions, splits, counts = [], [], [], []
    for index, motion in enumerate(motions):
        where = f"{path}: motions[{index}]"
        names.append(check_name(get_field(motion, "name", str, where), where))
        where = f"{path}: motion {names[-1]}"
        captions.append(get_field(motion, "caption", str, where))
        splits.append(get_split(motion, where))
        found = get_count(motion, "num_views", 1 << 20, where)
        if found != num_views:
            raise UserError(f"{where}: num_views is {found}, expected {num_views} (the number of views)")
        counts.append(get_count(motion, "num_frames", 1 << 20, where))
        if counts[-1] != counts[0]:
            raise UserError(f"{where}: num_frames is {counts[-1]}, expected {counts[0]} as in motion {names[0]}")
    check_distinct(names, "motion", path)
    return names, captions, splits, counts[0]


def _parse_paraphrases(motions: list[Any], path: Path) -> tuple[tuple, tuple]:
    """Per motion the sentences that train (the caption, where there are no others) and those that test; () if none."""
    train, test = [], []
    for motion in motions:
        where = f"{path}: motion {motion['name']}"
        train.append(_parse_sentences(motion, "paraphrases", where) or (motion["caption"],))
        test.append(_parse_sentences(motion, "test_paraphrases", where))
    return tuple(train) if any(len(each) > 1 for each in train) else (), tuple(test) if any(test) else ()


def read_description(folder: Path) -> Description:
    """Reads and checks `dataset.json` of a folder.

    Raises:
      UserError: anything missing, of the wrong type, out of range, or inconsistent; one line naming file and field.
    """
    path = folder / FILE
    table = _load(path)
    version = get_field(table, "schema_version", int, str(path))
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version}, expected {SCHEMA_VERSION}")
    image = get_field(table, "image", dict, str(path))
    height, width = (get_count(image, key, MAX_SIDE, f"{path}: image") for key in ("height", "width"))
    frame_rate = float(get_field(table, "frame_rate", (int, float), str(path)))
    if not (np.isfinite(frame_rate) and frame_rate > 0):
        raise UserError(f"{path}: frame_rate is {frame_rate}, expected frames per second above 0")
    views, motions = (get_field(table, key, list, str(path)) for key in ("views", "motions"))
    for key, entries in (("views", views), ("motions", motions)):
        if not entries:
            raise UserError(f"{path}: {key} is empty, expected at least 1")
    view_names, view_splits, cameras = _parse_views(views, height, width, path)
    names, captions, splits, num_frames = _parse_motions(motions, len(views), path)
    train_sentences, test_sentences = _parse_paraphrases(motions, path)
    return Description(
        cameras=cameras,
        names=tuple(names),
        captions=tuple(captions),
        splits=tuple(splits),
        view_names=tuple(view_names),
        view_splits=tuple(view_splits),
        frame_rate=frame_rate,
        object_name=get_field(table, "object_name", str, str(path)),
        paraphrases=train_sentences,
        test_paraphrases=test_sentences,
        num_frames=num_frames,
        world=parse_world(table, str(path)),
    )


def read_framing(folder: str, *, of: str) -> World:
    """Where a dataset folder puts the coordinates of its source, for other data of the same source.

    Args:
      folder: the dataset.
      of: the kind of source, "cameras" or "model".

    Raises:
      UserError: no dataset there, or none that was made from such a source by a version that records it.
    """
    world = read_description(Path(folder)).world
    if world is None or world.of != of:
        what = {"cameras": "cameras", "model": "a glTF model"}[of]
        found = "no framing" if world is None else f"a framing of {'a glTF model' if of == 'cameras' else 'cameras'}"
        raise UserError(f"--framing={folder}: found {found} in its {FILE}, expected a dataset imported from {what}")
    return world


def describe(dataset: Dataset) -> dict[str, Any]:
    """The JSON object of a dataset; float32 values survive the text exactly.

    Raises:
      UserError: a motion's or view's name that cannot be a folder's, or that occurs twice.
    """
    where = f"dataset {dataset.object_name}"
    for what, names in (("motion", dataset.names), ("view", dataset.view_names)):
        for name in names:
            check_name(name, f"{where}: {what}")
        check_distinct(list(names), what, Path(where))
    cameras = dataset.cameras
    views = [
        {
            "name": name,
            "split": split,
            "world_to_camera": np.asarray(cameras.world_to_camera)[index].tolist(),
            "focal": np.asarray(cameras.focal)[index].tolist(),
            "center": np.asarray(cameras.center)[index].tolist(),
        }
        for index, (name, split) in enumerate(zip(dataset.view_names, dataset.view_splits))
    ]
    motions: list[dict[str, Any]] = [
        {
            "name": name,
            "caption": caption,
            "split": split,
            "num_views": dataset.num_views,
            "num_frames": dataset.num_frames,
        }
        for name, caption, split in zip(dataset.names, dataset.captions, dataset.splits)
    ]
    for key in ("paraphrases", "test_paraphrases"):
        for motion, sentences in zip(motions, getattr(dataset, key)):
            motion[key] = list(sentences)
    return {
        "schema_version": SCHEMA_VERSION,
        "object_name": dataset.object_name,
        "frame_rate": dataset.frame_rate,
        "image": {"height": cameras.height, "width": cameras.width},
        "views": views,
        "motions": motions,
    } | ({} if dataset.world is None else {"world": dataset.world.to_json()})
