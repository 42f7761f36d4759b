"""Points of a rig by other points that move with it, such as the key points of a run that saw its videos.

Each point is a fixed sum, with weights that add up to 1, of the others and of ends of their turned axes; so it moves
with them however all of them are turned and placed. The weights are those of least squares over known motions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REACH = 0.15  # of the size: how long the axes of a followed point are
RIDGE = 0.01  # of the mean square of what is followed; measured in docs/rigs.md


@dataclass(frozen=True)
class Following:
    """How M points follow K others."""

    weights: np.ndarray  # [4K,M] of places and ends of axes, away from their mean
    reach: float

    def place(self, tracks: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """The points [T,M,3] of places [T,K,3] and rotations [T,K,3,3] of what they follow."""
        ends = spread_axes(tracks, turns, self.reach)
        middle = ends.mean(axis=1, keepdims=True)
        placed: np.ndarray = middle + np.einsum("tkb,km->tmb", ends - middle, self.weights)
        return placed


def spread_axes(tracks: np.ndarray, turns: np.ndarray, reach: float) -> np.ndarray:
    """Places, and the ends of axes of length `reach` at them: [T,4K,3]."""
    axes = tracks[:, :, None] + reach * np.moveaxis(turns, -1, -2)
    return np.concatenate([tracks, axes.reshape(len(tracks), -1, 3)], axis=1)


def fit_following(
    tracks: np.ndarray, turns: np.ndarray, targets: np.ndarray, *, size: float, ridge: float = RIDGE
) -> Following:
    """Learns how points follow others.

    Args:
      tracks: [F,K,3] in many poses.
      turns: [F,K,3,3].
      targets: [F,M,3] where the points are in these.
      size: of the rig, in its units.
      ridge: by how much weights are kept small.
    """
    ends = spread_axes(np.asarray(tracks, np.float64), np.asarray(turns, np.float64), REACH * size)
    middle = ends.mean(axis=1, keepdims=True)
    rows = (ends - middle).transpose(0, 2, 1).reshape(-1, ends.shape[1])
    aims = (targets - middle).transpose(0, 2, 1).reshape(-1, targets.shape[1])
    gram = rows.T @ rows
    gram += ridge * max(float(np.trace(gram)) / len(gram), 1e-12) * np.eye(len(gram))
    return Following(np.linalg.solve(gram, rows.T @ aims), REACH * size)
