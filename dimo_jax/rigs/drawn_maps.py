"""Markers in space from pose maps that a model drew: blurred, dim, and each view a little off.

Blur and doubt take light from discs over black, so that their colours are none of the known ones. Before anything is
looked for, a video is made brighter until most of the markers are found.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.rigs.lifting import Lifted, fill_points
from dimo_jax.rigs.localise import find_discs
from dimo_jax.rigs.recovery import Shown, recover_markers

SLACK = 6.0  # times the error of rendered pictures: 2.4 pixels of 64 for views to agree
FAR = 1.0  # diagonals from where the model is at rest, beyond which nothing of a motion in place lies
_LEVELS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the light that is left
_BETTER = 1.05  # times as much must be found at the next level
_LOOKED_AT = 3  # every so many frames


def recover_drawn(frames: np.ndarray, cameras: Camera, markers: Shown) -> Lifted:
    """Markers in space from drawn pose maps [V,T,H,W,3] uint8; see `recover_markers`. None of them is far off."""
    return settle_markers(recover_markers(brighten(frames, markers.colors), cameras, markers, slack=SLACK), markers)


def brighten(frames: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Pose maps [V,T,H,W,3] uint8, all brighter by one factor: that at which most of the discs' areas is found."""
    some = frames[:, ::_LOOKED_AT].reshape(-1, *frames.shape[2:])
    best, most = 1.0, -1.0
    for level in _LEVELS:
        found = float(sum(find_discs(image, colors)[1].sum() for image in _divide(some, level)))
        if most < 0 or found > _BETTER * most:
            best, most = level, found
    return _divide(frames, best)


def _divide(frames: np.ndarray, level: float) -> np.ndarray:
    return np.minimum(np.round(frames / np.float32(level)), 255).astype(np.uint8)


def settle_markers(lifted: Lifted, markers: Shown) -> Lifted:
    """Markers of drawn videos, some of which colours that are not theirs have thrown far off.

    Those far from where the model rests are put between the times around them, else where the marker above has them,
    with confidence 0. Others stay, however few views agree on them: that leaves less error than filling them in.

    Args:
      lifted: of a motion in place.
      markers: of the model.
    """
    away = np.linalg.norm(lifted.points - markers.rest.mean(axis=0), axis=-1)
    near = away <= FAR * markers.diagonal  # false where NaN
    filled = fill_points(np.where(near[..., None], lifted.points, np.nan), markers.parents, markers.rest)
    return dataclasses.replace(lifted, points=filled, confidence=np.where(near, lifted.confidence, 0.0))
