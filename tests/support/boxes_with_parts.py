"""A box with a lid on a hinge and a chest with a drawer, made of cuboids, for tests of joints."""

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE, make_joint
from dimo_jax.meshes.objects import ObjectMesh, join_objects
from dimo_jax.meshes.renderer import Material, Mesh

SIDES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])


def make_cuboid(low, high, *, color=(0.6, 0.6, 0.6), name="cuboid"):
    """A cuboid whose six sides have slightly different colours, so that every side can be told in a picture."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    vertices = (np.asarray(low) + corners * (np.asarray(high) - low))[SIDES].reshape(-1, 3)
    first = np.arange(6)[:, None] * 4
    triangles = (first + np.array([0, 1, 2, 0, 2, 3])).reshape(-1, 3).astype(np.int32)
    shades = np.repeat(np.linspace(0.4, 1.0, 6), 4)[:, None] * np.asarray(color)
    mesh = Mesh(
        triangles=triangles,
        triangle_materials=np.zeros(12, np.int32),
        materials=(Material(np.ones(4)),),
        texcoords=np.zeros((24, 2)),
        colors=np.concatenate([shades, np.ones((24, 1))], axis=1),
        smooth_groups=np.repeat(np.arange(6), 4).astype(np.int32),
    )
    return ObjectMesh(vertices, mesh, np.zeros(12, np.int32), (name,), (-1,))


def make_lidded_box():
    """(body, part, joint): a lid with a grip on a box, hinged along its back upper edge."""
    body = make_cuboid([-0.5, 0, -0.3], [0.5, 0.4, 0.3], color=(0.2, 0.4, 0.8))
    lid = make_cuboid([-0.5, 0.4, -0.3], [0.5, 0.45, 0.3], color=(0.9, 0.5, 0.2))
    grip = make_cuboid([-0.1, 0.45, 0.2], [0.2, 0.52, 0.27], color=(0.3, 0.9, 0.3))
    return body, join_objects([lid, grip]), make_joint(REVOLUTE, [-1, 0, 0], [0, 0.4, -0.3], (0.0, 1.4))


def make_chest():
    """(body, part, joint): a drawer with a knob in a chest."""
    body = [make_cuboid([-0.5, 0, -0.4], [0.5, 0.25, 0.4]), make_cuboid([-0.5, 0.55, -0.4], [0.5, 0.8, 0.4])]
    drawer = make_cuboid([-0.45, 0.27, -0.35], [0.45, 0.53, 0.41], color=(0.9, 0.5, 0.2))
    knob = make_cuboid([-0.05, 0.37, 0.41], [0.05, 0.43, 0.47], color=(0.2, 0.9, 0.3))
    return join_objects(body), join_objects([drawer, knob]), make_joint(PRISMATIC, [0, 0, 1], [0, 0.4, 0], (0.0, 0.5))
