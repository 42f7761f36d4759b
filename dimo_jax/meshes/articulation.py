"""An object in parts that move: a tree of links, each but the first hung on its parent by one joint.

Everything stands in one frame, that of the object at rest, so that nothing has to be transformed to be compared; the
files of simulators, which count from link to link, are made of this by `dimo_jax.io`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.geometry.joint import REVOLUTE, Joint, move_joint, rotation_about, transform
from dimo_jax.meshes.convex import Piece, find_pieces
from dimo_jax.meshes.renderer import Mesh
from dimo_jax.meshes.solids import Mass, measure_mass

BOTH_SIDES = 1e-3  # radians: a revolute joint that lacks less of a whole turn has no ends


@dataclass(frozen=True)
class Link:
    """A rigid part with its surface. The first of an object has no parent (-1) and no joint."""

    name: str  # of letters, digits, "_", "." and "-" alone: it names files and elements of XML
    vertices: np.ndarray  # [P,3] at rest, metres
    mesh: Mesh  # triangles and looks of those vertices
    parent: int = -1
    joint: Joint | None = None


@dataclass(frozen=True)
class Articulation:
    """Links in an order in which parents come before their children."""

    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        for index, link in enumerate(self.links):
            first = index == 0
            if first != (link.joint is None) or not (link.parent == -1 if first else 0 <= link.parent < index):
                raise ValueError(f"link {index} ({link.name}) has parent {link.parent}, expected parents first")
        if len({link.name.casefold() for link in self.links}) < len(self.links):
            raise ValueError(f"links are named {[link.name for link in self.links]}, expected different names")

    @property
    def joints(self) -> tuple[Joint, ...]:
        """Those of all links but the first."""
        return tuple(link.joint for link in self.links if link.joint is not None)

    def frame_of(self, index: int) -> np.ndarray:
        """Where the frame of a link stands at rest [3]: at its joint; the first link's is the object's own."""
        joint = self.links[index].joint
        return np.zeros(3) if joint is None else np.asarray(joint.origin, np.float64)

    def offset_of(self, index: int) -> np.ndarray:
        """From the frame of a link's parent to its own, at rest [3]."""
        parent = self.links[index].parent
        return self.frame_of(index) - (self.frame_of(parent) if parent >= 0 else 0.0)


@dataclass(frozen=True)
class Body:
    """What physics needs of a link."""

    pieces: tuple[Piece, ...]  # convex, at rest, for collisions
    mass: Mass


@dataclass(frozen=True)
class Physics:
    """How the object behaves in a simulator."""

    bodies: tuple[Body, ...]  # of every link
    damping: tuple[float, ...]  # of every joint: N m s / rad, or N s / m
    friction: tuple[float, ...]  # of every joint, dry: N m, or N
    fixed_base: bool = True


def is_endless(joint: Joint) -> bool:
    """Whether it turns all the way round, so that simulators shall not stop it."""
    return joint.type == REVOLUTE and joint.span >= 2 * np.pi - BOTH_SIDES


def pose_links(articulation: Articulation, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Motions of all links from rest -> [L,4,4].

    Args:
      articulation: L links.
      values: L-1 joint values, of the links after the first.
    """
    matrices = [np.eye(4)]
    for link, value in zip(articulation.links[1:], values, strict=True):
        assert link.joint is not None  # all but the first have one
        matrices.append(matrices[link.parent] @ transform(link.joint, float(value)))
    return np.stack(matrices)


def stand_up(up: np.ndarray) -> np.ndarray:
    """The rotation [3,3] by the least angle that brings the direction `up` [3] of an object to the +Z of simulators.

    Opposite directions turn about x.
    """
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    axis = np.cross(up, [0.0, 0, 1])
    sine, cosine = float(np.linalg.norm(axis)), float(up[2])
    if sine < 1e-12:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1, -1])
    return rotation_about(axis / sine, float(np.arctan2(sine, cosine)))


def turn_articulation(articulation: Articulation, rotation: np.ndarray) -> Articulation:
    """The same object turned by a rotation [3,3] about its frame's origin."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    return Articulation(
        tuple(
            replace(
                link,
                vertices=link.vertices @ rotation.T,
                joint=None if link.joint is None else move_joint(link.joint, matrix),
            )
            for link in articulation.links
        )
    )


def turn_physics(physics: Physics, rotation: np.ndarray) -> Physics:
    """The same of an object turned by a rotation [3,3] about its frame's origin."""
    bodies = []
    for body in physics.bodies:
        mass = replace(body.mass, center=rotation @ body.mass.center, inertia=rotation @ body.mass.inertia @ rotation.T)
        bodies.append(Body(tuple((vertices @ rotation.T, faces) for vertices, faces in body.pieces), mass))
    return replace(physics, bodies=tuple(bodies))


def add_physics(
    articulation: Articulation,
    *,
    density: float,
    damping: float | None,
    friction: float,
    fixed_base: bool,
    hull_only: bool = False,
) -> Physics:
    """Masses, convex pieces and losses of an object.

    Args:
      articulation: in metres.
      density: kg per cubic metre.
      damping: of every joint, N m s / rad or N s / m; None: as much as brings a part that was pushed to rest in half
        a second or so, which is its inertia about its axis (or its mass) over half a second.
      friction: dry friction of every joint, N m or N.
      fixed_base: whether the first link is held.
      hull_only: one convex hull a link instead of pieces.
    """
    bodies = []
    for link in articulation.links:
        pieces = find_pieces(link.vertices, link.mesh.triangles, hull_only=hull_only)
        bodies.append(Body(tuple(pieces), measure_mass(link.vertices, link.mesh.triangles, pieces, density=density)))
    losses = [
        2 * _inertia_of(joint, bodies[index].mass) if damping is None else damping
        for index, joint in enumerate(articulation.joints, 1)
    ]
    return Physics(tuple(bodies), tuple(losses), (friction,) * len(losses), fixed_base)


def _inertia_of(joint: Joint, mass: Mass) -> float:
    return mass.about(joint.origin, joint.axis) if joint.type == REVOLUTE else mass.mass
