"""A rig as AnimaX sees it: small pictures and pose maps of a few views, framed by its rest pose alone.

At inference nothing is known but the file, so the framing must not depend on clips: the rest pose with a margin, and
motion in place (the straight way across the ground is taken away). Cameras stand on an orbit around the world's origin,
where the figure is put, so that rays of cameras are alike for all rigs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dimo_jax.cameras.framing import Framing, border_planes, fit_framing, support
from dimo_jax.cameras.orbits import orbit
from dimo_jax.cameras.surround import AZIMUTHS, ELEVATION, FOV_DEG
from dimo_jax.cameras.triangulation import project
from dimo_jax.core.types import Camera
from dimo_jax.data.formats.rigged.passes import render_view
from dimo_jax.rigs.facing import find_mirrored
from dimo_jax.rigs.few_markers import keep_markers, spread_markers
from dimo_jax.rigs.pose_maps import draw_pose_maps
from dimo_jax.rigs.pose_markers import PoseMarkers, make_markers, place_pose_markers
from dimo_jax.rigs.posing import pose_nodes, pose_scene, pose_vertices
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skeleton import Clip

SIZE, NUM_FRAMES = 64, 9
MARGIN = 0.12  # of the picture at every border, around the rest pose: jumps and reaches stay inside
_RADIUS = 2.0  # of the orbit, for a field of view of FOV_DEG; of others so that the figure keeps its size


@dataclass(frozen=True)
class RigView:
    """How a rig is drawn."""

    markers: PoseMarkers  # a few, see `few_markers`; in the file's world
    framing: Framing  # from the file's world to that of the cameras
    cameras: Camera  # [V]
    azimuths_deg: tuple[float, ...]
    elevation_deg: float
    samples: int

    @property
    def rest(self) -> np.ndarray:
        """Markers [K,3] at rest, in the world of the cameras."""
        return self.framing.apply(self.markers.rest)

    @property
    def diagonal(self) -> float:
        """Diagonal of the box at rest, in the world of the cameras."""
        return self.markers.diagonal * self.framing.scale

    def model_cameras(self) -> Camera:
        """The cameras in the world and the unit of the file, for what is lifted there."""
        poses: Any = np.asarray(self.cameras.world_to_camera, np.float64).copy()
        # the camera sees R s (p - c) + t, and a picture does not change when all is divided by s
        poses[:, :3, 3] = poses[:, :3, 3] / self.framing.scale - poses[:, :3, :3] @ self.framing.center
        return replace(self.cameras, world_to_camera=poses)


@dataclass(frozen=True)
class Variant:
    """How a render differs from that of inference, which turns nothing, takes the usual lens and shows all markers."""

    yaw_deg: float = 0.0  # of the figure about +Y
    fov_deg: float = FOV_DEG
    kept: tuple[int, ...] | None = None  # the markers that are drawn; None for all


@dataclass(frozen=True)
class Drawn:
    """Pictures of V views at T times."""

    rgb: np.ndarray  # [V,T,H,W,3] uint8, over white
    pose: np.ndarray  # [V,T,H,W,3] uint8 pose maps
    points: np.ndarray  # [T,K,3] of all markers, in the world of the cameras
    cameras: Camera


def view_rig(
    scene: Scene,
    *,
    size: int = SIZE,
    azimuths_deg: Sequence[float] = AZIMUTHS,
    elevation_deg: float = ELEVATION,
    margin: float = MARGIN,
    samples: int = 2,
) -> RigView:
    """How a rig is drawn, from its rest pose.

    Args:
      scene: the model.
      size: height and width of the pictures.
      azimuths_deg: of the V cameras, as in `orbit`.
      elevation_deg: of all.
      margin: share of the picture that the rest pose leaves free at every border.
      samples: samples a pixel along each axis.

    Raises:
      UserError: no skin, or no joint that carries weight.
    """
    markers = spread_markers(make_markers(scene))
    cameras = _orbit(azimuths_deg, elevation_deg, FOV_DEG, size)
    rest = pose_scene(scene, None, 0.0)[np.unique(scene.mesh.triangles)]
    normals, offsets = border_planes(cameras, margin=margin)
    framing = fit_framing(support(rest, normals), normals, offsets, 0.5 * (rest.min(axis=0) + rest.max(axis=0)))
    return RigView(markers, framing, cameras, tuple(azimuths_deg), elevation_deg, samples)


def _orbit(azimuths_deg: Sequence[float], elevation_deg: float, fov_deg: float, size: int) -> Camera:
    radius = _RADIUS * np.tan(np.deg2rad(FOV_DEG / 2)) / np.tan(np.deg2rad(fov_deg / 2))
    return orbit(azimuths_deg, elevation_deg, radius=radius, fov_deg=fov_deg, height=size, width=size)


def draw_variant(number: int, num_markers: int, rng: np.random.Generator) -> Variant:
    """The variant of a number: 0 is that of inference, others turn the figure, change the lens and drop markers."""
    if number == 0:
        return Variant()
    keep = rng.uniform(size=num_markers) >= rng.uniform(0, 0.3)
    keep[0] = True
    kept = tuple(int(index) for index in np.flatnonzero(keep))
    return Variant(float(rng.uniform(-180, 180)), float(np.exp(rng.uniform(np.log(22), np.log(52)))), kept)


def place_clip(scene: Scene, clip: Clip | None, times: np.ndarray, markers: PoseMarkers) -> np.ndarray:
    """Where markers [T,K,3] are at times of a clip, in place, in the file's world."""
    matrices = pose_nodes(scene, clip, times).matrices
    return place_pose_markers(markers, matrices) - _way(scene, clip, times)[:, None]


def _way(scene: Scene, clip: Clip | None, times: np.ndarray) -> np.ndarray:
    """The straight way across the ground [T,3] that a whole clip's vertices go, from its start on."""
    if clip is None or not clip.end > clip.start:
        return np.zeros((len(times), 3))
    ends = pose_vertices(scene, pose_nodes(scene, clip, np.array([clip.start, clip.end])), slice(None)).mean(axis=1)
    shares = (times - clip.start) / (clip.end - clip.start)
    return shares[:, None] * (ends[1] - ends[0]) * np.array([1.0, 0.0, 1.0])


def draw_clip(view: RigView, scene: Scene, clip: Clip | None, times: np.ndarray, variant: Variant) -> Drawn:
    """Pictures and pose maps of a clip at some times [T], or of the rest pose where there is no clip."""
    angle = np.deg2rad(variant.yaw_deg)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    cameras = _orbit(view.azimuths_deg, view.elevation_deg, variant.fov_deg, view.cameras.height)
    posed = pose_vertices(scene, pose_nodes(scene, clip, times), slice(None)) - _way(scene, clip, times)[:, None]
    vertices = view.framing.apply(posed) @ turn.T
    mirrored = find_mirrored(scene, clip, times)
    views = range(len(view.azimuths_deg))
    pictures = [list(render_view(vertices, scene, cameras, v, samples=view.samples, mirrored=mirrored)) for v in views]
    points = view.framing.apply(place_clip(scene, clip, times, view.markers)) @ turn.T
    kept = list(variant.kept) if variant.kept is not None else list(range(points.shape[1]))
    shown = keep_markers(view.markers, kept)
    pose = draw_pose_maps(points[:, kept], cameras, shown.parents, shown.colors)
    return Drawn(_over_white(np.array(pictures)), pose, points, cameras)


def draw_stills(view: RigView, scene: Scene) -> np.ndarray:
    """The condition at inference: the rest pose and its pose map -> [V,2,H,W,3] uint8."""
    drawn = draw_clip(view, scene, None, np.zeros(1), Variant())
    return np.stack([drawn.rgb[:, 0], drawn.pose[:, 0]], axis=1)


def _over_white(pictures: np.ndarray) -> np.ndarray:
    """Straight alpha [...,4] uint8 over white -> [...,3] uint8."""
    alpha = pictures[..., 3:].astype(np.float32) / 255
    return np.round(pictures[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def share_outside(view: RigView, points: np.ndarray) -> float:
    """Share of the sightings of markers [T,K,3], of the cameras' world, that lie outside of the pictures."""
    pixels, _ = project(points, view.cameras)
    return float(((pixels < 0) | (pixels > view.cameras.height)).any(axis=-1).mean())
