"""Cameras around moving points, as near as keeps all of them in every picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dimo_jax.cameras.framing import border_planes, fit_framing, support
from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Camera

# Turned off the axes that most models are symmetric about, so that left and right do not hide each other.
AZIMUTHS, ELEVATION = (20.0, 110.0, 200.0, 290.0), 15.0
FOV_DEG = 33.9
_RADIUS = 3.0


def surround(
    points: np.ndarray,
    *,
    height: int,
    width: int,
    azimuths_deg: Sequence[float] = AZIMUTHS,
    elevation_deg: float = ELEVATION,
    margin: float = 0.03,
) -> Camera:
    """Cameras on an orbit that see all points.

    Args:
      points: [...,3] in any unit.
      height, width: of the pictures.
      azimuths_deg: [V] of the cameras, as in `orbit`.
      elevation_deg: of all.
      margin: share of the picture that stays free at every border.

    Returns:
      V cameras in the world and the unit of the points, poses in float64.

    Raises:
      ValueError: the points have no extent.
    """
    cameras = orbit(azimuths_deg, elevation_deg, radius=_RADIUS, fov_deg=FOV_DEG, height=height, width=width)
    normals, offsets = border_planes(cameras, margin=margin)
    points = np.asarray(points, np.float64).reshape(-1, 3)
    framing = fit_framing(support(points, normals), normals, offsets, 0.5 * (points.min(axis=0) + points.max(axis=0)))
    poses: Any = np.asarray(cameras.world_to_camera, np.float64).copy()
    # the camera sees R s (p - c) + t, and a picture does not change when all is divided by s
    poses[:, :3, 3] = poses[:, :3, 3] / framing.scale - poses[:, :3, :3] @ framing.center
    return dataclasses.replace(cameras, world_to_camera=poses)
