"""`dataset.json` of a native dataset folder: its fields, checked one by one.

schema_version: 1
object_name, frame_rate, image: {width, height}
views: [{name, split, world_to_camera: 4x4, focal: [fx, fy], center: [cx, cy]}]
motions: [{name, caption, split, num_views, num_frames, paraphrases (optional), test_paraphrases (optional)}]
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.data.dataset import SPLITS, Dataset
from dimo_jax.errors import UserError
from dimo_jax.types import Camera

SCHEMA_VERSION = 1
FILE = "dataset.json"
MAX_SIDE = 8192  # pixels
MAX_JSON_BYTES = 64 << 20
_MISSING = object()


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


def _get(table: Any, key: str, kind: type | tuple[type, ...], where: str, *, default: Any = _MISSING) -> Any:
    """Field `key` of a JSON object, of the given type; `where` names file and object in errors."""
    names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
    if not isinstance(table, dict):
        raise UserError(f"{where}: found {type(table).__name__}, expected an object")
    if key not in table:
        if default is not _MISSING:
            return default
        raise UserError(f"{where}: key {key!r} is missing, expected {names}")
    value = table[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{where}: {key} is {str(value)[:60]!r}, expected {names}")
    return value


def check_name(name: str, where: str) -> str:
    """A name that is safe as a folder's: no separators, no leading dot, at most 100 printable characters."""
    if not name or len(name) > 100 or name[0] == "." or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
        raise UserError(f"{where}: name {name[:60]!r} is no plain folder name (no separators, no leading dot)")
    return name


def _check_distinct(names: list[str], what: str, path: Path) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UserError(f"{path}: {what} name {name!r} occurs twice, expected distinct names")


def _split(table: Any, where: str) -> str:
    split = _get(table, "split", str, where)
    if split not in SPLITS:
        raise UserError(f"{where}: split is {split[:40]!r}, expected 'train' or 'test'")
    return split


def _array(table: Any, key: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Numbers of a given shape, finite, as float32."""
    value = _get(table, key, list, where)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {key} is not an array of numbers, expected shape {list(shape)}") from error
    if array.shape != shape:
        raise UserError(f"{where}: {key} has shape {list(array.shape)}, expected {list(shape)}")
    if not np.isfinite(array).all():
        raise UserError(f"{where}: {key} has values that are not finite")
    return array.astype(np.float32)


def _check_rigid(pose: np.ndarray, where: str) -> None:
    rotation = pose[:3, :3].astype(np.float64)
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-3 and np.linalg.det(rotation) > 0
    if not orthonormal or np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise UserError(f"{where}: world_to_camera is not rigid, expected a rotation, a translation and row 0 0 0 1")


def _parse_views(views: list[Any], height: int, width: int, path: Path) -> tuple[list[str], list[str], Camera]:
    names, splits, poses, focals, centers = [], [], [], [], []
    for index, view in enumerate(views):
        where = f"{path}: views[{index}]"
        names.append(check_name(_get(view, "name", str, where), where))
        where = f"{path}: view {names[-1]}"
        splits.append(_split(view, where))
        poses.append(_array(view, "world_to_camera", (4, 4), where))
        _check_rigid(poses[-1], where)
        focals.append(_array(view, "focal", (2,), where))
        if focals[-1].min() <= 0:
            raise UserError(f"{where}: focal is {focals[-1].tolist()}, expected positive pixels")
        centers.append(_array(view, "center", (2,), where))
    _check_distinct(names, "view", path)
    cameras = Camera(
        world_to_camera=np.stack(poses),  # type: ignore[arg-type]
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
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_JSON_BYTES} at most")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({' '.join(str(error).split())})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _dimension(table: Any, key: str, most: int, where: str) -> int:
    value = _get(table, key, int, where)
    if not 1 <= value <= most:
        raise UserError(f"{where}: {key} is {value}, expected 1 to {most}")
    return value


def _parse_sentences(motion: Any, key: str, where: str) -> tuple[str, ...]:
    sentences = _get(motion, key, list, where, default=[])
    if not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f"{where}: {key} has values that are no strings")
    return tuple(sentences)


def _parse_motions(motions: list[Any], num_views: int, path: Path) -> tuple[list[str], list[str], list[str], int]:
    """Names, captions, splits and the common number of frames."""
    names, captions, splits, counts = [], [], [], []
    for index, motion in enumerate(motions):
        where = f"{path}: motions[{index}]"
        names.append(check_name(_get(motion, "name", str, where), where))
        where = f"{path}: motion {names[-1]}"
        captions.append(_get(motion, "caption", str, where))
        splits.append(_split(motion, where))
        found = _dimension(motion, "num_views", 1 << 20, where)
        if found != num_views:
            raise UserError(f"{where}: num_views is {found}, expected {num_views} (the number of views)")
        counts.append(_dimension(motion, "num_frames", 1 << 20, where))
        if counts[-1] != counts[0]:
            raise UserError(f"{where}: num_frames is {counts[-1]}, expected {counts[0]} as in motion {names[0]}")
    _check_distinct(names, "motion", path)
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
    version = _get(table, "schema_version", int, str(path))
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version}, expected {SCHEMA_VERSION}")
    image = _get(table, "image", dict, str(path))
    height, width = (_dimension(image, key, MAX_SIDE, f"{path}: image") for key in ("height", "width"))
    frame_rate = float(_get(table, "frame_rate", (int, float), str(path)))
    if not (np.isfinite(frame_rate) and frame_rate > 0):
        raise UserError(f"{path}: frame_rate is {frame_rate}, expected frames per second above 0")
    views, motions = (_get(table, key, list, str(path)) for key in ("views", "motions"))
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
        object_name=_get(table, "object_name", str, str(path)),
        paraphrases=train_sentences,
        test_paraphrases=test_sentences,
        num_frames=num_frames,
    )


def describe(dataset: Dataset) -> dict[str, Any]:
    """The JSON object of a dataset; float32 values survive the text exactly.

    Raises:
      UserError: a motion's or view's name that cannot be a folder's, or that occurs twice.
    """
    where = f"dataset {dataset.object_name}"
    for what, names in (("motion", dataset.names), ("view", dataset.view_names)):
        for name in names:
            check_name(name, f"{where}: {what}")
        _check_distinct(list(names), what, Path(where))
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
    }
