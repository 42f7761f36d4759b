"""Where the part may be in every frame, by walking it along candidate joints: drawn once, compared with all frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.systems.atop.seen.course import Course, to_poses
from dimo_jax.systems.atop.seen.pictures import Pictures

STRIDE = 2.5  # pixels between two steps: about what a blurred picture reaches
TURNS = np.deg2rad(5.0), np.deg2rad(20.0)  # least and largest turn of a step
PATIENCE = 2  # steps that explain no frame better before a walk ends
FARTHEST = 1.0, np.pi  # of the diagonal, and of a turn


def scan_lines(pictures: Pictures, lines: Sequence[Course], points: np.ndarray, *, size: float) -> list[Course]:
    """Walks the part from rest along every candidate, both ways, as long as some frame is explained better.

    Single frames may be explained by many lines, such as a round stick that turns about itself as well; all frames
    together by few.

    Args:
      pictures: T frames, small ones.
      lines: candidates of either type; values are not looked at.
      points: [P,3] of the part at rest.
      size: diagonal of the object.

    Returns:
      The candidate of either type that explains all frames best, with its value in each.
    """
    frames = np.arange(pictures.num_frames)
    rest = pictures.compare(np.eye(4), frames)
    stride = STRIDE * pictures.pixel
    found = []
    for line in lines:
        costs, values = rest.copy(), np.zeros(len(frames))
        for sign in (1.0, -1.0):
            idle = 0
            for value in sign * _steps(line, points, size, stride):
                pose = to_poses(replace(line, values=np.array([value])))[0]
                now = pictures.compare(pose, frames)
                better = now < costs
                costs, values = np.where(better, now, costs), np.where(better, value, values)
                idle = 0 if better.any() else idle + 1
                if idle == PATIENCE:
                    break
        found.append((float(costs.sum()), replace(line, values=values)))
    kinds = ([each for each in found if each[1].type == kind] for kind in (REVOLUTE, PRISMATIC))
    return [min(each, key=lambda pair: pair[0])[1] for each in kinds if each]


def _steps(line: Course, points: np.ndarray, size: float, stride: float) -> np.ndarray:
    """Values one way along a line, at steps that move the part by about `stride`."""
    if line.type == PRISMATIC:
        return np.arange(stride, FARTHEST[0] * size, stride)
    arms = np.cross(points - line.origin, line.axis)
    turn = float(np.clip(stride / np.linalg.norm(arms, axis=-1).max(), *TURNS))
    return np.arange(turn, FARTHEST[1], turn)
