"""A static object: one textured surface whose triangles know the node that they came from, and how to cut it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dimo_jax.meshes.renderer import Mesh


@dataclass(frozen=True)
class ObjectMesh:
    """A mesh at rest, in one frame, ready for `render_mesh(object.vertices, object.mesh, camera)`.

    Materials (with names, colours, textures), texture coordinates and vertex colours are those of `mesh`.
    """

    vertices: np.ndarray  # [P,3] float64, units of the file
    mesh: Mesh  # triangles [F,3] and how they look
    triangle_nodes: np.ndarray  # [F] int32, index into `node_names`
    node_names: tuple[str, ...]  # as in the file; one name may stand there twice
    node_parents: tuple[int, ...]  # -1: none
    path: Path | None = None
    notes: tuple[str, ...] = ()  # lines about what of the file is left out or was repaired

    @property
    def triangles(self) -> np.ndarray:
        """Vertex indices [F,3]."""
        return self.mesh.triangles

    @property
    def corners(self) -> np.ndarray:
        """Places [F,3,3] of the corners of the triangles."""
        return self.vertices[self.mesh.triangles]

    @property
    def material_names(self) -> tuple[str, ...]:
        """Names of the materials; empty where the file gives none."""
        return tuple(material.name for material in self.mesh.materials)


def select_faces(thing: ObjectMesh, chosen: np.ndarray) -> ObjectMesh:
    """The object with only the triangles of a mask [F] or list of indices, and the vertices that they use.

    Materials and nodes keep their numbers.
    """
    mesh = thing.mesh
    triangles = mesh.triangles[chosen]
    used, flat = np.unique(triangles, return_inverse=True)
    emissive = mesh.emissive_texcoords
    cut = replace(
        mesh,
        triangles=flat.reshape(-1, 3).astype(np.int32),
        triangle_materials=mesh.triangle_materials[chosen],
        texcoords=mesh.texcoords[used],
        colors=mesh.colors[used],
        smooth_groups=np.unique(mesh.smooth_groups[used], return_inverse=True)[1].reshape(-1).astype(np.int32),
        emissive_texcoords=None if emissive is None else emissive[used],
    )
    return replace(thing, vertices=thing.vertices[used], mesh=cut, triangle_nodes=thing.triangle_nodes[chosen])


def split_object(thing: ObjectMesh, part: np.ndarray) -> tuple[ObjectMesh, ObjectMesh]:
    """(body, part): what is left and what moves, by a mask [F] of the triangles of the part."""
    mask = np.asarray(part, bool)
    return select_faces(thing, ~mask), select_faces(thing, mask)


def move_object(thing: ObjectMesh, matrix: np.ndarray) -> ObjectMesh:
    """The object with its vertices moved by `matrix` [4,4]; one that mirrors also turns the triangles over."""
    matrix = np.asarray(matrix, np.float64)
    moved = replace(thing, vertices=thing.vertices @ matrix[:3, :3].T + matrix[:3, 3])
    if np.linalg.det(matrix[:3, :3]) >= 0:
        return moved
    return replace(moved, mesh=replace(thing.mesh, triangles=thing.mesh.triangles[:, ::-1].copy()))


def join_objects(things: Sequence[ObjectMesh]) -> ObjectMesh:
    """One object of several; materials and nodes are numbered on, the path is that of the first."""
    starts = np.cumsum([0] + [len(each.vertices) for each in things])
    materials = np.cumsum([0] + [len(each.mesh.materials) for each in things])
    nodes = np.cumsum([0] + [len(each.node_names) for each in things])
    groups = np.cumsum([0] + [int(each.mesh.smooth_groups.max(initial=-1)) + 1 for each in things])
    meshes = [each.mesh for each in things]
    shines = any(mesh.emissive_texcoords is not None for mesh in meshes)
    emissive = [mesh.texcoords if mesh.emissive_texcoords is None else mesh.emissive_texcoords for mesh in meshes]
    mesh = Mesh(
        triangles=np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, starts)]).astype(np.int32),
        triangle_materials=np.concatenate([mesh.triangle_materials + first for mesh, first in zip(meshes, materials)]),
        materials=tuple(material for mesh in meshes for material in mesh.materials),
        texcoords=np.concatenate([mesh.texcoords for mesh in meshes]),
        colors=np.concatenate([mesh.colors for mesh in meshes]),
        smooth_groups=np.concatenate([mesh.smooth_groups + first for mesh, first in zip(meshes, groups)]),
        emissive_texcoords=np.concatenate(emissive) if shines else None,
    )
    parents = [parent + first * (parent >= 0) for each, first in zip(things, nodes) for parent in each.node_parents]
    return ObjectMesh(
        vertices=np.concatenate([each.vertices for each in things]),
        mesh=mesh,
        triangle_nodes=np.concatenate([each.triangle_nodes + first for each, first in zip(things, nodes)]),
        node_names=tuple(name for each in things for name in each.node_names),
        node_parents=tuple(int(parent) for parent in parents),
        path=things[0].path,
        notes=tuple(dict.fromkeys(note for each in things for note in each.notes)),
    )


def bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Lowest corner [3], highest corner [3] and diagonal of the axis-aligned box of points [P,3]."""
    low, high = points.min(axis=0), points.max(axis=0)
    return low, high, float(np.linalg.norm(high - low))
