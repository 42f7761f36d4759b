"""The picture of an articulated object: at rest, with the axes of its joints, and moved to their limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dimo_jax.cameras.framing import border_planes, fit_framing, support
from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Camera
from dimo_jax.geometry.joint import REVOLUTE, Joint, rotation_about
from dimo_jax.io.images import grid
from dimo_jax.meshes.articulation import Articulation, pose_links
from dimo_jax.meshes.renderer import Material, Mesh, render_mesh

COLORS = ((214, 39, 40), (31, 119, 180), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207))
GHOST = 0.3  # alpha of the object behind its axes
_RADIUS, _FOV_DEG, _MARGIN = 4.0, 26.0, 0.06
_PAPER = 246


def draw_articulation(
    articulation: Articulation, *, up: np.ndarray | None = None, size: int = 384, samples: int = 2
) -> np.ndarray:
    """Three pictures in a row: rest; the axes, seen through the object; every joint at the limit further from rest.

    An arrow along the axis points to where positive values slide, or is what they turn about, right-handed, as the
    arc around it shows.

    Args:
      articulation: the object.
      up: [3] what is up in it; +Y where it is not known.
      size: side of each picture in pixels.
      samples: samples a pixel along each side.

    Returns:
      uint8 [H,W,3].
    """
    turn = upright(up)
    rest = [link.vertices @ turn.T for link in articulation.links]
    values = [max(joint.range, key=abs) for joint in articulation.joints]
    motions = pose_links(articulation, values)
    moved = [
        (link.vertices @ motion[:3, :3].T + motion[:3, 3]) @ turn.T for link, motion in zip(articulation.links, motions)
    ]
    camera, place = _choose_view([*rest, *moved], rest, size=size)
    meshes = [link.mesh for link in articulation.links]
    diagonal = float(np.linalg.norm(np.ptp(np.concatenate(rest), axis=0)))
    arrows = [
        _draw_joint(joint, link.vertices, diagonal, COLORS[index % len(COLORS)])
        for index, (joint, link) in enumerate(zip(articulation.joints, articulation.links[1:]))
    ]
    pictures = [
        _render(rest, meshes, camera, place, samples),
        _render(
            [*rest, *(vertices @ turn.T for vertices, _ in arrows)],
            [*(_fade(mesh) for mesh in meshes), *(mesh for _, mesh in arrows)],
            camera,
            place,
            samples,
        ),
        _render(moved, meshes, camera, place, samples),
    ]
    names = [f"{link.name}: {_describe(link.joint)}" for link in articulation.links[1:] if link.joint is not None]
    labels = ["at rest", ", ".join(names), "moved"]
    return grid(np.stack(pictures)[None], column_labels=labels, padding=8)


def upright(up: np.ndarray | None) -> np.ndarray:
    """The rotation [3,3] that brings `up` to +Y."""
    up = np.array([0.0, 1, 0]) if up is None else np.asarray(up, np.float64) / np.linalg.norm(up)
    axis = np.cross(up, [0.0, 1, 0])
    sine = float(np.linalg.norm(axis))
    if sine < 1e-12:
        return np.eye(3) if up[1] > 0 else np.diag([1.0, -1, -1])
    return rotation_about(axis / sine, float(np.arctan2(sine, up[1])))


def _describe(joint: Joint) -> str:
    if joint.type == REVOLUTE:
        low, high = np.rad2deg(joint.range)
        return f"turns {low:.0f}° to {high:.0f}°"
    return f"slides {joint.range[0]:.3g} to {joint.range[1]:.3g}"


def _choose_view(shown: list[np.ndarray], rest: list[np.ndarray], *, size: int) -> tuple[Camera, Any]:
    """A camera somewhat from above on the side of the parts that move, and how points are placed before it."""
    body, parts = rest[0], np.concatenate(rest[1:] or rest)
    towards = (parts.min(0) + parts.max(0) - body.min(0) - body.max(0)) / 2
    aside = float(np.hypot(towards[0], towards[2]))
    azimuth = np.rad2deg(np.arctan2(towards[0], towards[2])) if aside > 1e-3 * float(np.ptp(body)) else 0.0
    camera = orbit([azimuth + 32], 22.0, radius=_RADIUS, fov_deg=_FOV_DEG, height=size, width=size)
    normals, offsets = border_planes(camera, margin=_MARGIN)
    points = np.concatenate(shown)
    framing = fit_framing(support(points, normals), normals, offsets, (points.min(0) + points.max(0)) / 2)
    one = replace(camera, world_to_camera=camera.world_to_camera[0], focal=camera.focal[0], center=camera.center[0])
    return one, framing


def _render(vertices: list[np.ndarray], meshes: list[Mesh], camera: Camera, place: Any, samples: int) -> np.ndarray:
    """All meshes in one picture over paper [H,W,3] uint8."""
    image = render_mesh(place.apply(np.concatenate(vertices)), _merge(meshes), camera, samples=samples)
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.rint(image[..., :3] * alpha + _PAPER * (1 - alpha)).astype(np.uint8)


def _merge(meshes: list[Mesh]) -> Mesh:
    """One mesh of several, for vertices in the same order."""
    starts = np.cumsum([0] + [len(mesh.colors) for mesh in meshes])
    materials = np.cumsum([0] + [len(mesh.materials) for mesh in meshes])
    groups = np.cumsum([0] + [int(mesh.smooth_groups.max(initial=-1)) + 1 for mesh in meshes])
    emissive = [mesh.texcoords if mesh.emissive_texcoords is None else mesh.emissive_texcoords for mesh in meshes]
    return Mesh(
        triangles=np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, starts)]).astype(np.int32),
        triangle_materials=np.concatenate([mesh.triangle_materials + first for mesh, first in zip(meshes, materials)]),
        materials=tuple(material for mesh in meshes for material in mesh.materials),
        texcoords=np.concatenate([mesh.texcoords for mesh in meshes]),
        colors=np.concatenate([mesh.colors for mesh in meshes]),
        smooth_groups=np.concatenate([mesh.smooth_groups + first for mesh, first in zip(meshes, groups)]),
        emissive_texcoords=np.concatenate(emissive),
    )


def _fade(mesh: Mesh) -> Mesh:
    """The same, seen through."""
    faded = tuple(
        replace(material, base_color=np.asarray(material.base_color) * [1, 1, 1, GHOST], blend=True, cutoff=0.0)
        for material in mesh.materials
    )
    return replace(mesh, materials=faded)


def _draw_joint(
    joint: Joint, vertices: np.ndarray, diagonal: float, color: tuple[int, int, int]
) -> tuple[np.ndarray, Mesh]:
    """An arrow along the axis, as long as the part and more, and for a turn an arc with an arrow's head."""
    along = (vertices - joint.origin) @ joint.axis
    width = 0.008 * diagonal
    if joint.type == REVOLUTE:
        start, end = along.min() - 0.08 * diagonal, along.max() + 0.08 * diagonal
    else:
        start, end = along.max(), along.max() + max(0.15 * diagonal, joint.range[1])
    points = joint.origin + np.array([start, end])[:, None] * joint.axis
    if joint.type != REVOLUTE:
        # A slide has no place of its own, so the arrow starts at the part's middle.
        middle = vertices.mean(axis=0) - joint.origin
        points = points + (middle - joint.axis * (middle @ joint.axis))
    pieces = [_tube(points, width), _head(points[1], joint.axis, width)]
    if joint.type == REVOLUTE:
        side = np.cross(joint.axis, np.eye(3)[np.abs(joint.axis).argmin()])
        side *= 0.09 * diagonal / np.linalg.norm(side)
        angles = np.linspace(0, 1.5 * np.pi, 28)
        arc = points[1] - 0.04 * diagonal * joint.axis + rotation_about(joint.axis, angles) @ side
        pieces += [_tube(arc, width * 0.8), _head(arc[-1], arc[-1] - arc[-2], width * 0.8)]
    count = np.cumsum([0] + [len(places) for places, _ in pieces])
    triangles = np.concatenate([faces + start for (_, faces), start in zip(pieces, count)]).astype(np.int32)
    total = int(count[-1])
    linear = (np.asarray(color) / 255) ** 2.2
    mesh = Mesh(
        triangles=triangles,
        triangle_materials=np.zeros(len(triangles), np.int32),
        materials=(Material(np.array([*linear, 1.0]), unlit=True),),
        texcoords=np.zeros((total, 2)),
        colors=np.ones((total, 4)),
        smooth_groups=np.arange(total, dtype=np.int32),
    )
    return np.concatenate([places for places, _ in pieces]), mesh


def _frame(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across a direction and each other."""
    direction = direction / np.linalg.norm(direction)
    first = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
    first /= np.linalg.norm(first)
    return first, np.cross(direction, first)


def _tube(points: np.ndarray, radius: float, sides: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """A tube along points [n,3]."""
    angles = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    steps = np.gradient(points, axis=0)
    first, second = _frame(steps[0])
    rings = []
    for point, step in zip(points, steps):
        step = step / np.linalg.norm(step)
        first = first - step * (first @ step)  # carried along, so that rings do not twist
        first /= np.linalg.norm(first)
        second = np.cross(step, first)
        rings.append(point + radius * (np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second))
    a, b = np.arange(sides), (np.arange(sides) + 1) % sides
    quads = np.concatenate([np.stack([a, b, b + sides], 1), np.stack([a, b + sides, a + sides], 1)])
    faces = np.concatenate([quads + sides * k for k in range(len(points) - 1)])
    return np.concatenate(rings), faces


def _head(tip: np.ndarray, direction: np.ndarray, width: float, sides: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """A cone that goes on from `tip`."""
    direction = direction / np.linalg.norm(direction)
    first, second = _frame(direction)
    angles = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = tip + 2.6 * width * (np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second)
    points = np.concatenate([ring, [tip + 7 * width * direction, tip]])
    a, b = np.arange(sides), (np.arange(sides) + 1) % sides
    around = np.full(sides, sides)
    return points, np.concatenate([np.stack([a, b, around], 1), np.stack([b, a, around + 1], 1)])
