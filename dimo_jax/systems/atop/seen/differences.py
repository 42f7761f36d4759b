"""Slopes of pictures by central differences: slow, and right where those of `pictures` are not.

Where a part dives into the body or comes out from behind it, its outline moves otherwise than its surface does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.systems.atop.seen.course import exp_twists
from dimo_jax.systems.atop.seen.evidence import Slopes, move_pivots
from dimo_jax.systems.atop.seen.pictures import HUBER, Pictures

STEP = 0.5  # pixels, either way


@dataclass(frozen=True, eq=False)
class Differences:
    """The same costs as those of `pictures`; see `evidence.Evidence`."""

    pictures: Pictures
    radius: float  # of the part: a turn by one over this moves its outline as a shift by one does

    @property
    def num_frames(self) -> int:
        """T."""
        return self.pictures.num_frames

    @property
    def pivot(self) -> np.ndarray:
        """See `Evidence`."""
        return self.pictures.pivot

    def measure(self, poses: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """See `Evidence`."""
        return self.pictures.measure(poses, frames)

    def linearize(self, poses: np.ndarray, frames: np.ndarray) -> Slopes:
        """See `Evidence`."""
        shift = STEP * self.pictures.pixel
        steps = np.array([shift / self.radius] * 3 + [shift] * 3)
        twists = np.concatenate([np.diag(steps), -np.diag(steps)])
        found = []
        for pose, pivot, frame in zip(poses, move_pivots(self.pictures, poses), frames):
            moved = exp_twists(twists, np.tile(pivot, (12, 1))) @ pose
            ahead, behind = np.stack([self.pictures.look(each).ravel() for each in moved]).reshape(2, 6, -1)
            jacobian = ((ahead - behind) / (2 * steps[:, None])).T
            residual = self.pictures.look(pose) - self.pictures.images[frame]
            found.append(self._sum_up(jacobian, residual))
        cost, gradient, curvature = (np.stack(list(column)) for column in zip(*found))
        return Slopes(cost, gradient, curvature)

    def _sum_up(self, jacobian: np.ndarray, residual: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Cost, gradient [6] and curvature [6,6] of residuals with slopes [N,6]."""
        pictures = self.pictures
        told = np.abs(jacobian).max(axis=1) > 0
        flat, error = jacobian[told] / pictures.noise, residual.ravel()[told] / pictures.noise
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(error), 1e-9))
        gradient, curvature = flat.T @ (weight * error), (flat * weight[:, None]).T @ flat
        return pictures.cost(residual), gradient / pictures.temper, curvature / pictures.temper
