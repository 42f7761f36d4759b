"""A joint with its value in every frame of a motion, and how poses change with it (NumPy, float64)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE, Joint, JointType, rotation_about, transform
from dimo_jax.meshes.boxes import frame_around


@dataclass(frozen=True)
class Course:
    """What one degree of freedom did in T frames; value 0 is the rest state of the part."""

    type: JointType
    axis: np.ndarray  # [3] unit
    origin: np.ndarray  # [3] a point of the axis; of a prismatic joint any point
    values: np.ndarray  # [T] radians or units of length

    @property
    def num_shared(self) -> int:
        """How many numbers all frames share: the axis has two, the place of a revolute one two more."""
        return 4 if self.type == REVOLUTE else 2


def to_poses(course: Course) -> np.ndarray:
    """Matrices [T,4,4] that move the part from rest into every frame."""
    return transform(Joint(course.type, course.axis, course.origin, (0.0, 0.0)), course.values)


def find_tangents(course: Course, pivots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How poses move with the parameters of `step`.

    Args:
      course: T frames.
      pivots: [T,3], the point of each frame around which twists turn.

    Returns:
      Twists (turn, shift) of the poses, in radians and units of length, for each shared parameter [T,6,S] and for the
      frame's own value [T,6].
    """
    first, second, _ = frame_around(course.axis)
    num_frames = len(course.values)
    shared, own = np.zeros((num_frames, 6, course.num_shared)), np.zeros((num_frames, 6))
    if course.type == PRISMATIC:
        own[:, 3:] = course.axis
        for i, side in enumerate((first, second)):
            shared[:, 3:, i] = course.values[:, None] * np.cross(side, course.axis)
        return shared, own
    arms = pivots - course.origin
    own[:, :3], own[:, 3:] = course.axis, np.cross(course.axis, arms)
    lag = np.eye(3) - rotation_about(course.axis, course.values)  # 1 - R
    for i, side in enumerate((first, second)):
        turn = lag @ side
        shared[:, :3, i], shared[:, 3:, i] = turn, np.cross(turn, arms)
        shared[:, 3:, 2 + i] = turn
    return shared, own


def step(course: Course, shared: np.ndarray, values: np.ndarray) -> Course:
    """The course after a small change: shared [S] (turns of the axis around the two sides of its plane, then shifts of
    a revolute one's place along them) and values [T]."""
    first, second, _ = frame_around(course.axis)
    turn = shared[0] * first + shared[1] * second
    angle = float(np.linalg.norm(turn))
    axis = rotation_about(turn / angle, angle) @ course.axis if angle > 0 else course.axis
    origin = course.origin
    if course.type == REVOLUTE:
        origin = origin + shared[2] * first + shared[3] * second
    return replace(course, axis=axis / np.linalg.norm(axis), origin=origin, values=course.values + values)


def orient(course: Course) -> Course:
    """The same course with the axis turned so that the value farthest from the first frame's is the larger.

    Whole turns between two frames, and before the first, cannot be seen and are left out.
    """
    values = course.values
    if course.type == REVOLUTE:
        values = np.unwrap(values)
        values = values - 2 * np.pi * np.round(values[0] / (2 * np.pi))
    away = values - values[0]
    sign = 1.0 if away[np.argmax(np.abs(away))] >= 0 else -1.0
    return replace(course, axis=sign * course.axis, values=sign * values)


def slide_to(course: Course, point: np.ndarray) -> Course:
    """The same course with its origin at the foot of `point` [3] on the axis; of a prismatic one, at `point`."""
    if course.type == PRISMATIC:
        return replace(course, origin=np.asarray(point, np.float64))
    along = course.axis @ (point - course.origin)
    return replace(course, origin=course.origin + along * course.axis)


def exp_twists(twists: np.ndarray, pivots: np.ndarray) -> np.ndarray:
    """Matrices [...,4,4] of turning by twists[...,:3] (a rotation vector) around pivots [...,3] and then shifting by
    twists[...,3:]."""
    turn = twists[..., :3]
    angle = np.linalg.norm(turn, axis=-1)[..., None, None]
    cross = cross_matrices(turn)
    small = angle < 1e-6
    safe = np.where(small, 1.0, angle)
    sine = np.where(small, 1.0, np.sin(safe) / safe)
    cosine = np.where(small, 0.5, (1 - np.cos(safe)) / safe**2)
    matrices = np.zeros((*turn.shape[:-1], 4, 4))
    matrices[..., :3, :3] = np.eye(3) + sine * cross + cosine * (cross @ cross)
    matrices[..., :3, 3] = pivots + twists[..., 3:] - (matrices[..., :3, :3] @ pivots[..., None])[..., 0]
    matrices[..., 3, 3] = 1.0
    return matrices


def cross_matrices(vectors: np.ndarray) -> np.ndarray:
    """[...,3] -> [...,3,3], which times w is vector x w."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
