"""URDF of an articulated object.

Meshes stay in the coordinates of the object at rest. The frame of the first link is the object's, that of every other
link stands at its joint and is not turned against the first at rest. A fixed base hangs on a massless link `world`,
which turns it so that its up is the simulators' +Z. URDF has no free base that all simulators know: there the first
link is the root, and what loads the file decides whether it is held; so the object has to be turned beforehand.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from dimo_jax.geometry.joint import Joint
from dimo_jax.io.mesh_files import FOLDER, Surface
from dimo_jax.meshes.articulation import Articulation, Body, Link, Physics, is_endless

WORLD = "world"
FLAT = 1e-14  # cubic metres; MuJoCo asks for 1e-15
EFFORT, VELOCITY = 1000.0, 10.0  # limits that URDF demands: N m or N; rad/s or m/s


def format_urdf(
    articulation: Articulation,
    physics: Physics,
    surfaces: Sequence[Sequence[Surface]],
    pieces: Sequence[Sequence[str]],
    *,
    name: str,
    stand: np.ndarray,
) -> str:
    """The file's text.

    Args:
      articulation: L links.
      physics: of them.
      surfaces: of every link, what was written (`MeshFolder.write_link`).
      pieces: of every link, the files of its convex pieces.
      name: of the object.
      stand: [3,3] rotation of a fixed base, from the object's frame to a world with +Z up (`stand_up`).
    """
    robot = ElementTree.Element("robot", name=name)
    # MuJoCo reads URDF too, and asks here what it shall do with it; others pass over an element that they do not know.
    mujoco = ElementTree.SubElement(robot, "mujoco")
    # It refuses the whole file for a flat surface, which URDF cannot call a shell; then only its own file has looks.
    flat = any(_is_flat(link, each.index) for link, shown in zip(articulation.links, surfaces) for each in shown)
    options = {"discardvisual": "true" if flat else "false", "fusestatic": "false"}
    ElementTree.SubElement(mujoco, "compiler", {"meshdir": ".", "strippath": "false"} | options)
    # A file of URDF holds the object alone, and cannot say that its links shall not collide with each other.
    ElementTree.SubElement(ElementTree.SubElement(mujoco, "option"), "flag", contact="disable")
    for surface in (each for of_link in surfaces for each in of_link):
        material = ElementTree.SubElement(robot, "material", name=surface.material)
        ElementTree.SubElement(material, "color", rgba=numbers(surface.rgba))
        if surface.texture:
            ElementTree.SubElement(material, "texture", filename=f"{FOLDER}/{surface.texture}")
    for index, link in enumerate(articulation.links):
        shift = -articulation.frame_of(index)
        _add_link(robot, link.name, physics.bodies[index], shift, surfaces[index], pieces[index])
    if physics.fixed_base:
        ElementTree.SubElement(robot, "link", name=WORLD)
        base = ElementTree.SubElement(robot, "joint", name=f"{WORLD}_joint", type="fixed")
        _add_origin(base, np.zeros(3), turn=stand)
        ElementTree.SubElement(base, "parent", link=WORLD)
        ElementTree.SubElement(base, "child", link=articulation.links[0].name)
    for index, (joint, damping, friction) in enumerate(zip(articulation.joints, physics.damping, physics.friction), 1):
        _add_joint(robot, articulation, index, joint, damping, friction)
    ElementTree.indent(robot)
    return '<?xml version="1.0"?>\n' + ElementTree.tostring(robot, encoding="unicode") + "\n"


def numbers(values: Sequence[float] | np.ndarray) -> str:
    """Numbers of an attribute, with the digits that a float32 has, and some."""
    return " ".join(f"{float(value) + 0.0:.9g}" for value in values)


def joint_name(articulation: Articulation, index: int) -> str:
    """The name that files give the joint of link `index`."""
    return f"{articulation.links[index].name}_joint"


def _is_flat(link: Link, material: int) -> bool:
    """Whether what a link shows in a material has no volume around its middle, even with the digits of a float32."""
    corners = link.vertices.astype(np.float32)[link.mesh.triangles[link.mesh.triangle_materials == material]]
    local = corners.astype(np.float64) - corners.mean((0, 1), dtype=np.float64)
    return float(np.abs(np.linalg.det(local)).sum()) / 6 < FLAT


def _add_origin(element: ElementTree.Element, place: np.ndarray, *, turn: np.ndarray | None = None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a quarter about y several angles are right, and any will do
        angles = np.zeros(3) if turn is None else Rotation.from_matrix(turn).as_euler("xyz")
    ElementTree.SubElement(element, "origin", xyz=numbers(place), rpy=numbers(angles))


def _add_link(
    robot: ElementTree.Element,
    name: str,
    body: Body,
    shift: np.ndarray,
    surfaces: Sequence[Surface],
    pieces: Sequence[str],
) -> None:
    link = ElementTree.SubElement(robot, "link", name=name)
    inertial = ElementTree.SubElement(link, "inertial")
    _add_origin(inertial, body.mass.center + shift)
    ElementTree.SubElement(inertial, "mass", value=numbers([body.mass.mass]))
    inertia = body.mass.inertia
    axes = {"ixx": (0, 0), "ixy": (0, 1), "ixz": (0, 2), "iyy": (1, 1), "iyz": (1, 2), "izz": (2, 2)}
    ElementTree.SubElement(inertial, "inertia", {key: numbers([inertia[place]]) for key, place in axes.items()})
    for surface in surfaces:
        visual = ElementTree.SubElement(link, "visual")
        _add_origin(visual, shift)
        _add_mesh(visual, surface.file)
        ElementTree.SubElement(visual, "material", name=surface.material)
    for file in pieces:
        collision = ElementTree.SubElement(link, "collision")
        _add_origin(collision, shift)
        _add_mesh(collision, file)


def _add_mesh(element: ElementTree.Element, file: str) -> None:
    ElementTree.SubElement(ElementTree.SubElement(element, "geometry"), "mesh", filename=f"{FOLDER}/{file}")


def _add_joint(
    robot: ElementTree.Element, articulation: Articulation, index: int, joint: Joint, damping: float, friction: float
) -> None:
    link = articulation.links[index]
    endless = is_endless(joint)
    element = ElementTree.SubElement(
        robot, "joint", name=joint_name(articulation, index), type="continuous" if endless else joint.type
    )
    _add_origin(element, articulation.offset_of(index))
    ElementTree.SubElement(element, "parent", link=articulation.links[link.parent].name)
    ElementTree.SubElement(element, "child", link=link.name)
    ElementTree.SubElement(element, "axis", xyz=numbers(joint.axis))
    ends = {} if endless else {"lower": numbers(joint.range[:1]), "upper": numbers(joint.range[1:])}
    ElementTree.SubElement(element, "limit", ends | {"effort": numbers([EFFORT]), "velocity": numbers([VELOCITY])})
    ElementTree.SubElement(element, "dynamics", damping=numbers([damping]), friction=numbers([friction]))
