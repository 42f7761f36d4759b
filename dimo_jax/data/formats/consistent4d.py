"""Reads two folders in the layout of the Consistent4D benchmark: `gt|pred/<object>/eval_<view>/<frame>.png`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.io.pictures import picture_size, read_image

_WHITE_MARGIN = 8  # of 255: without alpha, what differs from white by more is the object


@dataclass(frozen=True)
class Pair:
    """One object's pictures in both folders, by view and frame, checked to fit but not yet decoded."""

    name: str
    pred: tuple[tuple[Path, ...], ...]  # [V][T]
    truth: tuple[tuple[Path, ...], ...]  # [V][T]
    size: tuple[int, int]  # width, height

    @property
    def num_frames(self) -> int:
        """Frames of every view."""
        return len(self.truth[0])


def find_pairs(gt: Path, pred: Path) -> list[Pair]:
    """All objects of the truth, with their predictions.

    Raises:
      UserError: a folder, object, view or frame that is missing on one side, unequal frame counts or sizes, or a file
        that is no picture.
    """
    for flag, folder in (("gt", gt), ("pred", pred)):
        if not folder.is_dir():
            raise UserError(f"--{flag}={folder}: no such folder, expected <object>/eval_<view>/<frame>.png in it")
    objects = [folder.name for folder in _folders(gt) if _views(folder)]
    if not objects:
        raise UserError(f"--gt={gt}: found no object in it, expected <object>/eval_<view>/<frame>.png")
    _check_same("objects", objects, [folder.name for folder in _folders(pred) if _views(folder)], gt, pred)
    return [_find_pair(gt / name, pred / name) for name in objects]


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir())


def _views(folder: Path) -> list[int]:
    names = [re.fullmatch(r"eval_(\d+)", entry.name) for entry in _folders(folder)]
    return sorted(int(name[1]) for name in names if name)


def _check_same(what: str, truth: list, pred: list, gt_folder: Path, pred_folder: Path) -> None:
    missing, surplus = ([x for x in a if x not in b] for a, b in ((truth, pred), (pred, truth)))
    if missing:
        raise UserError(f"{pred_folder}: {what} {missing[0]} is missing, expected it as in {gt_folder}")
    if surplus:
        raise UserError(
            f"{pred_folder}: found {what} {surplus[0]}, which {gt_folder} has not, expected the same {what}"
        )


def _find_pair(gt: Path, pred: Path) -> Pair:
    views = _views(gt)
    _check_same("views", [f"eval_{v}" for v in views], [f"eval_{v}" for v in _views(pred)], gt, pred)
    true_paths: list[tuple[Path, ...]] = []
    pred_paths: list[tuple[Path, ...]] = []
    first = None
    for view in views:
        name = f"eval_{view}"
        true_frames, pred_frames = _frames(gt / name), _frames(pred / name)
        _check_same("frames", list(true_frames), list(pred_frames), gt / name, pred / name)
        first = first or (gt / name, len(true_frames))
        if len(true_frames) != first[1]:
            raise UserError(f"{gt / name}: {len(true_frames)} frames, expected {first[1]} as in {first[0]}")
        true_paths.append(tuple(true_frames.values()))
        pred_paths.append(tuple(pred_frames.values()))
    size = _check_sizes([path for view in (*true_paths, *pred_paths) for path in view])
    return Pair(gt.name, tuple(pred_paths), tuple(true_paths), size)


def _frames(folder: Path) -> dict[int, Path]:
    names = {entry: re.fullmatch(r"(\d+)\.png", entry.name) for entry in folder.iterdir()}
    numbered = dict(sorted((int(name[1]), path) for path, name in names.items() if name))
    if not numbered:
        raise UserError(f"{folder}: found no numbered PNG, expected <frame>.png")
    return numbered


def _check_sizes(paths: list[Path]) -> tuple[int, int]:
    first = None
    for path in paths:
        size = picture_size(path)
        first = first or (path, size)
        if size != first[1]:
            expected = f"{first[1][0]}x{first[1][1]} as {first[0]}"
            raise UserError(f"{path}: image of {size[0]}x{size[1]}, expected {expected}")
    assert first
    return first[1]


def read_videos(paths: tuple[tuple[Path, ...], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Decodes one side of a pair.

    Returns:
      RGB over white [V,T,H,W,3] float32 in 0..1, and the object's mask [V,T,H,W] bool: alpha over 0.5, or in an opaque
      picture whatever is not white.

    Raises:
      UserError: a damaged picture.
    """
    pictures = [[read_image(path) for path in view] for view in paths]
    rgba = np.asarray(pictures)
    rgb, alpha = rgba[..., :3].astype(np.float32) / 255, rgba[..., 3:].astype(np.float32) / 255
    opaque = np.all(alpha == 1, axis=(-3, -2, -1))[..., None, None]
    colored = np.any(rgba[..., :3] < 255 - _WHITE_MARGIN, axis=-1)
    return rgb * alpha + (1 - alpha), np.where(opaque, colored, alpha[..., 0] > 0.5)
