"""Markers in space from pose-map videos: found by colour, lifted, fitted where they are expected, lifted again."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from dimo_jax.cameras.triangulation import project
from dimo_jax.core.types import Camera
from dimo_jax.rigs.lifting import AGREES, Lifted, lift
from dimo_jax.rigs.localise import Sightings, find_discs, fit_discs

_LEAST_SHARE = 0.1  # of a disc that must be seen for its place to count


class Shown(Protocol):
    """What pose maps show: `pose_markers.PoseMarkers`, or what a data set keeps of them."""

    @property
    def colors(self) -> np.ndarray:
        """[K,3] uint8."""

    @property
    def parents(self) -> np.ndarray:
        """[K] the marker at the other end of a bone, -1 for none."""

    @property
    def rest(self) -> np.ndarray:
        """[K,3] positions at rest."""

    @property
    def diagonal(self) -> float:
        """Of the model at rest."""


def find_markers(frames: np.ndarray, markers: Shown) -> Sightings:
    """Markers in pose maps [V,T,H,W,3] uint8, by colour alone."""
    found = [[find_discs(image, markers.colors) for image in view] for view in frames]
    return Sightings(
        pixels=np.array([[pixels for pixels, _ in view] for view in found]),
        shares=np.array([[shares for _, shares in view] for view in found]),
    )


def fit_markers(
    frames: np.ndarray,
    sightings: Sightings,
    lifted: Lifted,
    cameras: Camera,
    markers: Shown,
    *,
    slack: float = 1.0,
) -> Sightings:
    """Markers in pose maps, to a fraction of a pixel, once it is about known where they are in space."""
    expected, depths = project(lifted.points, cameras)
    near = np.linalg.norm(sightings.pixels - expected, axis=-1) <= slack * AGREES * cameras.height / 480
    start = np.where(near[..., None], sightings.pixels, expected)
    fitted = [fit_discs(*view, markers.parents, markers.colors) for view in zip(frames, start, depths)]
    shares = np.array([shares for _, shares in fitted])
    seen = shares >= _LEAST_SHARE
    pixels = np.where(seen[..., None], np.array([pixels for pixels, _ in fitted]), np.nan)
    return Sightings(pixels, np.where(seen, shares, 0.0))


def lift_markers(sightings: Sightings, cameras: Camera, markers: Shown, *, slack: float = 1.0) -> Lifted:
    """Markers in space from where they are in V views."""
    return lift(
        sightings.pixels,
        sightings.shares,
        cameras,
        parents=markers.parents,
        rest=markers.rest,
        diagonal=markers.diagonal,
        slack=slack,
    )


def recover_markers(frames: np.ndarray, cameras: Camera, markers: Shown, *, slack: float = 1.0) -> Lifted:
    """Markers in space from pose-map videos.

    Args:
      frames: [V,T,H,W,3] uint8, of V cameras at the same times.
      cameras: V of them, stacked, for pictures of that size, in the model's own world.
      markers: of the model.
      slack: of `lift`.
    """
    sightings = find_markers(frames, markers)
    first = lift_markers(sightings, cameras, markers, slack=slack)
    sightings = fit_markers(frames, sightings, first, cameras, markers, slack=slack)
    return dataclasses.replace(lift_markers(sightings, cameras, markers, slack=slack), agreement=first.agreement)
