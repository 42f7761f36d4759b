"""The cameras around an imported model, and the quality of its pictures."""

from __future__ import annotations

from dataclasses import dataclass

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera


def spread_views(num_views: int) -> tuple[float, ...]:
    """Azimuths in degrees of views evenly around the model, the first in front of it.

    Raises:
      UserError: fewer than one.
    """
    if num_views < 1:
        raise UserError(f"num_views: found {num_views}, expected 1 or more")
    return tuple(360.0 * view / num_views for view in range(num_views))


@dataclass(frozen=True)
class Turntable:
    """The cameras and the quality of the pictures."""

    azimuths_deg: tuple[float, ...] = (0.0, 30.0, 75.0, 120.0, 165.0, 210.0, 255.0, 300.0, 330.0)  # views that train
    test_azimuths_deg: tuple[float, ...] = (50.0, 190.0)  # views held out
    elevation_deg: float = 10.0  # of all cameras, above the horizon
    radius: float = 2.0  # distance of the cameras from the origin, world units
    fov_deg: float = 33.9
    size: int = 128  # image height and width in pixels
    margin: float = 0.04  # share of the picture that stays free at each border
    samples: int = 2  # samples a pixel along each axis

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          UserError: an option is out of range.
        """
        checks = (
            ("azimuths_deg", len(self.azimuths_deg) >= 1, "at least one view"),
            ("elevation_deg", -90 <= self.elevation_deg <= 90, "-90..90"),
            ("radius", self.radius >= 0.1, "0.1 or more"),
            ("fov_deg", 1 <= self.fov_deg <= 120, "1..120"),
            ("size", 8 <= self.size <= 4096, "8..4096"),
            ("margin", 0 <= self.margin < 0.4, "0..0.4"),
            ("samples", 1 <= self.samples <= 8, "1..8"),
        )
        for name, valid, expected in checks:
            if not valid:
                raise UserError(f"{name}: found {getattr(self, name)!r}, expected {expected}")

    def cameras(self) -> Camera:
        """All views, those that train first."""
        azimuths = (*self.azimuths_deg, *self.test_azimuths_deg)
        return orbit(
            azimuths,
            (self.elevation_deg,),
            radius=self.radius,
            fov_deg=self.fov_deg,
            height=self.size,
            width=self.size,
        )
