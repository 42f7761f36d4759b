"""What a source of motion says about the poses of a part: the one interface between data and the search for a joint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Slopes:
    """Costs of frames and how they change when a pose is turned and shifted a little (`course.exp_twists`)."""

    cost: np.ndarray  # [F] minus the logarithm of the likelihood, up to a constant of the evidence
    gradient: np.ndarray  # [F,6] by twist (turn, shift) around the moved pivot
    curvature: np.ndarray  # [F,6,6] Gauss-Newton's, positive semi-definite


class Evidence(Protocol):
    """The frames of a motion, given the shape of the part."""

    @property
    def num_frames(self) -> int:
        """T."""
        ...

    @property
    def pivot(self) -> np.ndarray:
        """A point [3] in the middle of the part at rest; twists turn around where a pose moves it."""
        ...

    def measure(self, poses: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Costs [F] of poses [F,4,4] of the frames with the indices `frames` [F]."""
        ...

    def linearize(self, poses: np.ndarray, frames: np.ndarray) -> Slopes:
        """The costs of `measure` and their slopes."""
        ...


def move_pivots(evidence: Evidence, poses: np.ndarray) -> np.ndarray:
    """Where poses [F,4,4] move the pivot [F,3]."""
    return np.asarray(poses[:, :3, :3] @ evidence.pivot + poses[:, :3, 3])
