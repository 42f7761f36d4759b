"""An object in parts that move: a tree of links, each but the first hung on its parent by one joint.

Everything stands in one frame, that of the object at rest, so that nothing has to be transformed to be compared; the
files of simulators, which count from link to link, are made of this by `dimo_jax.io`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dimo_jax.meshes.renderer import Mesh

REVOLUTE, PRISMATIC = "revolute", "prismatic"


@dataclass(frozen=True)
class Hinge:
    """How a link moves against its parent: about a line (revolute) or along a direction (prismatic)."""

    type: str  # REVOLUTE or PRISMATIC
    axis: np.ndarray  # [3] unit, in the object's frame at rest; positive values turn right-handed about it
    origin: np.ndarray  # [3] a point of the line; of a prismatic joint, where the link's frame stands
    range: tuple[float, float]  # least and largest value: radians, or the object's unit; infinite: without an end


@dataclass(frozen=True)
class Link:
    """A rigid part with its surface. The first of an object has no parent (-1) and no joint."""

    name: str  # of letters, digits, "_", "." and "-" alone: it names files and elements of XML
    vertices: np.ndarray  # [P,3] at rest
    mesh: Mesh  # triangles and looks of those vertices
    parent: int = -1
    joint: Hinge | None = None


@dataclass(frozen=True)
class Articulation:
    """Links in an order in which parents come before their children."""

    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        for index, link in enumerate(self.links):
            if (link.joint is None) != (index == 0) or not (0 <= link.parent < index or (index == 0 > link.parent)):
                raise ValueError(f"link {index} ({link.name}) has parent {link.parent}, expected parents first")
        if len({link.name.lower() for link in self.links}) < len(self.links):
            raise ValueError(f"links are named {[link.name for link in self.links]}, expected different names")

    def frame_of(self, index: int) -> np.ndarray:
        """Where the frame of a link stands at rest [3]: at its joint; the first link's is the object's own."""
        joint = self.links[index].joint
        return np.zeros(3) if joint is None else np.asarray(joint.origin, np.float64)

    def offset_of(self, index: int) -> np.ndarray:
        """From the frame of a link's parent to its own, at rest [3]."""
        parent = self.links[index].parent
        return self.frame_of(index) - (self.frame_of(parent) if parent >= 0 else 0.0)


def has_ends(joint: Hinge) -> bool:
    """Whether both ends of its range are finite."""
    return bool(np.isfinite(joint.range).all())


def turn_matrix(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation [3,3] by `angle` radians about a unit axis [3] (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float64)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def move_by(joint: Hinge, value: float) -> np.ndarray:
    """The rigid motion [4,4] of a link when its joint stands at `value`, its parent at rest."""
    matrix = np.eye(4)
    axis, origin = np.asarray(joint.axis, np.float64), np.asarray(joint.origin, np.float64)
    if joint.type == PRISMATIC:
        matrix[:3, 3] = value * axis
    else:
        matrix[:3, :3] = turn_matrix(axis, value)
        matrix[:3, 3] = origin - matrix[:3, :3] @ origin
    return matrix


def pose_links(articulation: Articulation, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Motions of all links from rest -> [L,4,4].

    Args:
      articulation: L links.
      values: L-1 joint values, of the links after the first.
    """
    matrices = [np.eye(4)]
    for link, value in zip(articulation.links[1:], values, strict=True):
        assert link.joint is not None  # all but the first have one
        matrices.append(matrices[link.parent] @ move_by(link.joint, float(value)))
    return np.stack(matrices)


def travel(joint: Hinge) -> tuple[float, float]:
    """The range that is shown and simulated: its own, or one turn, or nothing, where that has no end."""
    low, high = joint.range
    whole = 2 * np.pi if joint.type == REVOLUTE else 0.0
    if np.isfinite(low) and np.isfinite(high):
        return float(low), float(high)
    return (float(low), float(low + whole)) if np.isfinite(low) else (0.0, float(high if np.isfinite(high) else whole))
