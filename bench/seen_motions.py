"""Motions to find joints from, made of objects whose joints are known: point clouds and videos, clean and spoilt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Camera
from dimo_jax.geometry.joint import REVOLUTE, Joint, move_joint, move_points, transform
from dimo_jax.meshes.objects import ObjectMesh, bounds, join_objects, move_object
from dimo_jax.meshes.renderer import render_mesh
from dimo_jax.systems.atop.seen.clouds import surface_of
from dimo_jax.systems.atop.seen.layers import split_cameras
from dimo_jax.systems.atop.seen.motion import CloudMotion, VideoMotion

AZIMUTHS, ELEVATION, FOV = (45, 135, 225, 315), 20.0, 33.9
HALF_TURN = float(np.pi)  # a wheel's motion is cut here: ten frames of more tell nothing more


@dataclass(frozen=True, eq=False)
class Case:
    """An object turned at random, with its joint and the values that are shown."""

    name: str
    body: ObjectMesh
    part: ObjectMesh
    joint: Joint
    values: np.ndarray  # [T], the first is rest

    @property
    def size(self) -> float:
        """Diagonal of the object at rest."""
        return bounds(np.concatenate([self.body.vertices, self.part.vertices]))[2]

    @property
    def travel(self) -> float:
        """How far the vertex that goes farthest goes, as a share of the diagonal."""
        moved = move_points(self.joint, self.values, self.part.vertices)
        return float(np.linalg.norm(moved - self.part.vertices, axis=-1).max() / self.size)


def make_case(name: str, body: ObjectMesh, part: ObjectMesh, joint: Joint, *, seed: int, num_frames: int = 10) -> Case:
    """An object turned at random, with the values of `shown_values`."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.random(random_state=np.random.default_rng(seed)).as_matrix()
    moved = move_joint(joint, turn)
    return Case(name, move_object(body, turn), move_object(part, turn), moved, shown_values(moved, num_frames))


def shown_values(joint: Joint, num_frames: int) -> np.ndarray:
    """Values [T] from rest to the farther limit (the upper one of two alike), half a turn at most."""
    low, high = joint.range
    far = high if abs(high) >= abs(low) - 1e-6 else low
    return np.linspace(0.0, float(np.clip(far, -HALF_TURN, HALF_TURN)) if joint.type == REVOLUTE else far, num_frames)


def make_points(
    case: Case,
    *,
    seed: int,
    noise: float = 0.0,
    drift: float = 0.0,
    bend: float = 0.0,
    missing: float = 0.0,
    count: int = 2048,
) -> CloudMotion:
    """Unordered surface points of the part, drawn anew in every frame.

    Args:
      case: what moves.
      seed: of all that is random.
      noise: standard deviation of each coordinate, as a share of the object's diagonal.
      drift: standard deviation of a shift of the whole cloud, one a frame, as a share of the diagonal.
      bend: how far the part's ends are bent out of their plane in the last frame, as a share of the diagonal.
      missing: share of the points that is left out, around a point of the part that differs by frame.
      count: points before any are left out.
    """
    rng = np.random.default_rng(seed)
    clouds = []
    middle = case.part.vertices.mean(0)
    sides = np.linalg.svd(case.part.vertices - middle, full_matrices=False)[2]
    reach = np.abs((case.part.vertices - middle) @ sides[0]).max()
    for frame, value in enumerate(case.values):
        points = surface_of(case.part, count, seed=int(rng.integers(1 << 31))).points
        if missing:
            far = np.linalg.norm(points - points[rng.integers(len(points))], axis=-1)
            points = points[np.argsort(far)[int(missing * len(points)) :]]
        if bend:
            along = (points - middle) @ sides[0] / reach
            grown = frame / max(len(case.values) - 1, 1)
            points = points + (bend * case.size * grown * along**2)[:, None] * sides[2]
        points = move_points(case.joint, value, points)
        points = points + case.size * (noise * rng.normal(size=points.shape) + drift * rng.normal(size=3))
        clouds.append(points)
    return CloudMotion(tuple(clouds))


def make_video(
    case: Case, *, seed: int, noise: float = 0.0, blur: float = 0.0, side: int = 256, elevation: float = ELEVATION
) -> VideoMotion:
    """Four views of the whole object, rendered by our mesh renderer.

    Args:
      case: what moves.
      seed: of the noise.
      noise: standard deviation of every channel of every pixel, 0..1.
      blur: pixels by which pictures are blurred before the noise.
      side: of a picture in pixels.
      elevation: of the cameras, degrees.
    """
    rng = np.random.default_rng(seed)
    cameras = place_cameras(case, side=side, elevation=elevation)
    views = split_cameras(cameras)
    frames = np.zeros((len(views), len(case.values), side, side, 4), np.uint8)
    for t, value in enumerate(case.values):
        whole = join_objects([case.body, move_object(case.part, transform(case.joint, value))])
        for v, view in enumerate(views):
            picture: np.ndarray = render_mesh(whole.vertices, whole.mesh, view).astype(np.float32)
            if blur:
                alpha = gaussian_filter(picture[..., 3:], (blur, blur, 0))
                color = gaussian_filter(picture[..., :3] * picture[..., 3:] / 255, (blur, blur, 0))
                picture = np.concatenate([color * 255 / np.maximum(alpha, 1e-3), alpha], axis=-1)
            if noise:
                picture += (255 * noise * rng.normal(size=picture.shape)).astype(np.float32)
            frames[v, t] = np.clip(np.rint(picture), 0, 255)
    return VideoMotion(frames, cameras)


def place_cameras(case: Case, *, side: int, elevation: float) -> Camera:
    """Cameras around everything that the object reaches."""
    moved = move_points(case.joint, case.values, case.part.vertices).reshape(-1, 3)
    points = np.concatenate([case.body.vertices, moved])
    low, high, _ = bounds(points)
    middle = 0.5 * (low + high)
    radius = np.linalg.norm(points - middle, axis=-1).max() / np.sin(np.deg2rad(FOV / 2)) * 1.02
    return orbit(AZIMUTHS, elevation, radius=radius, fov_deg=FOV, height=side, width=side, target=middle)
