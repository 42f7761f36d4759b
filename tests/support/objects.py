"""Static objects made of boxes and cylinders, for tests."""

from __future__ import annotations

import numpy as np

from dimo_jax.meshes.objects import ObjectMesh, join_objects
from dimo_jax.meshes.renderer import Material, Mesh

_QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def make_box(low, high, name="box", color=(1, 1, 1, 1)) -> ObjectMesh:
    """An axis-aligned box, closed, normals outwards."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    corners = np.array(
        [[(low, high)[x][0], (low, high)[y][1], (low, high)[z][2]] for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    )
    triangles = [each for a, b, c, d in _QUADS for each in ((a, b, c), (a, c, d))]
    return make_object(corners, triangles, name, color)


def make_cylinder(start, end, radius, name="cylinder", sides=24) -> ObjectMesh:
    """A closed cylinder from `start` to `end`."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    axis = (end - start) / np.linalg.norm(end - start)
    first = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    turn = 2 * np.pi * np.arange(sides) / sides
    ring = radius * (np.cos(turn)[:, None] * first + np.sin(turn)[:, None] * second)
    places = np.concatenate([start + ring, end + ring, [start, end]])
    triangles = []
    for i in range(sides):
        j = (i + 1) % sides
        triangles += [
            (i, j, sides + j),
            (i, sides + j, sides + i),
            (j, i, 2 * sides),
            (sides + i, sides + j, 2 * sides + 1),
        ]
    return make_object(places, triangles, name)


def make_object(places, triangles, name="thing", color=(1, 1, 1, 1)) -> ObjectMesh:
    """One node with one material."""
    triangles = np.asarray(triangles, np.int32)
    mesh = Mesh(
        triangles=triangles,
        triangle_materials=np.zeros(len(triangles), np.int32),
        materials=(Material(np.array(color, float), name=f"{name} paint"),),
        texcoords=np.zeros((len(places), 2)),
        colors=np.ones((len(places), 4)),
        smooth_groups=np.arange(len(places), dtype=np.int32),
    )
    return ObjectMesh(np.asarray(places, float), mesh, np.zeros(len(triangles), np.int32), (name,), (-1,))


def make_cabinet() -> ObjectMesh:
    """An open box of plates, front at +z, size 0.6 x 0.8 x 0.5; nodes: five plates."""
    plates = [
        make_box((-0.3, -0.4, -0.25), (-0.28, 0.4, 0.25), "left"),
        make_box((0.28, -0.4, -0.25), (0.3, 0.4, 0.25), "right"),
        make_box((-0.28, -0.4, -0.25), (0.28, -0.38, 0.25), "bottom"),
        make_box((-0.28, 0.38, -0.25), (0.28, 0.4, 0.25), "top"),
        make_box((-0.28, -0.38, -0.25), (0.28, 0.38, -0.23), "back"),
    ]
    return join_objects(plates)


def make_door() -> ObjectMesh:
    """A door in front of the cabinet, hinge at the left (-x), handle at the right."""
    panel = make_box((-0.3, -0.4, 0.252), (0.3, 0.4, 0.272), "door")
    handle = make_box((0.24, -0.1, 0.272), (0.26, 0.1, 0.31), "handle")
    return join_objects([panel, handle])


def make_drawer() -> ObjectMesh:
    """A drawer inside the cabinet that comes out along +z, with a handle."""
    plates = [
        make_box((-0.27, -0.37, -0.22), (0.27, -0.36, 0.25), "floor"),
        make_box((-0.27, -0.36, -0.22), (-0.26, -0.1, 0.25), "side"),
        make_box((0.26, -0.36, -0.22), (0.27, -0.1, 0.25), "side"),
        make_box((-0.3, -0.4, 0.252), (0.3, -0.1, 0.272), "front"),
        make_box((-0.1, -0.26, 0.272), (0.1, -0.24, 0.31), "handle"),
    ]
    return join_objects(plates)
