"""Animated glTF 2.0 models (.glb, .gltf) as a mesh to draw and a rig that moves it.

`load_scene` reads everything that is drawn: several meshes, primitives, materials and skins, morph targets, base colour
factors and textures, vertex colours, alpha modes. `gltf_animation` poses what it returns. Left out, and harmless to
leave out here: lights, cameras, metalness, normal maps, points and lines. Compressed meshes (Draco, meshopt) are
refused by name.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.data.gltf_document import Document, open_document
from dimo_jax.data.gltf_geometry import Geometry, merge_geometries, read_primitive
from dimo_jax.data.gltf_rig import Clip, Node, Skin, read_clips, read_nodes, read_skins
from dimo_jax.data.mesh import Mesh
from dimo_jax.errors import UserError

MAX_TEXCOORD = 1e9  # repeats of a texture; times its size they still fit an integer
MAX_FACTOR = 1e6  # of colours, which some programs make a little larger than 1


@dataclass(frozen=True)
class Part:
    """One primitive of one node; its vertices are `start`, `start + 1`, ... of the scene's."""

    node: int
    skin: int  # -1: moves with its node
    start: int
    positions: np.ndarray  # [p,3] float64, at rest
    joints: np.ndarray  # [p,S] indices into the skin's joints; S is 0 without a skin
    weights: np.ndarray  # [p,S] float64, sum 1
    morph_targets: np.ndarray  # [targets,p,3] float64 offsets
    morph_weights: np.ndarray  # [targets] at rest


@dataclass(frozen=True)
class Scene:
    """A model: what is drawn (`mesh`, whose vertices the parts hold) and how it moves."""

    path: Path
    nodes: tuple[Node, ...]
    order: np.ndarray  # [nodes] parents before children
    skins: tuple[Skin, ...]
    clips: tuple[Clip, ...]
    parts: tuple[Part, ...]
    mesh: Mesh
    joints: np.ndarray  # [J] nodes that are joints of a skin that is drawn, else the nodes of the parts
    hidden: tuple[str, ...]  # names of the nodes with a mesh that were left out
    digest: str  # of the file, see `Document.digest`

    @property
    def num_vertices(self) -> int:
        """Number of vertices of all parts."""
        return sum(len(part.positions) for part in self.parts)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the nodes that are drawn, each once, in the file's order."""
        return tuple(dict.fromkeys(self.nodes[part.node].name for part in self.parts))


def load_scene(path: str | Path, *, hide: Sequence[str] = ()) -> Scene:
    """Reads an animated model.

    Args:
      path: a .glb or .gltf file.
      hide: patterns of node names (`*`, `?`, `[...]`; case does not matter). A node that matches is left out with
        everything below it. Characters often carry all their weapons at once: the knight of the development data needs
        ("1H_Sword_Offhand", "2H_Sword", "Badge_Shield", "Rectangle_Shield", "Spike_Shield").

    Raises:
      UserError: the file is malformed, has nothing to draw or no animation, or a pattern matches no node.
    """
    document = open_document(path)
    try:
        with np.errstate(all="ignore"):  # what overflows is said in one line by the checks of what is read
            return _build_scene(document, tuple(hide))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise document.fail(f"malformed glTF ({error.__class__.__name__}: {reason})") from error


def _build_scene(document: Document, hide: tuple[str, ...]) -> Scene:
    nodes, order = read_nodes(document)
    skins = read_skins(document)
    drawn, hidden = _choose_nodes(document, nodes, order, hide)
    clips = read_clips(document)
    if not clips:
        raise document.fail("no animation found, expected at least one clip")
    parts: list[Part] = []
    geometries: list[Geometry] = []
    for index in drawn:
        mesh = document.entry("meshes", nodes[index].mesh)
        for number, primitive in enumerate(mesh["primitives"]):
            where = f"meshes[{nodes[index].mesh}].primitives[{number}]"
            geometry = read_primitive(document, where, primitive)
            if geometry is not None:
                start = sum(len(part.positions) for part in parts)
                parts.append(_make_part(document, where, geometry, nodes[index], index, start, skins, mesh))
                geometries.append(geometry)
    if not parts:
        raise document.fail("no mesh found, expected at least one with triangles")
    _check_weights(document, clips, parts)
    skinned = [skins[part.skin].joints for part in parts if part.skin >= 0]
    joints = np.unique(np.concatenate(skinned or [np.array([part.node for part in parts])]))
    return Scene(
        path=document.path,
        nodes=nodes,
        order=order,
        skins=skins,
        clips=clips,
        parts=tuple(parts),
        mesh=_check_mesh(document, merge_geometries(document, geometries)),
        joints=joints,
        hidden=hidden,
        digest=document.digest(),
    )


def _check_mesh(document: Document, mesh: Mesh) -> Mesh:
    """The mesh, unless nothing of it can be drawn, or its numbers leave what drawing computes with."""
    if not len(mesh.triangles):
        raise document.fail("no mesh found, expected at least one with triangles")
    if not (np.abs(mesh.texcoords) <= MAX_TEXCOORD).all():
        raise document.fail(f"texture coordinates, their transform applied, reach beyond {MAX_TEXCOORD:g}")
    for index, material in enumerate(mesh.materials):
        for what, values in (("base colour", material.base_color), ("alpha cutoff", np.array([material.cutoff]))):
            if not (np.abs(values) <= MAX_FACTOR).all():
                raise document.fail(
                    f"the {what} of material {index} of those that are drawn is {values.tolist()}, expected 0 to 1"
                )
    return mesh


def _check_weights(document: Document, clips: tuple[Clip, ...], parts: list[Part]) -> None:
    """Refuses clips that give a node another number of morph weights than its mesh has targets."""
    counts = {part.node: len(part.morph_targets) for part in parts}
    for clip in clips:
        for channel in clip.channels:
            found, expected = channel.values.shape[-1], counts.get(channel.node)
            if channel.path == "weights" and expected is not None and found != expected:
                raise document.fail(
                    f"animation {clip.name!r} has {found} morph weights a key for nodes[{channel.node}], "
                    f"expected {expected}"
                )


def _choose_nodes(
    document: Document, nodes: tuple[Node, ...], order: np.ndarray, hide: tuple[str, ...]
) -> tuple[list[int], tuple[str, ...]]:
    """The nodes with a mesh that are drawn, and the names of those that the patterns leave out."""
    roots = set(range(len(nodes)))
    if document.entries("scenes"):
        chosen = document.entry("scenes", document.json.get("scene", 0)).get("nodes", [])
        roots = {index for index in chosen if document.entry("nodes", index) is not None}
    names = sorted({node.name for node in nodes if node.mesh >= 0})
    for pattern in hide:
        if not any(_matches(node.name, pattern) for node in nodes):
            raise document.fail(f"hide={pattern!r} matches no node; nodes with a mesh: {', '.join(names) or 'none'}")
    in_scene, left_out = np.zeros(len(nodes), bool), np.zeros(len(nodes), bool)
    for index in order:
        parent = nodes[index].parent
        in_scene[index] = index in roots or (parent >= 0 and in_scene[parent])
        matched = any(_matches(nodes[index].name, pattern) for pattern in hide)
        left_out[index] = matched or (parent >= 0 and left_out[parent])
    with_mesh = [i for i, node in enumerate(nodes) if node.mesh >= 0 and in_scene[i]]
    if with_mesh and left_out[with_mesh].all():
        raise document.fail(f"hide={','.join(hide)!r} leaves nothing to draw of: {', '.join(names)}")
    return [i for i in with_mesh if not left_out[i]], tuple(nodes[i].name for i in with_mesh if left_out[i])


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name.lower(), pattern.lower())


def select_clips(scene: Scene, patterns: Sequence[str]) -> tuple[Clip, ...]:
    """The clips whose names match any of the patterns (case does not matter), in the file's order.

    Raises:
      UserError: a pattern that matches no clip.
    """
    for pattern in patterns:
        if not any(_matches(clip.name, pattern) for clip in scene.clips):
            names = ", ".join(clip.name for clip in scene.clips)
            raise UserError(f"{scene.path}: clips={pattern!r} matches no clip, expected some of: {names}")
    return tuple(clip for clip in scene.clips if any(_matches(clip.name, pattern) for pattern in patterns))


def _make_part(
    document: Document,
    where: str,
    geometry: Geometry,
    node: Node,
    index: int,
    start: int,
    skins: tuple[Skin, ...],
    mesh: dict[str, Any],
) -> Part:
    """Binds a primitive to its node and skin."""
    num_targets = len(geometry.morph_targets)
    weights = np.asarray(mesh.get("weights", [0] * num_targets), np.float64) if node.weights is None else node.weights
    if weights.shape != (num_targets,) or not np.isfinite(weights).all():
        raise document.fail(f"{where} has {weights.size} morph weights, expected {num_targets} finite ones")
    skin = node.skin if geometry.joints.shape[1] else -1
    if skin >= 0 and len(geometry.joints) and geometry.joints.max() >= len(skins[skin].joints):
        raise document.fail(f"{where} refers to joint {geometry.joints.max()} of {len(skins[skin].joints)} in its skin")
    return Part(
        node=index,
        skin=skin,
        start=start,
        positions=geometry.positions,
        joints=geometry.joints,
        weights=geometry.weights,
        morph_targets=geometry.morph_targets,
        morph_weights=weights,
    )
