"""Where the part may be in every frame, by walking it along candidate joints: drawn once, compared with all frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.systems.atop.seen.course import Course, to_poses
from dimo_jax.systems.atop.seen.pictures import Pictures

STRIDE = 0.045  # of the diagonal between two steps: about what a blurred picture reaches
TURNS = np.deg2rad(5.0), np.deg2rad(20.0)  # least and largest turn of a step
PATIENCE = 2  # steps that explain no frame better before a walk ends
FARTHEST = 1.0, np.pi  # of the diagonal, and of a turn


@dataclass(frozen=True)
class Scan:
    """The best of all places that were tried."""

    poses: np.ndarray  # [T,4,4] of every frame by itself
    courses: tuple[Course, ...]  # one of either type: the candidate that explains all frames best, with its values


def scan_lines(pictures: Pictures, lines: Sequence[Course], points: np.ndarray, *, size: float) -> Scan:
    """Walks the part from rest along every candidate, both ways, as long as some frame is explained better.

    Args:
      pictures: T frames, small ones.
      lines: candidates of either type; values are not looked at.
      points: [P,3] of the part at rest.
      size: diagonal of the object.
    """
    frames = np.arange(pictures.num_frames)
    rest = pictures.compare(np.eye(4), frames)
    best, poses, found = rest.copy(), np.tile(np.eye(4), (len(frames), 1, 1)), []
    for line in lines:
        costs, values = rest.copy(), np.zeros(len(frames))
        for sign in (1.0, -1.0):
            idle = 0
            for value in sign * _steps(line, points, size):
                pose = to_poses(replace(line, values=np.array([value])))[0]
                now = pictures.compare(pose, frames)
                better = now < costs
                costs, values = np.where(better, now, costs), np.where(better, value, values)
                poses[now < best], best = pose, np.minimum(now, best)
                idle = 0 if better.any() else idle + 1
                if idle == PATIENCE:
                    break
        found.append((float(costs.sum()), replace(line, values=values)))
    first = [
        min((each for each in found if each[1].type == kind), key=lambda each: each[0])
        for kind in (REVOLUTE, PRISMATIC)
    ]
    return Scan(poses, tuple(course for _, course in first))


def _steps(line: Course, points: np.ndarray, size: float) -> np.ndarray:
    """Values one way along a line, at steps that move the part by about STRIDE."""
    if line.type == PRISMATIC:
        return np.arange(STRIDE, FARTHEST[0], STRIDE) * size
    arms = np.cross(points - line.origin, line.axis)
    turn = float(np.clip(STRIDE * size / np.linalg.norm(arms, axis=-1).max(), *TURNS))
    return np.arange(turn, FARTHEST[1], turn)
