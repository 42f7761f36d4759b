"""Where a seen motion comes from, and the one call that makes joints of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.sources import detect, load_dataset
from dimo_jax.data.world import place_cameras
from dimo_jax.geometry.joint import Joint, make_joint
from dimo_jax.io.npz import read_npz
from dimo_jax.io.objects import load_object
from dimo_jax.meshes.boxes import smallest_box
from dimo_jax.meshes.objects import ObjectMesh, bounds, join_objects
from dimo_jax.systems.atop.seen.choose import main_directions
from dimo_jax.systems.atop.seen.clouds import make_clouds, surface_of
from dimo_jax.systems.atop.seen.course import Course
from dimo_jax.systems.atop.seen.crop import crop_to_motion
from dimo_jax.systems.atop.seen.fit import Answer, fit_clouds, fit_pictures
from dimo_jax.systems.atop.seen.layers import MakeDraw, draw_mesh
from dimo_jax.systems.atop.seen.paper import propose_lines
from dimo_jax.systems.atop.seen.pictures import make_pictures

MESHES = (".glb", ".gltf", ".obj", ".ply")
CLOUD_POINTS = 2048
SIDES = (64, 128)  # heights of pictures while following the part, and for the result


@dataclass(frozen=True, eq=False)
class CloudMotion:
    """Unordered points on the moving part, in the object's coordinates; the first frame is near rest."""

    points: tuple[np.ndarray, ...]  # T of [n,3]


@dataclass(frozen=True, eq=False)
class VideoMotion:
    """Videos of the whole object by known cameras, in the object's coordinates; the first frame is near rest."""

    frames: np.ndarray  # [V,T,H,W,4] uint8, straight alpha
    cameras: Camera  # V views


Motion = CloudMotion | VideoMotion


def read_motion(path: str | Path, *, motion: int = 0) -> Motion:
    """Reads a motion.

    Args:
      path: a dataset folder (multi-view videos, `data.sources`); a folder of meshes of the moved part, one a frame in
        the order of their names; or a .npz file with `points` [T,n,3].
      motion: which motion of a dataset.

    Raises:
      UserError: none of these, damaged, or with fewer than two frames.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder, expected a motion: a dataset, meshes of the part, or a .npz")
    if path.suffix.lower() == ".npz":
        return _read_points(path)
    meshes = sorted(file for file in path.glob("*") if file.suffix.lower() in MESHES) if path.is_dir() else []
    if meshes:
        if len(meshes) < 2:
            raise UserError(f"{path}: has one mesh, expected one for each of at least two frames")
        return CloudMotion(
            tuple(surface_of(load_object(mesh), CLOUD_POINTS, seed=i).points for i, mesh in enumerate(meshes))
        )
    kind = detect(path)
    if kind not in ("native", "authors", "transforms"):
        raise UserError(f"{path}: is data of the kind {kind}, expected a dataset folder; see --app=import_data")
    dataset = load_dataset(path)
    if not 0 <= motion < dataset.num_motions:
        raise UserError(f"{path}: motion is {motion}, expected 0 to {dataset.num_motions - 1}")
    if dataset.num_frames < 2:
        raise UserError(f"{path}: has one frame, expected at least two")
    cameras = dataset.cameras
    if dataset.world is not None:
        cameras = place_cameras(cameras, dataset.world.inverse())
    return VideoMotion(np.asarray(dataset.frames[motion]), cameras)


def _read_points(path: Path) -> CloudMotion:
    arrays = read_npz(path, "points [T,n,3] of the moving part")
    points = arrays.get("points")
    if (
        points is None
        or points.dtype.kind not in "fiu"
        or points.ndim != 3
        or points.shape[-1] != 3
        or len(points) < 2
        or not points.shape[1]
    ):
        found = "no such array" if points is None else f"{points.dtype} {points.shape}"
        raise UserError(f"{path}: points: found {found}, expected numbers [T,n,3] with at least two frames")
    if not np.isfinite(points).all():
        raise UserError(f"{path}: points has NaN or infinite numbers, expected finite ones")
    return CloudMotion(tuple(np.asarray(points, np.float64)))


def joint_from_motion(
    body: ObjectMesh,
    part: ObjectMesh,
    motion: Motion,
    *,
    lines: Sequence[Course] = (),
    make_draw: MakeDraw = draw_mesh,
    snapping: bool = True,
) -> list[Joint]:
    """The joint that moves a part as it was seen to move.

    Args:
      body, part: at rest, in the coordinates of the motion.
      motion: see `read_motion`.
      lines: candidates besides those of the part's box; only type, axis and origin count.
      make_draw: how pictures are drawn, for videos: see `layers`.
      snapping: whether a near candidate is taken where it explains the motion nearly as well.

    Returns:
      The most probable joint, then the other type where that is possible at all. `range` runs over the values that
      were seen, with rest at 0; `confidence` is the probability against the other one.
    """
    return to_joints(answer_motion(body, part, motion, lines=lines, make_draw=make_draw, snapping=snapping))


def answer_motion(
    body: ObjectMesh,
    part: ObjectMesh,
    motion: Motion,
    *,
    lines: Sequence[Course] = (),
    make_draw: MakeDraw = draw_mesh,
    snapping: bool = True,
) -> list[Answer]:
    """As `joint_from_motion`, with the value in every frame."""
    box, size = smallest_box(part.vertices), bounds(join_objects([body, part]).vertices)[2]
    directions = np.concatenate([box.axes, main_directions(part.corners), main_directions(body.corners)])
    surface = surface_of(part, 8192)
    if isinstance(motion, CloudMotion):
        candidates = [*propose_lines(box, len(motion.points)), *lines]
        clouds = make_clouds(surface, motion.points, noise=0.05 * surface.radius)
        return fit_clouds(clouds, candidates, directions, size=size, snapping=snapping)

    candidates = [*propose_lines(box, motion.frames.shape[1]), *lines]
    frames, cameras = crop_to_motion(motion.frames, motion.cameras, part.vertices)
    levels = [
        make_pictures(frames, cameras, partial(make_draw, body, part), surface.center, side=side) for side in SIDES
    ]
    return fit_pictures(levels, candidates, directions, part.vertices, size=size, snapping=snapping)


def to_joints(answers: Sequence[Answer]) -> list[Joint]:
    """Joints of answers, the more probable first, with confidence among themselves."""
    scores = np.array([answer.log_probability for answer in answers])
    chances = np.exp(scores - scores.max())
    joints = []
    for answer, chance in zip(answers, chances / chances.sum()):
        values = answer.course.values
        limits = (min(float(values.min()), 0.0), max(float(values.max()), 0.0))
        course = answer.course
        joints.append(
            make_joint(course.type, course.axis, course.origin, limits, confidence=float(chance), source="motion")
        )
    return joints
