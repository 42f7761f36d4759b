"""Writes what is on the screen to files, in the formats of one table."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import to_file_name
from dimo_jax.core.types import Array, Camera
from dimo_jax.geometry import quaternion
from dimo_jax.io.gltf.skinned import write_skinned_glb
from dimo_jax.io.images import to_uint8
from dimo_jax.io.motion import Motion, write_motion
from dimo_jax.io.place import place_gaussians, place_motion
from dimo_jax.io.ply import write_gaussians
from dimo_jax.io.video import write_video
from dimo_jax.runs.motions import MotionRecorder, check_skin
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.views.trajectories import draw_trajectory_video, write_trajectories
from dimo_jax.views.viewer.session import Choices
from dimo_jax.views.viewer.source_mesh import SourceMesh

_ONE_AT_A_TIME = threading.Lock()
OVERLAID = {"Key points", "Trajectories"}  # layers that a video shows as the tails of the key points


@dataclass(frozen=True)
class Shot:
    """What is on the screen at the moment of an export."""

    model: Restored
    code: Array  # [D]
    choices: Choices
    title: str  # what `Session.describe` says of it
    camera: Camera  # of the one who asked
    mesh: SourceMesh | None = None

    def record(self) -> Motion:
        """The whole motion as `--app=export` plays it, in the model's world."""
        times = frame_times(self.model.num_frames)
        return MotionRecorder(self.model).record(self.title, self.code, times, frame_rate=self.model.frame_rate)


def _write_frame(shot: Shot, path: Path) -> None:
    last = shot.model.num_frames - 1
    clip = shot.model.player.play(shot.code, [min(shot.choices.frame, last) / shot.model.num_frames])
    write_gaussians(place_gaussians(jax.tree.map(lambda x: x[0], clip.gaussians), shot.model.world), path)


def _write_film(shot: Shot, path: Path) -> None:
    clip = shot.model.player.play(shot.code, frame_times(shot.model.num_frames))
    frames = to_uint8(shot.model.player.film(clip.gaussians, shot.camera))
    if OVERLAID & shot.choices.layers:
        tracks, behind = np.asarray(clip.key_points), np.asarray(shot.model.player.background)
        frames = draw_trajectory_video(tracks, shot.camera, frames, num_tail=8, dim_to=behind)
    write_video(frames, path, frame_rate=shot.model.frame_rate)


def _write_curves(shot: Shot, path: Path) -> None:
    times, key_points = frame_times(shot.model.num_frames), shot.model.player.params.key_points
    world = shot.model.world
    write_trajectories(
        world.undo(np.asarray(shot.model.player.play(shot.code, times).key_points))[None],
        path,
        names=[shot.title],
        times=np.asarray(times),
        positions=world.undo(key_points.positions),
        radii=shot.model.player.control_radii / world.scale,
    )


def _write_rig(shot: Shot, path: Path) -> None:
    clip = shot.record()
    check_skin(clip, geometry="ellipsoids")
    write_skinned_glb(place_motion(clip, shot.model.world.upright()), path)


def _write_mesh(shot: Shot, path: Path) -> None:
    if shot.mesh is None:
        raise UserError("mesh: this viewer was given none")
    shot.mesh.write(shot.record(), path)


def _write_motion(shot: Shot, path: Path) -> None:
    write_motion(place_motion(shot.record(), shot.model.world), path)


# By the words of the menu: the ending of the file's name, and what writes it. More formats are more rows.
EXPORTS: dict[str, tuple[str, Callable[[Shot, Path], Any]]] = {
    "this frame's Gaussians (ply)": (".ply", _write_frame),
    "video of the motion (mp4)": (".mp4", _write_film),
    "rig of the key points, with the motion (glb)": (".glb", _write_rig),
    "the source's mesh, with the motion (glb)": ("_mesh.glb", _write_mesh),
    "key point trajectories (npz)": (".npz", _write_curves),
    "motion, Gaussians and weights (npz)": ("_motion.npz", _write_motion),
}


def export(shot: Shot, kind: str, folder: Path) -> Path:
    """Writes one of `EXPORTS` into a folder under a name that is still free, and returns its path."""
    suffix, write = EXPORTS[kind]
    plain = shot.title.replace(" σ", "")  # a letter, which some programs take in no file's name
    stem = to_file_name(plain, default="motion", keep="._+-", longest=70)
    names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
    with _ONE_AT_A_TIME:  # else two visitors find the same name free
        path = next(p for p in (folder / f"{name}{suffix}" for name in names) if not p.exists())
        write(shot, path)
    return path


def camera_of(position: np.ndarray, wxyz: np.ndarray, *, fov: float, aspect: float, height: int) -> Camera:
    """A pinhole camera that stands where a visitor looks from.

    Args:
      position: [3] world units.
      wxyz: [4], from OpenCV camera axes to the world.
      fov: vertical, in radians.
      aspect: width over height.
      height: of the picture, in pixels.
    """
    rotation = quaternion.to_matrix(jnp.asarray(wxyz, jnp.float32)).T
    pose = jnp.eye(4).at[:3, :3].set(rotation).at[:3, 3].set(-rotation @ jnp.asarray(position, jnp.float32))
    width = max(2, 2 * round(0.5 * height * aspect))
    return Camera(
        world_to_camera=pose,
        focal=jnp.full(2, 0.5 * height / math.tan(0.5 * fov)),
        center=jnp.asarray([0.5 * width, 0.5 * height]),
        height=height,
        width=width,
    )
