"""Animated glTF 2.0 models (.glb, .gltf) as a mesh to draw and a rig that moves it.

`load_scene` reads everything that is drawn: several meshes, primitives, materials and skins, morph targets, colours,
emission, textures, alpha modes, facing. `gltf_animation` poses what it returns. Left out, and harmless to leave out
here: lights, cameras, metalness, normal maps. Whatever else is left out has a line in `Scene.notes`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import choose_names, to_text
from dimo_jax.io.gltf.document import MAX_ELEMENTS, Document, open_document
from dimo_jax.io.gltf.extensions import check_required, describe_left_out, describe_pointers
from dimo_jax.io.gltf.faults import Faults, find_used
from dimo_jax.io.gltf.geometry import Geometry, merge_geometries, read_primitive
from dimo_jax.io.gltf.plain import make_plain
from dimo_jax.io.gltf.rig import check_joints, clean_nodes, find_needed, read_clips, read_nodes, read_skins
from dimo_jax.meshes.renderer import Mesh
from dimo_jax.rigs.scene import Part, Scene
from dimo_jax.rigs.skeleton import Clip, Node, Skin

MAX_TEXCOORD = 1e9  # repeats of a texture; times its size they still fit an integer
MAX_FACTOR = 1e6  # of colours, which some programs make a little larger than 1


def load_scene(
    path: str | Path,
    *,
    hide: str | Sequence[str] = (),
    double_sided: bool = False,
    repair: bool = False,
    animated: bool = True,
) -> Scene:
    """Reads an animated model.

    Args:
      path: a .glb or .gltf file.
      hide: names of nodes or patterns of them (`*`, `?`, `[...]`), see `choose_names`. Such a node is left out with
        everything below it. Characters often carry all their weapons at once: the knight of the development data needs
        ("1H_Sword_Offhand", "2H_Sword", "Badge_Shield", "Rectangle_Shield", "Spike_Shield").
      double_sided: draws both sides of all surfaces, whatever the file says.
      repair: settles NaN and infinite numbers that something drawn needs, and says so in `notes`.
      animated: whether a file without any clip is an error.

    Raises:
      UserError: the file is malformed, has nothing to draw or no animation, needs what is not supported, or a pattern
        matches no node.
    """
    document = open_document(path)
    try:
        check_required(document)
        with np.errstate(all="ignore"):  # what overflows is said in one line by the checks of what is read
            scene = _build_scene(Faults(make_plain(document), repair), hide, animated)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise document.fail(f"malformed glTF ({error.__class__.__name__}: {reason})") from error
    if double_sided:
        materials = tuple(replace(material, double_sided=True) for material in scene.mesh.materials)
        scene = replace(scene, mesh=replace(scene.mesh, materials=materials))
    return replace(scene, digest=document.digest())


def _build_scene(faults: Faults, hide: str | Sequence[str], animated: bool) -> Scene:
    document = faults.document
    nodes, order = read_nodes(document)
    skins = read_skins(document)
    drawn, hidden, invisible = _choose_nodes(document, nodes, order, hide)
    needed = find_needed(nodes, skins, drawn)
    nodes = clean_nodes(faults, nodes, needed)
    clips = read_clips(faults, needed)
    if animated and not clips:
        raise document.fail("; ".join(["no animation found, expected at least one clip", *describe_pointers(document)]))
    parts, geometries, surfaceless = _read_parts(faults, nodes, drawn, skins)
    if not parts:
        raise document.fail("no mesh found, expected at least one with triangles")
    clips = _check_weights(document, clips, parts)
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
        digest="",
        notes=(*describe_left_out(document), *_describe_choice(document, surfaceless, invisible), *faults.lines),
    )


def _read_parts(
    faults: Faults, nodes: tuple[Node, ...], drawn: list[int], skins: tuple[Skin, ...]
) -> tuple[list[Part], list[Geometry], list[str]]:
    """The primitives of the nodes that are drawn, bound to them, and the names of nodes with points or lines."""
    document = faults.document
    parts: list[Part] = []
    geometries: list[Geometry] = []
    surfaceless: list[str] = []
    known: dict[str, Geometry | None] = {}  # instances share a mesh
    start = 0
    for index in drawn:
        mesh = document.entry("meshes", nodes[index].mesh)
        name = to_text(str(mesh.get("name", "")))
        for number, primitive in enumerate(mesh["primitives"]):
            where = f"meshes[{nodes[index].mesh}].primitives[{number}]" + (f" of {name!r}" if name else "")
            if where not in known:
                known[where] = read_primitive(faults, where, primitive)
            geometry = known[where]
            if geometry is None:
                surfaceless.append(nodes[index].name)
                continue
            if start + len(geometry.positions) > MAX_ELEMENTS:
                raise document.fail(f"draws more than {MAX_ELEMENTS} vertices, expected less")
            parts.append(_make_part(document, where, geometry, nodes[index], index, start, skins, mesh))
            geometries.append(geometry)
            start += len(geometry.positions)
    return parts, geometries, surfaceless


def _describe_choice(document: Document, surfaceless: list[str], invisible: tuple[str, ...]) -> list[str]:
    """Lines about what of the file is not in the picture because of what it is."""
    lines = []
    if surfaceless:
        lines.append(f"left out, points or lines without a surface: {', '.join(dict.fromkeys(surfaceless))}")
    if invisible:
        lines.append(f"left out, as the file says that they cannot be seen: {', '.join(dict.fromkeys(invisible))}")
    scenes = document.entries("scenes")
    if len(scenes) > 1:
        lines.append(f"drawn: scene {document.json.get('scene', 0)} of the {len(scenes)} of the file")
    return lines


def _check_mesh(document: Document, mesh: Mesh) -> Mesh:
    """The mesh, unless nothing of it can be drawn, or its numbers leave what drawing computes with."""
    if not len(mesh.triangles):
        raise document.fail("no mesh found, expected at least one with triangles")
    for coordinates in (mesh.texcoords, mesh.emissive_texcoords):
        if coordinates is not None and not (np.abs(coordinates) <= MAX_TEXCOORD).all():
            raise document.fail(f"texture coordinates, their transform applied, reach beyond {MAX_TEXCOORD:g}")
    for index, material in enumerate(mesh.materials):
        factors = [("base colour", material.base_color), ("alpha cutoff", np.array([material.cutoff]))]
        if material.emission is not None:
            factors.append(("emission", material.emission))
        for what, values in factors:
            if not (np.abs(values) <= MAX_FACTOR).all():
                raise document.fail(
                    f"the {what} of material {index} of those that are drawn is {values.tolist()}, expected 0 to 1"
                )
    return mesh


def _check_weights(document: Document, clips: tuple[Clip, ...], parts: list[Part]) -> tuple[Clip, ...]:
    """The clips; one that gives a node another number of morph weights than its mesh has targets has a `problem`."""
    counts = {part.node: len(part.morph_targets) for part in parts}

    def find_problem(clip: Clip) -> str:
        for channel in clip.channels:
            found, expected = channel.values.shape[-1], counts.get(channel.node)
            if channel.path == "weights" and expected is not None and found != expected:
                where = f"animation {clip.name!r} has {found} morph weights a key for nodes[{channel.node}]"
                return str(document.fail(f"{where}, expected {expected}"))
        return clip.problem

    return tuple(replace(clip, problem=find_problem(clip)) for clip in clips)


def _choose_nodes(
    document: Document, nodes: tuple[Node, ...], order: np.ndarray, hide: str | Sequence[str]
) -> tuple[list[int], tuple[str, ...], tuple[str, ...]]:
    """The nodes with a mesh that are drawn, the names of those that the patterns leave out, and of those unseen."""
    roots = set(range(len(nodes)))
    if document.entries("scenes"):
        chosen = document.entry("scenes", document.json.get("scene", 0)).get("nodes", [])
        roots = {index for index in chosen if document.entry("nodes", index) is not None}
    names = sorted({node.name for node in nodes if node.mesh >= 0})

    def fail(part: str) -> UserError:
        return document.fail(f"hide={part!r} matches no node; nodes with a mesh: {', '.join(names) or 'none'}")

    matched = set(itertools.chain(*choose_names(hide, [node.name for node in nodes], fail=fail, patterns=True)))
    in_scene, left_out, unseen = (np.zeros(len(nodes), bool) for _ in range(3))
    for index in order:
        parent = nodes[index].parent
        in_scene[index] = index in roots or (parent >= 0 and in_scene[parent])
        left_out[index] = index in matched or (parent >= 0 and left_out[parent])
        unseen[index] = not _is_visible(document, index) or (parent >= 0 and unseen[parent])
    with_mesh = [i for i, node in enumerate(nodes) if node.mesh >= 0 and in_scene[i]]
    invisible = tuple(nodes[i].name for i in with_mesh if unseen[i] and not left_out[i])
    with_mesh = [i for i in with_mesh if not unseen[i]]
    if with_mesh and left_out[with_mesh].all():
        asked = hide if isinstance(hide, str) else ",".join(hide)
        raise document.fail(f"hide={asked!r} leaves nothing to draw of: {', '.join(names)}")
    return [i for i in with_mesh if not left_out[i]], tuple(nodes[i].name for i in with_mesh if left_out[i]), invisible


def _is_visible(document: Document, index: int) -> bool:
    extensions = document.entry("nodes", int(index)).get("extensions", {})
    return extensions.get("KHR_node_visibility", {}).get("visible", True) is not False


def select_clips(scene: Scene, asked: str | Sequence[str], *, flag: str = "clips") -> tuple[Clip, ...]:
    """The clips that names or patterns mean, in the file's order; see `choose_names`.

    Raises:
      UserError: a name or pattern that fits no clip; the message calls it `flag`.
    """
    names = [clip.name for clip in scene.clips]

    def fail(part: str) -> UserError:
        return UserError(f"{scene.path}: {flag}={part!r} matches no clip, expected some of: {', '.join(names)}")

    indices = sorted({*itertools.chain(*choose_names(asked, names, fail=fail, patterns=True))})
    return tuple(scene.clips[index] for index in indices)


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
    if weights.shape != (num_targets,):
        raise document.fail(f"{where} has {weights.size} morph weights for {num_targets} targets, expected one each")
    if not np.isfinite(weights).all():
        raise document.fail(f"{where} has the morph weights {weights.tolist()}, expected finite numbers")
    skin = node.skin if geometry.joints.shape[1] else -1
    joints = geometry.joints
    if skin >= 0:
        used = find_used(geometry.triangles, len(joints))
        joints = check_joints(document, where, joints, geometry.weights, used, skins[skin])
    return Part(
        node=index,
        skin=skin,
        start=start,
        positions=geometry.positions,
        joints=joints,
        weights=geometry.weights,
        morph_targets=geometry.morph_targets,
        morph_weights=weights,
        bound=geometry.bound,
    )
