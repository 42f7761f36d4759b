"""A rigged model's own clips as data that trains without pictures: `config.data.reader` of configs/rig.py."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats.rigged.plan import humanize
from dimo_jax.data.puppet.rig import write_puppet_rig
from dimo_jax.io.gltf.scene import load_scene, select_clips
from dimo_jax.rigs.clip_set import ClipSet, collect_clips
from dimo_jax.rigs.forward import make_rig
from dimo_jax.rigs.markers import find_joints
from dimo_jax.rigs.scene import Scene, check_clips

SIDE = 16  # of the pictures that it does not have


@dataclasses.dataclass(frozen=True, eq=False)
class ClipDataset(Dataset):
    """The motions of a rig: a dataset without any view, whose frames are poses."""

    clips: ClipSet = None  # type: ignore[assignment]  # after fields that have defaults


def read_clips(data: Mapping[str, Any]) -> ClipDataset:
    """The clips of a model.

    Args:
      data: `config.data`: `path`, a .glb or .gltf file, or "" for the embedded puppet; `clips`, names or patterns of
        those to take, all where empty; `test_clips`, likewise of those kept from training; `hide` and `repair`, see
        `load_scene`; `num_frames`, instants at which each clip is looked at.

    Raises:
      UserError: a file that cannot be read, without a skin or clips, a clip that cannot be posed, a name that fits no
        clip, or no clip that trains.
    """
    scene = open_model(data)
    if not scene.clips:
        raise UserError(f"{scene.path}: no clip found, expected an animated model whose motions are to be learnt")
    where = dict(flag="config.data.clips")
    chosen = select_clips(scene, data["clips"], **where) if data["clips"] else scene.clips
    test = select_clips(scene, data["test_clips"], flag="config.data.test_clips") if data["test_clips"] else ()
    kept_out = {clip.name for clip in test}
    names = tuple(clip.name for clip in chosen)
    if not kept_out <= set(names):
        lost = sorted(kept_out - set(names))[0]
        raise UserError(f"config.data.test_clips: found {lost!r}, expected clips among those of config.data.clips")
    if kept_out == set(names):
        raise UserError(
            f"config.data.test_clips: all {len(names)} clips of {scene.path}, expected one left to train on"
        )
    check_clips(chosen)
    return describe_clips(take_clips(scene, [scene.clips.index(clip) for clip in chosen], data["num_frames"]), kept_out)


def open_model(data: Mapping[str, Any], *, source: str = "") -> Scene:
    """The model of `config.data`, or that of the file `source`.

    Raises:
      UserError: as `load_scene`, or a path that is no model.
    """
    path = source or data["path"]
    how = dict(hide=data["hide"], repair=bool(data["repair"]))
    if path:
        if Path(path).suffix.lower() not in (".glb", ".gltf") or not Path(path).is_file():
            raise UserError(f"config.data.path: found {path}, expected a rigged .glb or .gltf file")
        return load_scene(path, animated=False, **how)
    with tempfile.TemporaryDirectory() as folder:
        scene = load_scene(write_puppet_rig(Path(folder) / "puppet.glb"), **how)
    return dataclasses.replace(scene, path=Path("puppet.glb"))


def take_clips(scene: Scene, clips: Sequence[int], num_frames: int) -> ClipSet:
    """Clips of a model, by their numbers, at `num_frames` instants each.

    Raises:
      UserError: no skin, or no joint that carries weight.
    """
    rig = make_rig(scene)
    return collect_clips(scene, rig, [scene.clips[index] for index in clips], find_joints(scene), num_frames)


def describe_clips(clips: ClipSet, kept_out: set[str]) -> ClipDataset:
    """A dataset of clips, those named in `kept_out` for tests."""
    no_view: Any = np.zeros((0, 4, 4), np.float32)
    return ClipDataset(
        frames=np.zeros((len(clips.names), 0, clips.num_frames, SIDE, SIDE, 4), np.uint8),
        cameras=Camera(no_view, no_view[:, 0, :2], no_view[:, 0, :2], height=SIDE, width=SIDE),
        names=shorten_names(clips.names),
        captions=tuple(humanize(name) for name in clips.names),
        splits=tuple("test" if name in kept_out else "train" for name in clips.names),
        view_names=(),
        view_splits=(),
        frame_rate=float(np.median(clips.rates)),
        object_name=clips.scene.path.stem,
        clips=clips,
    )


def shorten_names(names: Sequence[str]) -> tuple[str, ...]:
    """Clips' names without the armature before a bar, as Blender writes it, where they stay distinct."""
    short = tuple(name.rsplit("|", 1)[-1].strip() or name for name in names)
    return short if len(set(short)) == len(short) else tuple(names)
