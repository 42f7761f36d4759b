"""The embedded object of `--app=articulate`: a textured cabinet with a door, a knob on the door, and a drawer.

It is 0.6 m wide, 0.9 m high and 0.4 m deep, stands on the ground, and shows its front to +Z. `TRUE_JOINTS` says how its
parts move, so that whatever finds joints can be checked with nothing downloaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE, Joint, make_joint
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.meshes.renderer import Material, Mesh
from dimo_jax.meshes.textures import Texture, make_texture

NAME = "cabinet"
WIDTH, HEIGHT, DEPTH, WALL = 0.6, 0.9, 0.4, 0.02
GAP = 0.002  # around door and drawer
SPLIT = 0.62  # height of the board between door (below) and drawer
_FRONT = DEPTH / 2
TRUE_JOINTS: dict[str, Joint] = {
    # The hinge is the door's left edge, seen from the front; positive values open it.
    "door": make_joint(REVOLUTE, [0, -1, 0], [-WIDTH / 2, 0.3, _FRONT], (0.0, np.pi / 2)),
    "knob": make_joint(REVOLUTE, [0, 0, 1], [WIDTH / 2 - 0.06, 0.32, _FRONT + WALL + 0.02], (-np.pi / 2, np.pi / 2)),
    "drawer": make_joint(PRISMATIC, [0, 0, 1], [0, (SPLIT + HEIGHT) / 2, _FRONT], (0.0, 0.3)),
}
PARENTS = {"door": "body", "knob": "door", "drawer": "body"}
_Box = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]


def make_cabinet() -> ObjectMesh:
    """The cabinet with nodes `body`, `door` with `knob` below it, `drawer`, and materials `wood`, `front`, `metal`."""
    wood, front = make_wood((0.55, 0.36, 0.2), seed=1), make_wood((0.82, 0.72, 0.56), seed=2)
    materials = (
        Material(np.ones(4), wood, double_sided=False, name="wood"),
        Material(np.ones(4), front, double_sided=False, name="front"),
        Material(np.array([0.55, 0.56, 0.6, 1]), double_sided=False, name="metal"),
    )
    x, z = WIDTH / 2, DEPTH / 2
    inner = x - WALL
    body = [
        ((-x, 0, -z), (-inner, HEIGHT, z)),
        ((inner, 0, -z), (x, HEIGHT, z)),
        ((-inner, 0, -z), (inner, HEIGHT, -z + WALL)),
        *(((-inner, y, -z + WALL), (inner, y + WALL, z)) for y in (0.0, SPLIT - WALL / 2, HEIGHT - WALL)),
    ]
    door = [((-x, GAP, z + GAP), (x - GAP, SPLIT - GAP, z + WALL))]
    pieces = [
        (make_boxes(body), 0, "body"),
        (make_boxes(door), 1, "door"),
        (make_boxes(_drawer_boxes(inner, z)), 1, "drawer"),
        (_knob(), 2, "knob"),
        (make_boxes([((-0.07, 0.74, z + WALL), (0.07, 0.76, z + WALL + 0.025))]), 2, "drawer"),
    ]
    return _assemble(pieces, materials)


def _drawer_boxes(inner: float, z: float) -> list[_Box]:
    """Front, bottom, sides and back of the drawer."""
    left, right = -inner + 0.005, inner - 0.005
    low, high, back = SPLIT + 0.02, HEIGHT - 0.06, -z + 0.04
    board = 0.012
    return [
        ((-WIDTH / 2, SPLIT + GAP, z + GAP), (WIDTH / 2, HEIGHT - GAP, z + WALL)),
        ((left, low, back), (right, low + board, z + GAP)),
        ((left, low + board, back), (left + board, high, z + GAP)),
        ((right - board, low + board, back), (right, high, z + GAP)),
        ((left + board, low + board, back), (right - board, high, back + board)),
    ]


def make_boxes(boxes: Sequence[_Box]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices [24n,3], triangles [12n,3], texture coordinates [24n,2] and smooth groups [24n] of closed boxes."""
    vertices: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    texcoords: list[np.ndarray] = []
    for low, high in boxes:
        low_, size = np.asarray(low, np.float64), np.subtract(high, low)
        for axis in range(3):
            across = [other for other in range(3) if other != axis]
            long = across[int(np.argmax(size[across]))]  # the grain runs along the longer side
            other = across[0] if across[1] == long else across[1]
            for side in (0, 1):
                corners = np.zeros((4, 3))
                corners[:, axis] = side
                corners[[1, 2], long] = 1
                corners[[2, 3], other] = 1
                normal = np.cross(corners[1] - corners[0], corners[3] - corners[0])
                first = 4 * len(vertices)
                order = [(0, 1, 2), (0, 2, 3)] if (normal[axis] > 0) == (side == 1) else [(0, 2, 1), (0, 3, 2)]
                vertices.append(low_ + corners * size)
                triangles.append(np.array(order) + first)
                texcoords.append(np.stack([corners[:, long] * size[long], corners[:, other] * size[other]], 1) * 2)
    count = 4 * len(vertices)
    return np.concatenate(vertices), np.concatenate(triangles), np.concatenate(texcoords), np.arange(count) // 4


def _knob(num_sides: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A round knob with a flat grip across, so that its turning shows; closed."""
    base = np.array([*TRUE_JOINTS["knob"].origin[:2], _FRONT + WALL])
    angles = np.linspace(0, 2 * np.pi, num_sides, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    profile = [(0.0, 0.0), (0.012, 0.0), (0.012, 0.015), (0.025, 0.02), (0.025, 0.03), (0.0, 0.03)]
    vertices: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    groups: list[np.ndarray] = []
    for number, ((r0, z0), (r1, z1)) in enumerate(itertools.pairwise(profile)):
        first = len(vertices) * 2 * num_sides
        rings = [np.concatenate([r * circle, np.full((num_sides, 1), z)], axis=1) for r, z in ((r0, z0), (r1, z1))]
        vertices.append(np.concatenate(rings))
        a, b = np.arange(num_sides), (np.arange(num_sides) + 1) % num_sides
        if r0 > 0:
            triangles.append(np.stack([a, b, b + num_sides], 1) + first)
        if r1 > 0:
            triangles.append(np.stack([a, b + num_sides, a + num_sides], 1) + first)
        elif r0 > 0:
            triangles[-1] = np.stack([a, b, b + num_sides], 1) + first
        flat = r0 == 0 or r1 == 0
        groups.append(np.full(2 * num_sides, 0) if flat else np.tile(np.arange(num_sides), 2))
        groups[-1] = groups[-1] + number * num_sides
    points = np.concatenate(vertices) + base
    grip = make_boxes([((base + [-0.02, -0.004, 0.03]).tolist(), (base + [0.02, 0.004, 0.04]).tolist())])
    faces = np.concatenate([*triangles, grip[1] + len(points)])
    smooth = np.concatenate([*groups, grip[3] + num_sides * len(profile)])
    return np.concatenate([points, grip[0]]), faces, np.zeros((len(points) + len(grip[0]), 2)), smooth


def _assemble(pieces: Sequence[tuple[tuple[np.ndarray, ...], int, str]], materials: tuple[Material, ...]) -> ObjectMesh:
    names = ("body", "door", "knob", "drawer")
    starts = np.cumsum([0] + [len(arrays[0]) for arrays, _, _ in pieces])
    counts = [len(arrays[1]) for arrays, _, _ in pieces]
    groups = np.cumsum([0] + [int(arrays[3].max()) + 1 for arrays, _, _ in pieces])
    vertices = np.concatenate([arrays[0] for arrays, _, _ in pieces])
    mesh = Mesh(
        triangles=np.concatenate([arrays[1] + s for (arrays, _, _), s in zip(pieces, starts)]).astype(np.int32),
        triangle_materials=np.repeat([material for _, material, _ in pieces], counts).astype(np.int32),
        materials=materials,
        texcoords=np.concatenate([arrays[2] for arrays, _, _ in pieces]),
        colors=np.ones((len(vertices), 4)),
        smooth_groups=np.concatenate([arrays[3] + g for (arrays, _, _), g in zip(pieces, groups)]).astype(np.int32),
    )
    nodes = np.repeat([names.index(node) for _, _, node in pieces], counts).astype(np.int32)
    return ObjectMesh(vertices, mesh, nodes, names, (-1, -1, names.index("door"), -1), Path(NAME))


def make_wood(color: Sequence[float], *, seed: int, size: int = 128) -> Texture:
    """A tileable picture of grain along u."""
    generator = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
    rings = np.zeros((size, size))
    for frequency in (3, 7, 13, 26):
        phase, sway = generator.uniform(0, 2 * np.pi, 2)
        wave = 0.25 * np.sin(2 * np.pi * u + sway)
        rings += np.sin(2 * np.pi * frequency * v + phase + wave * frequency / 3) / np.sqrt(frequency)
    shade = 1 + 0.09 * rings + generator.normal(0, 0.02, (size, size))
    image = np.clip(np.asarray(color) * shade[..., None] * 255, 0, 255)
    alpha = np.full((size, size, 1), 255)
    return make_texture(np.concatenate([image, alpha], axis=-1).astype(np.uint8), mipmaps=True)
