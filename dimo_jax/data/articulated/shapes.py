"""What made objects are put together from: boxes, bodies of revolution, materials; and the object of such pieces."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dimo_jax.data.cabinet import make_boxes, make_wood
from dimo_jax.geometry.joint import Joint, rotation_about
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.meshes.renderer import Material, Mesh

BODY, PART = "body", "part"
NUM_SIDES = 24  # of a circle
Point = Sequence[float] | np.ndarray  # [3]
Box = tuple[Point, Point]  # lowest and highest corner


class Piece(NamedTuple):
    """Some triangles of one material and node."""

    vertices: np.ndarray  # [P,3]
    triangles: np.ndarray  # [F,3]
    texcoords: np.ndarray  # [P,2]
    groups: np.ndarray  # [P] of vertices that share a normal
    material: str
    node: str


@dataclass(frozen=True)
class MadeObject:
    """An object in its rest state, and how its part moves."""

    category: str
    thing: ObjectMesh  # nodes BODY and PART; +Y up, front to +Z, metres
    joint: Joint  # its range begins at 0, the rest state
    sentence: str


def boxes(material: str, node: str, *found: Box) -> Piece:
    """Closed boxes."""
    return Piece(*make_boxes(found), material, node)


def lathe(
    material: str,
    node: str,
    profile: Sequence[tuple[float, float]],
    base: Point,
    axis: Point,
    *,
    num_sides: int = NUM_SIDES,
) -> Piece:
    """A closed body of revolution.

    Args:
      material, node: of it.
      profile: (radius, height) from the bottom's middle to the top's, both of radius 0.
      base: [3] where height 0 is on the axis.
      axis: [3] unit.
      num_sides: of its circles.
    """
    angles = np.linspace(0, 2 * np.pi, num_sides, endpoint=False)
    up = np.asarray(axis, np.float64)
    side = np.cross(up, [1.0, 0, 0] if abs(up[0]) < 0.9 else [0, 1.0, 0])
    side /= np.linalg.norm(side)
    circle = np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * np.cross(up, side)
    vertices, triangles, groups, first = [], [], [], 0
    for number, ((r0, h0), (r1, h1)) in enumerate(itertools.pairwise(profile)):
        vertices += [r0 * circle + h0 * up, r1 * circle + h1 * up]
        a, b = np.arange(num_sides), (np.arange(num_sides) + 1) % num_sides
        if r0 > 0:
            triangles.append(np.stack([a, b, b + num_sides], 1) + first)
        if r1 > 0:
            triangles.append(np.stack([a, b + num_sides, a + num_sides], 1) + first)
        first += 2 * num_sides
        flat = r0 == 0 or r1 == 0
        groups.append((np.zeros(2 * num_sides) if flat else np.tile(a, 2)) + number * num_sides)
    points = np.concatenate(vertices) + np.asarray(base, np.float64)
    return Piece(
        points,
        np.concatenate(triangles),
        np.zeros((len(points), 2)),
        np.concatenate(groups).astype(np.int64),
        material,
        node,
    )


def bend(piece: Piece, axis: Point, angle: float, about: Point) -> Piece:
    """A piece turned by `angle` (radians) around the line through `about` [3] along a unit `axis` [3]."""
    turn, center = rotation_about(np.asarray(axis, np.float64), angle), np.asarray(about, np.float64)
    return piece._replace(vertices=(piece.vertices - center) @ turn.T + center)


def make_object(
    category: str, pieces: Sequence[Piece], materials: dict[str, Material], joint: Joint, sentence: str
) -> MadeObject:
    """The object of pieces, whose materials are named."""
    names = list(materials)
    starts = np.cumsum([0] + [len(piece.vertices) for piece in pieces])
    groups = np.cumsum([0] + [int(piece.groups.max()) + 1 for piece in pieces])
    counts = [len(piece.triangles) for piece in pieces]
    vertices = np.concatenate([piece.vertices for piece in pieces])
    mesh = Mesh(
        triangles=np.concatenate([piece.triangles + start for piece, start in zip(pieces, starts)]).astype(np.int32),
        triangle_materials=np.repeat([names.index(piece.material) for piece in pieces], counts).astype(np.int32),
        materials=tuple(materials.values()),
        texcoords=np.concatenate([piece.texcoords for piece in pieces]),
        colors=np.ones((len(vertices), 4)),
        smooth_groups=np.concatenate([piece.groups + start for piece, start in zip(pieces, groups)]).astype(np.int32),
    )
    nodes = np.repeat([(BODY, PART).index(piece.node) for piece in pieces], counts).astype(np.int32)
    return MadeObject(
        category, ObjectMesh(vertices, mesh, nodes, (BODY, PART), (-1, -1), Path(category)), joint, sentence
    )


def paint(name: str, color: Point) -> Material:
    """A material of one colour, linear RGB."""
    return Material(np.array([*color, 1.0]), double_sided=False, name=name)


def draw_materials(rng: np.random.Generator, *, wood: bool) -> dict[str, Material]:
    """Materials `body`, `front`, `metal` and `dark`, at random: wooden at times where `wood`, else painted."""
    if wood and rng.random() < 0.5:
        tone, found = np.array([0.62, 0.45, 0.28]) * rng.uniform(0.85, 1.15) * rng.uniform(0.9, 1.1, 3), {}
        # What moves is told from the rest by its shade.
        for name, shade in (("body", 1.0), ("front", rng.choice([0.6, 1.45]))):
            color = np.clip(tone * shade, 0, 1)
            grain = make_wood(color.tolist(), seed=int(rng.integers(1 << 30)))
            found[name] = Material(np.ones(4), grain, double_sided=False, name=name)
    else:
        found = {name: paint(name, rng.uniform(0.08, 0.85, 3)) for name in ("body", "front")}
    grey = rng.uniform(0.25, 0.7)
    return {**found, "metal": paint("metal", [grey] * 3), "dark": paint("dark", rng.uniform(0.02, 0.1, 3))}


def open_case(node: str, size: Point, wall: float, *, low: float = 0.0, center: float = 0.0) -> Piece:
    """A case open to +Z: size [3] outside, its bottom at height `low`, its middle at x = `center` and z = 0."""
    x, height, z = size[0] / 2, size[1], size[2] / 2
    inner = x - wall
    walls = [
        ((-x, 0, -z), (-inner, height, z)),
        ((inner, 0, -z), (x, height, z)),
        ((-inner, 0, -z), (inner, height, -z + wall)),
        ((-inner, 0, -z + wall), (inner, wall, z)),
        ((-inner, height - wall, -z + wall), (inner, height, z)),
    ]
    piece = boxes("body", node, *walls)
    return piece._replace(vertices=piece.vertices + np.array([center, low, 0.0]))


def handle(rng: np.random.Generator, node: str, place: Point, *, length: float, upright: bool) -> Piece:
    """A handle in front of a surface that shows to +Z at `place` [3]: a bar of some length, or a knob."""
    x, y, z = place
    if rng.random() < 0.4:
        radius = rng.uniform(0.012, 0.025)
        profile = [(0, 0), (0.5 * radius, 0), (0.5 * radius, radius), (radius, 1.2 * radius), (radius, 1.8 * radius)]
        return lathe("metal", node, [*profile, (0, 1.8 * radius)], place, (0, 0, 1))
    thick, out = rng.uniform(0.008, 0.015), rng.uniform(0.025, 0.04)
    half = length / 2
    along, across = (0.0, half), (thick, 0.0)
    (dx, dy), (tx, ty) = (along, across) if upright else (along[::-1], across[::-1])
    bar = ((x - dx - tx, y - dy - ty, z + out - thick), (x + dx + tx, y + dy + ty, z + out))
    feet = []
    for side in (-1, 1):
        middle_x, middle_y = x + side * max(dx - thick, 0.0), y + side * max(dy - thick, 0.0)
        low = (middle_x - thick / 2, middle_y - thick / 2, z)
        feet.append((low, (middle_x + thick / 2, middle_y + thick / 2, z + out - thick)))
    return boxes("metal", node, bar, *feet)
