"""Static objects from files: glTF (.glb, .gltf), OBJ with its materials, PLY; told apart by content and ending."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.io.mesh_ply import read_mesh_ply
from dimo_jax.io.obj import read_obj
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.rigs.posing import pose_nodes, pose_vertices
from dimo_jax.rigs.scene import Scene

MAX_FACES = 5_000_000


def load_object(path: str | Path, *, repair: bool = False) -> ObjectMesh:
    """Reads a static object with its nodes, materials, textures and vertex colours.

    Args:
      path: a .glb, .gltf, .obj or .ply file. An animated or skinned one is taken in its rest pose.
      repair: settles NaN and infinite numbers of a glTF file, and says so in `notes`.

    Raises:
      UserError: the file is missing, malformed, of another kind, has no triangles, or holds NaN or infinite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a mesh (.glb, .gltf, .obj, .ply)")
    ending = path.suffix.lower()
    if ending in (".glb", ".gltf"):
        thing = from_scene(load_scene(path, repair=repair, animated=False))
    elif ending == ".obj":
        thing = read_obj(path)
    elif ending == ".ply":
        thing = read_mesh_ply(path)
    else:
        raise UserError(f"{path}: ends in {ending or 'nothing'!r}, expected .glb, .gltf, .obj or .ply")
    return _check(thing, path)


def _check(thing: ObjectMesh, path: Path) -> ObjectMesh:
    if not len(thing.triangles):
        raise UserError(f"{path}: has no triangles, expected a surface")
    if len(thing.triangles) > MAX_FACES:
        raise UserError(
            f"{path}: has {len(thing.triangles)} triangles, expected at most {MAX_FACES}; decimate it first"
        )
    if not np.isfinite(thing.vertices[np.unique(thing.triangles)]).all():
        raise UserError(f"{path}: has vertices that are NaN or infinite, expected finite numbers")
    return thing


def from_scene(scene: Scene) -> ObjectMesh:
    """A glTF scene at rest. Triangles of mirrored nodes are turned over, so that their normals point outwards."""
    poses = pose_nodes(scene, None, np.zeros(1))
    vertices = pose_vertices(scene, poses, 0)
    triangles = scene.mesh.triangles.copy()
    owner = np.zeros(len(vertices), np.int32)
    mirrored = np.zeros(len(vertices), bool)
    for part in scene.parts:
        rows = slice(part.start, part.start + len(part.positions))
        owner[rows] = part.node
        mirrored[rows] = part.skin < 0 and np.linalg.det(poses.matrices[0, part.node, :3, :3]) < 0
    turned = mirrored[triangles[:, 0]]
    triangles[turned] = triangles[turned][:, ::-1]
    return ObjectMesh(
        vertices=vertices,
        mesh=replace(scene.mesh, triangles=triangles),
        triangle_nodes=owner[triangles[:, 0]],
        node_names=tuple(node.name for node in scene.nodes),
        node_parents=tuple(int(node.parent) for node in scene.nodes),
        path=scene.path,
        notes=scene.notes,
    )
