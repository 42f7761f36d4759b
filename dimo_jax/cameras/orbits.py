"""Cameras on an orbit around an object, and their change of resolution. NumPy: nothing here needs a gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera


def orbit(
    azimuths_deg: Sequence[float] | np.ndarray,
    elevations_deg: float | Sequence[float] | np.ndarray,
    *,
    radius: float,
    fov_deg: float,
    height: int,
    width: int,
    target: Sequence[float] = (0.0, 0.0, 0.0),
) -> Camera:
    """Cameras that look at `target` from a sphere around it, upright with respect to +Y.

    Azimuth 0 stands on +Z and looks to -Z; increasing azimuth moves towards +X; positive elevation is above. The
    right vector comes from the azimuth alone, so elevations of +-90 degrees are as good as any other.

    Args:
      azimuths_deg: [V] degrees.
      elevations_deg: [V] degrees, or one number for all.
      radius: distance from `target`, world units.
      fov_deg: vertical field of view in degrees; pixels are square.
      height: image height in pixels.
      width: image width in pixels.
      target: the point in the middle of every image.

    Returns:
      Camera with float32 NumPy arrays world_to_camera [V,4,4], focal [V,2] and center [V,2].
    """
    azimuths = np.deg2rad(np.atleast_1d(np.asarray(azimuths_deg, np.float64)))
    elevations = np.broadcast_to(np.deg2rad(np.asarray(elevations_deg, np.float64)), azimuths.shape)
    sin_a, cos_a, sin_e, cos_e = np.sin(azimuths), np.cos(azimuths), np.sin(elevations), np.cos(elevations)
    outward = np.stack([cos_e * sin_a, sin_e, cos_e * cos_a], axis=-1)
    right = np.stack([cos_a, np.zeros_like(cos_a), -sin_a], axis=-1)
    down = np.cross(-outward, right)
    rotation = np.stack([right, down, -outward], axis=-2)
    eye = np.asarray(target, np.float64) + radius * outward
    world_to_camera = np.zeros((len(azimuths), 4, 4))
    world_to_camera[:, :3, :3] = rotation
    world_to_camera[:, :3, 3] = -np.einsum("vij,vj->vi", rotation, eye)
    world_to_camera[:, 3, 3] = 1.0
    focal = 0.5 * height / np.tan(0.5 * np.deg2rad(fov_deg))
    return Camera(
        world_to_camera=world_to_camera.astype(np.float32),  # type: ignore[arg-type]
        focal=np.full((len(azimuths), 2), focal, np.float32),  # type: ignore[arg-type]
        center=np.tile(np.asarray([0.5 * width, 0.5 * height], np.float32), (len(azimuths), 1)),  # type: ignore[arg-type]
        height=height,
        width=width,
    )


def orbit_camera(
    *,
    azimuth: float = 0.0,
    elevation: float = 0.0,
    radius: float = 2.0,
    fov_deg: float = 33.9,
    size: int = 256,
    target: Sequence[float] = (0.0, 0.0, 0.0),
) -> Camera:
    """One camera of `orbit` with a square picture: world_to_camera [4,4], focal [2], center [2].

    Args:
      azimuth, elevation: degrees.
      radius, fov_deg, target: as in `orbit`; by default as the paper's cameras.
      size: height and width in pixels.
    """
    cameras = orbit([azimuth], elevation, radius=radius, fov_deg=fov_deg, height=size, width=size, target=target)
    arrays: Any = {name: getattr(cameras, name)[0] for name in ("world_to_camera", "focal", "center")}
    return dataclasses.replace(cameras, **arrays)


def resize(camera: Camera, height: int, width: int) -> Camera:
    """The same cameras at another resolution: focal and center scale with the image, per axis.

    Pixel centres lie at +0.5, so the image's corner is the origin and no half-pixel shift arises.
    """
    scale = np.asarray([width / camera.width, height / camera.height], np.float32)
    return dataclasses.replace(
        camera, focal=camera.focal * scale, center=camera.center * scale, height=height, width=width
    )


def place_on_orbit(camera: Camera) -> tuple[float, float, float]:
    """Azimuth and elevation (degrees) and distance at which one camera stands around the point that it looks at.

    That point is the one of its optical axis that lies nearest to the world's origin, where objects stand.

    Raises:
      UserError: the camera does not look towards the origin.
    """
    pose = np.asarray(camera.world_to_camera, np.float64)
    forward = pose[2, :3]
    distance = float(pose[:3, :3].T @ pose[:3, 3] @ forward)  # minus the eye's position, along the view
    if distance <= 0:
        raise UserError("the stored camera looks away from the world's origin, expected one that looks at the object")
    azimuth, elevation = np.arctan2(-forward[0], -forward[2]), np.arcsin(np.clip(-forward[1], -1, 1))
    return float(np.rad2deg(azimuth)), float(np.rad2deg(elevation)), distance


def orbit_like(
    camera: Camera, azimuths_deg: Sequence[float] | np.ndarray, elevations_deg: float | Sequence[float] | np.ndarray
) -> Camera:
    """An orbit with the distance, the field of view and the picture of one camera, around what it looks at.

    Args:
      camera: world_to_camera [4,4], focal [2], center [2].
      azimuths_deg: [V] as in `orbit`.
      elevations_deg: [V], or one number for all.

    Returns:
      Cameras with float32 NumPy arrays and a leading axis V.

    Raises:
      UserError: the camera does not look towards the origin.
    """
    _, _, distance = place_on_orbit(camera)
    pose = np.asarray(camera.world_to_camera, np.float64)
    target = -pose[:3, :3].T @ pose[:3, 3] + distance * pose[2, :3]
    size = dict(height=camera.height, width=camera.width)
    cameras = orbit(azimuths_deg, elevations_deg, radius=distance, fov_deg=45.0, target=target.tolist(), **size)
    count = len(cameras.focal)
    lens: Any = {
        name: np.tile(np.asarray(getattr(camera, name), np.float32), (count, 1)) for name in ("focal", "center")
    }
    return dataclasses.replace(cameras, **lens)


def select_cameras(cameras: Camera, indices: Any) -> Camera:
    """Some of the cameras of a stack."""
    return jax.tree.map(lambda x: jnp.asarray(x)[np.asarray(indices)], cameras)
