"""A joint between two rigid pieces: what `systems/atop` finds and what files for simulators hold (NumPy, float64)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

JointType = Literal["revolute", "prismatic"]
REVOLUTE: JointType = "revolute"
PRISMATIC: JointType = "prismatic"


@dataclass(frozen=True)
class Joint:
    """One degree of freedom of a part that is given in its rest state.

    Positive values turn by the right hand rule around `axis` (revolute) or move along it (prismatic); value 0 is rest.
    """

    type: JointType
    axis: np.ndarray  # [3] unit, in the coordinates of the object
    origin: np.ndarray  # [3] a point of the axis; of a prismatic joint any point of the part
    range: tuple[float, float]  # lowest and highest value, radians or the object's unit of length
    confidence: float = 0.0  # 0..1, how probable it is that type, axis and place are right
    source: str = ""  # what proposed it

    @property
    def span(self) -> float:
        """How far it goes from one limit to the other, radians or the object's unit of length."""
        return self.range[1] - self.range[0]


def make_joint(
    type: JointType,
    axis: Any,
    origin: Any,
    range: tuple[float, float] = (0.0, 0.0),
    *,
    confidence: float = 0.0,
    source: str = "",
) -> Joint:
    """A joint from any axis [3] (scaled to unit length) and origin [3].

    Raises:
      ValueError: an unknown type, numbers that are not finite, an axis without length, or limits the wrong way round.
    """
    axis, origin = np.asarray(axis, np.float64).reshape(3), np.asarray(origin, np.float64).reshape(3)
    length = float(np.linalg.norm(axis))
    if type not in (REVOLUTE, PRISMATIC):
        raise ValueError(f"type is {type!r}, expected revolute or prismatic")
    if not (np.isfinite(axis).all() and np.isfinite(origin).all() and np.isfinite(range).all() and length > 0):
        raise ValueError(
            f"axis {axis}, origin {origin}, range {range}: expected finite numbers and an axis with length"
        )
    if range[0] > range[1]:
        raise ValueError(f"range is {range}, expected the lower limit first")
    low, high = float(range[0]), float(range[1])
    return Joint(type, axis / length, origin, (low, high), float(confidence), source)


def transform(joint: Joint, value: Any) -> np.ndarray:
    """Matrices [...,4,4] that move the part from rest to joint values [...] (radians or units of length)."""
    value = np.asarray(value, np.float64)
    matrices = np.zeros((*value.shape, 4, 4))
    matrices[..., 3, 3] = 1.0
    if joint.type == PRISMATIC:
        matrices[..., :3, :3] = np.eye(3)
        matrices[..., :3, 3] = value[..., None] * joint.axis
        return matrices
    turn = rotation_about(joint.axis, value)
    matrices[..., :3, :3] = turn
    matrices[..., :3, 3] = joint.origin - turn @ joint.origin
    return matrices


def rotation_about(axis: np.ndarray, angle: Any) -> np.ndarray:
    """Rotation matrices [...,3,3] by `angle` [...] radians around a unit axis [3] (Rodrigues)."""
    angle = np.asarray(angle, np.float64)[..., None, None]
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def move_points(joint: Joint, value: Any, points: np.ndarray) -> np.ndarray:
    """Points [P,3] of the part at joint values [...] -> [...,P,3]."""
    matrices = transform(joint, value)
    return points @ matrices[..., :3, :3].swapaxes(-1, -2) + matrices[..., None, :3, 3]


def move_joint(joint: Joint, matrix: np.ndarray) -> Joint:
    """The same joint of an object that was moved, turned or scaled evenly by `matrix` [4,4]."""
    linear = np.asarray(matrix)[:3, :3]
    scale = float(np.cbrt(np.linalg.det(linear)))
    if scale <= 0:
        raise ValueError("the matrix mirrors, expected a rotation with an even scale")
    length = scale if joint.type == PRISMATIC else 1.0
    origin = linear @ joint.origin + np.asarray(matrix)[:3, 3]
    limits = (joint.range[0] * length, joint.range[1] * length)
    return replace(joint, axis=linear @ joint.axis / scale, origin=origin, range=limits)


def to_json(joint: Joint) -> dict[str, Any]:
    """The fields as JSON holds them."""
    return {
        "type": joint.type,
        "axis": [float(value) for value in joint.axis],
        "origin": [float(value) for value in joint.origin],
        "range": [float(value) for value in joint.range],
        "confidence": float(joint.confidence),
        "source": joint.source,
    }


def from_json(fields: Mapping[str, Any]) -> Joint:
    """A joint from what `to_json` gave; raises KeyError, TypeError or ValueError where it is something else."""
    low, high = fields["range"]
    return make_joint(
        fields["type"],
        fields["axis"],
        fields["origin"],
        (float(low), float(high)),
        confidence=float(fields.get("confidence", 0.0)),
        source=str(fields.get("source", "")),
    )
