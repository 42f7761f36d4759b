"""A source model's own mesh, materials and textures as a GLB that key points move.

Every primitive that is drawn is kept with its attributes, baked into the rest pose of the source (its skins and node
transforms applied), and gets one new skin whose joints are the key points. Units and place are the source's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.geometry import rotations
from dimo_jax.io.gltf.document import Document, open_document, read_accessor
from dimo_jax.io.gltf.faults import Faults
from dimo_jax.io.gltf.geometry import read_primitive, unit_range
from dimo_jax.io.gltf.images import KTX2_MAGIC, image_bytes
from dimo_jax.io.gltf.plain import make_plain
from dimo_jax.io.gltf.skinned import add_animation, add_influences, add_joints
from dimo_jax.io.gltf.write import INDICES, VERTICES, GlbBuilder
from dimo_jax.io.motion import Motion, limit_influences
from dimo_jax.rigs.posing import pose_nodes, pose_scene
from dimo_jax.rigs.scene import Part, Scene
from dimo_jax.skinning.binding import Binding

# What these do is in the material or the image, which is copied; other extensions of a source are left behind.
_KEPT_EXTENSIONS = ("KHR_materials_", "KHR_texture_", "EXT_texture_webp", "EXT_texture_avif")
_TRIANGLES = 4


def write_mesh_glb(
    scene: Scene,
    binding: Binding,
    motions: Sequence[Motion],
    path: Path | str,
    *,
    num_influences: int = 8,
) -> Path:
    """Writes a source mesh with one animation for each motion, atomically.

    Args:
      scene: the source model.
      binding: of all its vertices, in the source's units; see `fit_binding`.
      motions: with `tracks` in the source's units and of one model; at least one.
      path: the file to write; by custom ends in `.glb`.
      num_influences: key points that move a vertex at most; rounded up to a multiple of four.

    Returns:
      `path`.

    Raises:
      UserError: the source cannot be read again.
    """
    document, builder = make_plain(open_document(scene.path)), GlbBuilder()
    neighbors, weights = limit_influences(binding.neighbors, binding.weights, -(-num_influences // 4) * 4)
    copier = _MaterialCopier(document, builder)
    to_rest = _rest_frames(scene)
    rest = pose_scene(scene, None, 0.0).astype(np.float32)
    primitives: dict[int, list[dict[str, Any]]] = {}
    for part, primitive in _each_part(document, scene):
        rows = slice(part.start, part.start + len(part.positions))
        primitives.setdefault(part.node, []).append(
            _copy_primitive(
                document, builder, primitive, copier, rest[rows], to_rest[rows], neighbors[rows], weights[rows]
            )
        )
    skin, root = _add_skin(builder, binding)
    nodes = [root]
    for node, entries in primitives.items():
        name = scene.nodes[node].name
        mesh = builder.add("meshes", {"name": name, "primitives": entries})
        nodes.append(builder.add("nodes", {"name": name, "mesh": mesh, "skin": skin}))
    builder.json |= {"scene": 0, "scenes": [{"nodes": nodes}]}
    joints = builder.json["skins"][skin]["joints"]
    for motion in motions:
        add_animation(builder, motion.name, joints, motion.seconds, motion.tracks, motion.turns)
    return builder.write(path)


def _add_skin(builder: GlbBuilder, binding: Binding) -> tuple[int, int]:
    """The skin, at rest where the binding is the identity, and its root node."""
    binds = binding.binds
    # The node at rest undoes its inverse bind matrix, so that a still file shows the source's own rest pose.
    turns, places = (
        _quats_of(binds[:, :, :3].swapaxes(-1, -2)),
        -np.einsum("kba,kb->ka", binds[:, :, :3], binds[:, :, 3]),
    )
    joints = add_joints(builder, places, turns)
    root = len(builder.json["nodes"]) - 1
    matrices = np.tile(np.eye(4, dtype=np.float32), (len(binds), 1, 1))
    matrices[:, :3] = binds
    inverse_bind = builder.add_array(matrices)
    return builder.add("skins", {"joints": joints, "skeleton": root, "inverseBindMatrices": inverse_bind}), root


def _quats_of(matrices: np.ndarray) -> np.ndarray:
    """Unit quaternions [K,4] wxyz of rotation matrices [K,3,3], as eigenvectors (Bar-Itzhack 2000), at any angle."""
    m = matrices
    k = np.empty((len(m), 4, 4))
    k[:, 0, 0] = np.trace(m, axis1=1, axis2=2)
    k[:, 1:, 1:] = m + m.swapaxes(1, 2) - k[:, :1, :1] * np.eye(3)
    turn = np.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], axis=-1)
    k[:, 0, 1:] = k[:, 1:, 0] = turn
    return np.linalg.eigh(k)[1][:, :, -1]


def _each_part(document: Document, scene: Scene) -> list[tuple[Part, dict[str, Any]]]:
    """The parts of a scene with the primitives that they came from: `load_scene` keeps the order of each node's."""
    pairs = []
    remaining = list(scene.parts)
    while remaining:
        node = remaining[0].node
        drawn = [
            primitive
            for primitive in document.entry("meshes", scene.nodes[node].mesh)["primitives"]
            if primitive.get("mode", _TRIANGLES) >= _TRIANGLES and "POSITION" in primitive["attributes"]
        ]
        pairs += list(zip(remaining[: len(drawn)], drawn, strict=True))
        remaining = remaining[len(drawn) :]
    return pairs


def _rest_frames(scene: Scene) -> np.ndarray:
    """Linear maps [P,3,3] from each vertex's own space to the scene at rest."""
    matrices = pose_nodes(scene, None, np.zeros(1)).matrices[0]
    maps = np.empty((scene.num_vertices, 3, 3))
    for part in scene.parts:
        rows = slice(part.start, part.start + len(part.positions))
        if part.skin < 0:
            maps[rows] = matrices[part.node, :3, :3]
        else:
            joints = (matrices[scene.skins[part.skin].joints] @ scene.skins[part.skin].inverse_bind)[:, :3, :3]
            maps[rows] = np.einsum("ps,psab->pab", part.weights, joints[part.joints])
    return maps


def _copy_primitive(
    document: Document,
    builder: GlbBuilder,
    primitive: dict[str, Any],
    copier: _MaterialCopier,
    rest: np.ndarray,
    to_rest: np.ndarray,
    neighbors: np.ndarray,
    weights: np.ndarray,
) -> dict[str, Any]:
    mirrored = bool(np.median(np.linalg.det(to_rest)) < 0)  # turns triangles over, which the file no longer tells
    attributes = {"POSITION": builder.add_array(rest, target=VERTICES, bounds=True)}
    for name, index in primitive["attributes"].items():
        if name == "NORMAL":
            normals = read_accessor(document, index, kind="VEC3", finite=False).astype(np.float64)
            turned = np.einsum("pba,pb->pa", np.linalg.pinv(to_rest), normals)
            attributes[name] = builder.add_array(_unit(turned), target=VERTICES)
        elif name == "TANGENT":
            tangents = read_accessor(document, index, kind="VEC4", finite=False).astype(np.float64)
            turned = _unit(np.einsum("pab,pb->pa", to_rest, tangents[:, :3]))
            sign = np.where((tangents[:, 3:] < 0) ^ mirrored, -1, 1).astype(np.float32)
            attributes[name] = builder.add_array(np.concatenate([turned, sign], axis=1), target=VERTICES)
        elif name.startswith(("TEXCOORD_", "COLOR_")):
            values = read_accessor(document, index, finite=False)
            if name.startswith("COLOR_"):
                values = unit_range(values)
            values = values.astype(np.float32)
            values[~np.isfinite(values).all(axis=1)] = name.startswith("COLOR_")  # as the import has it, or unseen
            attributes[name] = builder.add_array(values, target=VERTICES)
    attributes |= add_influences(builder, neighbors, weights)
    copied: dict[str, Any] = {"attributes": attributes}
    indices = None
    places = read_accessor(document, primitive["attributes"]["POSITION"], kind="VEC3", finite=False)
    if mirrored or not np.isfinite(places).all():  # of the latter some triangles may have been left out
        geometry = read_primitive(Faults(document, repair=True), "primitive", primitive)
        assert geometry is not None  # it is drawn
        indices = geometry.triangles[:, :: -1 if mirrored else 1].reshape(-1)  # of strips and fans, too
    else:
        copied["mode"] = primitive.get("mode", _TRIANGLES)
        if "indices" in primitive:
            indices = read_accessor(document, primitive["indices"], kind="SCALAR")
    if indices is not None:
        small = np.uint16 if len(rest) < 65536 else np.uint32
        copied["indices"] = builder.add_array(indices.astype(small), target=INDICES)
    if "material" in primitive:
        copied["material"] = copier.copy("materials", primitive["material"])
    return copied


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    safe = np.where(norms > 1e-20, vectors / np.maximum(norms, 1e-20), [0.0, 1.0, 0.0])
    return safe.astype(np.float32)


class _MaterialCopier:
    """Copies materials, and the textures, images and samplers that they use, each once."""

    def __init__(self, document: Document, builder: GlbBuilder) -> None:
        self._document, self._builder = document, builder
        self._copied: dict[tuple[str, int], int] = {}

    def copy(self, key: str, index: Any) -> int:
        """The index in the new file of entry `index` of the top-level array `key`."""
        if (key, index) not in self._copied:
            entry = self._document.entry(key, index)
            if key == "images":
                entry = self._copy_image(index, entry)
            self._copied[key, index] = self._builder.add(key, self._translate(key, entry))
        return self._copied[key, index]

    def _copy_image(self, index: Any, entry: dict[str, Any]) -> dict[str, Any]:
        data = image_bytes(self._document, index)
        kinds = {
            b"\x89PNG": "image/png",
            b"\xff\xd8\xff": "image/jpeg",
            b"RIFF": "image/webp",
            KTX2_MAGIC: "image/ktx2",
        }
        kind = next((name for magic, name in kinds.items() if data.startswith(magic)), entry.get("mimeType"))
        return {"name": entry.get("name", "image"), "mimeType": kind, "bufferView": self._builder.add_bytes(data)}

    def _translate(self, key: str, value: Any, name: str = "") -> Any:
        """The same JSON with the new file's indices, without extensions that are not kept."""
        if isinstance(value, list):
            return [self._translate(key, each, name) for each in value]
        if not isinstance(value, dict):
            return value
        result = {}
        for field, each in value.items():
            if field == "extensions":
                each = {known: content for known, content in each.items() if known.startswith(_KEPT_EXTENSIONS)}
                required = self._document.json.get("extensionsRequired", [])
                for known in each:
                    self._builder.use_extension(known, required=known in required)
                if not each:
                    continue
            if field in ("source", "sampler") and key == "textures":
                result[field] = self.copy("images" if field == "source" else "samplers", each)
            elif field == "index" and key == "materials" and name.endswith("Texture"):
                result[field] = self.copy("textures", each)
            elif field != "extras":
                result[field] = self._translate(key, each, field)
        return result


def to_source_units(motion: Motion, scale: float, center: np.ndarray) -> Motion:
    """A motion whose key points stand in a source's units, where the world is `scale * (p - center)`."""
    return replace(motion, tracks=motion.tracks / scale + center)


def pose_binding(binding: Binding, rest: np.ndarray, motion: Motion) -> np.ndarray:
    """What the written file shows at its key times: [T,P,3] from rest [P,3] and a motion in the source's units."""
    return np.stack([binding.pose(rest, *each) for each in zip(motion.tracks, rotations.to_matrix(motion.turns))])
