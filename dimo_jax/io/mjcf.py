"""MJCF (MuJoCo) of an articulated object.

Frames as in the URDF: the first body's is the object's, that of every other body stands at its joint. Links of one
object do not collide with each other: where two parts touch or run inside each other is what their joint and its
limits say, and convex pieces would only contradict it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import PurePath
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from dimo_jax.io.mesh_files import FOLDER, Surface
from dimo_jax.io.urdf import joint_name, numbers
from dimo_jax.meshes.articulation import Articulation, Physics, is_endless

_Element = ElementTree.Element
_add = ElementTree.SubElement
VISUAL, COLLISION = "visual", "collision"


def format_mjcf(
    articulation: Articulation,
    physics: Physics,
    surfaces: Sequence[Sequence[Surface]],
    pieces: Sequence[Sequence[str]],
    *,
    name: str,
    stand: np.ndarray,
) -> str:
    """The file's text; arguments as of `format_urdf`. A free base gets a floor under its lowest point."""
    root = _Element("mujoco", model=name)
    _add(root, "compiler", angle="radian", meshdir=FOLDER, texturedir=FOLDER, autolimits="true")
    _add(root, "option", gravity="0 0 -9.81", integrator="implicitfast")
    defaults = _add(root, "default")
    visual, collision = (_add(defaults, "default", {"class": each}) for each in (VISUAL, COLLISION))
    _add(visual, "geom", type="mesh", contype="0", conaffinity="0", group="2", mass="0")
    _add(collision, "geom", type="mesh", group="3", mass="0")
    _add_assets(root, surfaces, pieces)
    world = _add(root, "worldbody")
    if not physics.fixed_base:
        lowest = min(float((link.vertices @ stand.T)[:, 2].min()) for link in articulation.links)
        _add(world, "geom", name="floor", type="plane", size="0 0 0.1", pos=numbers([0, 0, lowest]))
    _add(world, "light", pos="0 0 3", dir="0 0 -1")
    bodies: list[_Element] = []
    for index, link in enumerate(articulation.links):
        parent = world if index == 0 else bodies[link.parent]
        bodies.append(_add(parent, "body", name=link.name, pos=numbers(articulation.offset_of(index))))
        if index == 0:
            bodies[0].set("quat", numbers(Rotation.from_matrix(stand).as_quat(scalar_first=True)))
            if not physics.fixed_base:
                _add(bodies[0], "freejoint")
        _fill_body(bodies[index], articulation, physics, index, surfaces[index], pieces[index])
    contact = _add(root, "contact")
    for first, second in combinations(articulation.links, 2):
        _add(contact, "exclude", body1=first.name, body2=second.name)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_assets(root: _Element, surfaces: Sequence[Sequence[Surface]], pieces: Sequence[Sequence[str]]) -> None:
    asset = _add(root, "asset")
    shown = [each for of_link in surfaces for each in of_link]
    for picture in sorted({each.texture for each in shown if each.texture}):
        _add(asset, "texture", name=PurePath(picture).stem, type="2d", file=picture)
    for each in shown:
        material = _add(asset, "material", name=each.material, rgba=numbers(each.rgba), specular="0.1")
        if each.texture:
            material.set("texture", PurePath(each.texture).stem)
        # Of a shell, because a surface that is only seen may enclose nothing, which a solid mesh must not.
        _add(asset, "mesh", name=PurePath(each.file).stem, file=each.file, inertia="shell")
    for file in (each for of_link in pieces for each in of_link):
        _add(asset, "mesh", name=PurePath(file).stem, file=file)


def _fill_body(
    body: _Element,
    articulation: Articulation,
    physics: Physics,
    index: int,
    surfaces: Sequence[Surface],
    pieces: Sequence[str],
) -> None:
    shift, mass = -articulation.frame_of(index), physics.bodies[index].mass
    if index:
        joint = articulation.joints[index - 1]
        element = _add(body, "joint", name=joint_name(articulation, index))
        element.set("type", "hinge" if joint.type == "revolute" else "slide")
        element.set("axis", numbers(joint.axis))
        if not is_endless(joint):
            element.set("range", numbers(joint.range))
            # Stiffer than by default, where light parts sink a degree into their limits under their own weight.
            element.set("solreflimit", "0.005 1")
            element.set("solimplimit", "0.99 0.999 0.001")
        element.set("damping", numbers([physics.damping[index - 1]]))
        element.set("frictionloss", numbers([physics.friction[index - 1]]))
    inertia = mass.inertia[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    _add(body, "inertial", pos=numbers(mass.center + shift), mass=numbers([mass.mass]), fullinertia=numbers(inertia))
    for surface in surfaces:
        mesh = {"class": VISUAL, "mesh": PurePath(surface.file).stem, "material": surface.material}
        _add(body, "geom", mesh | {"pos": numbers(shift)})
    for file in pieces:
        _add(body, "geom", {"class": COLLISION, "mesh": PurePath(file).stem, "pos": numbers(shift)})
