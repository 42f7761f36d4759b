"""The camera that films a clip: one that stands still, or one that circles while the clip plays."""

from __future__ import annotations

import numpy as np

from dimo_jax.cameras.orbits import orbit_like, place_on_orbit
from dimo_jax.core.flag_values import parse_numbers
from dimo_jax.core.types import Camera


def make_camera_path(
    camera: Camera, kind: str, num_frames: int, *, azimuths: str = "", elevation: float | None = None
) -> Camera:
    """The camera itself ("fixed"), or one a frame on an orbit like it ("orbit"); other arguments as for `--app=sample`,
    whose check they have passed.

    Raises:
      UserError: a range of azimuths that is none.
    """
    if kind == "fixed":
        return camera
    azimuth, own_elevation, _ = place_on_orbit(camera)
    first, last = parse_numbers("azimuths", azimuths, count=2) if azimuths else (azimuth, azimuth + 360.0)
    degrees = np.linspace(first, last, num_frames, endpoint=bool(azimuths))  # a whole turn ends before its beginning
    return orbit_like(camera, degrees, own_elevation if elevation is None else elevation)
