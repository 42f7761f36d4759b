"""The drawn part of a glTF file: primitives, morph targets and skin weights, joined into one mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimo_jax.io.gltf.document import MAX_ELEMENTS, Document, read_accessor
from dimo_jax.io.gltf.faults import Faults, clean_positions, clean_rows, clean_weights, find_used
from dimo_jax.io.gltf.materials import color_texture, emissive_texture, read_material, transform_texcoords
from dimo_jax.meshes.renderer import Mesh
from dimo_jax.meshes.textures import Texture

_TRIANGLES, _STRIP, _FAN = 4, 5, 6


@dataclass(frozen=True)
class Geometry:
    """One primitive as it stands in the file."""

    positions: np.ndarray  # [p,3] float64
    triangles: np.ndarray  # [f,3]
    texcoords: np.ndarray  # [p,2] of its material's colour texture
    emissive_texcoords: np.ndarray  # [p,2] of its material's emissive texture
    colors: np.ndarray  # [p,4] linear RGBA
    smooth_groups: np.ndarray  # [p]
    joints: np.ndarray  # [p,S] int64, S is 0 without skin attributes
    weights: np.ndarray  # [p,S] float64, sum 1
    morph_targets: np.ndarray  # [targets,p,3] offsets
    material: int  # -1: the default material
    bound: bool  # whether the file gives any vertex a weight; without one all follow their first joint


def read_primitive(faults: Faults, where: str, primitive: dict[str, Any]) -> Geometry | None:
    """Reads a primitive; None for points and lines, which have no surface.

    Weights are scaled to sum 1; a vertex without any weight follows its first joint. What no triangle uses may be NaN.

    Raises:
      UserError: attributes of different lengths, a vertex index out of range, or NaN where it counts.
    """
    document = faults.document
    attributes, mode = primitive["attributes"], primitive.get("mode", _TRIANGLES)
    if mode not in (_TRIANGLES, _STRIP, _FAN) or "POSITION" not in attributes:
        return None
    positions = read_accessor(document, attributes["POSITION"], kind="VEC3", finite=False).astype(np.float64)
    count = len(positions)
    if count and not {"bufferView", "sparse"} & set(document.entry("accessors", attributes["POSITION"])):
        raise document.fail(f"{where} has no data behind its POSITION{_packed_by(primitive)}")

    def read(name: str, kind: str | None = None) -> np.ndarray:
        values = read_accessor(document, attributes[name], kind=kind, finite=False)
        if len(values) != count:
            raise document.fail(f"{where} has {len(values)} values of {name} for {count} vertices")
        return values

    triangles = _assemble(document, where, primitive, count, mode)
    positions, triangles = clean_positions(faults, where, positions, triangles)
    used = find_used(triangles, count)

    def read_clean(name: str, default: float, remedy: str, kind: str | None = None) -> np.ndarray:
        return clean_rows(faults, where, name, read(name, kind), used, default=default, remedy=remedy)

    colors = np.ones((count, 4))
    if "COLOR_0" in attributes:
        given = unit_range(read_clean("COLOR_0", 1, "it is white"))
        colors[:, : given.shape[1]] = given
    material = document.entry("materials", primitive["material"]) if primitive.get("material") is not None else {}
    joints, weights, bound = _read_skinning(faults, where, attributes, read, positions, used)
    return Geometry(
        positions=positions,
        triangles=triangles,
        texcoords=_read_texcoords(color_texture(material), attributes, read_clean, count),
        emissive_texcoords=_read_texcoords(emissive_texture(material), attributes, read_clean, count),
        colors=colors,
        smooth_groups=_group_normals(positions, read("NORMAL", "VEC3") if "NORMAL" in attributes else None),
        joints=joints,
        weights=weights,
        morph_targets=_read_morph_targets(faults, where, primitive.get("targets", []), used),
        material=primitive.get("material", -1),
        bound=bound,
    )


def unit_range(colors: np.ndarray) -> np.ndarray:
    """Colours in 0..1, also where a file forgot to mark their integers as normalized: they can mean nothing else."""
    return colors if colors.dtype.kind == "f" else colors / np.iinfo(colors.dtype).max


def _assemble(document: Document, where: str, primitive: dict[str, Any], count: int, mode: int) -> np.ndarray:
    """Vertex indices of the triangles [f,3]; strips and fans are taken apart (specification 3.7.2.1)."""
    indices = np.arange(count)
    if "indices" in primitive:
        indices = _unsigned(document, where, read_accessor(document, primitive["indices"], kind="SCALAR"), "indices")
    if len(indices) and indices.max() >= count:
        raise document.fail(f"{where} has the vertex index {indices.max()}, expected one below {count}")
    if mode == _TRIANGLES:
        if len(indices) % 3:
            raise document.fail(f"{where} has {len(indices)} triangle corners, expected a multiple of 3")
        return indices.reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == _FAN:
        return np.stack([np.repeat(indices[:1], len(indices) - 2), indices[1:-1], indices[2:]], axis=1)
    first = np.arange(len(indices) - 2)
    odd = first % 2  # of a strip's triangles every other one turns the other way
    return np.stack([indices[first], indices[first + 1 + odd], indices[first + 2 - odd]], axis=1)


def _unsigned(document: Document, where: str, values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind != "u":
        raise document.fail(f"{where} has {name} of type {values.dtype}, expected unsigned integers")
    return values.astype(np.int64)


def find_weight_sets(attributes: dict[str, Any]) -> list[int]:
    """Numbers n of a primitive's JOINTS_n that have WEIGHTS_n."""
    return [index for index in range(8) if f"JOINTS_{index}" in attributes and f"WEIGHTS_{index}" in attributes]


def _read_skinning(
    faults: Faults,
    where: str,
    attributes: dict[str, Any],
    read: Callable[..., np.ndarray],
    positions: np.ndarray,
    used: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, bool]:
    sets = find_weight_sets(attributes)
    if not sets:
        return np.zeros((len(positions), 0), np.int64), np.zeros((len(positions), 0)), False
    given = np.concatenate([read(f"JOINTS_{index}", "VEC4") for index in sets], axis=1)
    joints = _unsigned(faults.document, where, given, "joints")
    weights = np.concatenate([read(f"WEIGHTS_{index}", "VEC4") for index in sets], axis=1).astype(np.float64)
    return *clean_weights(faults, where, joints, weights, positions, used), bool((weights > 0).any())


def _read_morph_targets(faults: Faults, where: str, targets: list[dict[str, Any]], used: np.ndarray) -> np.ndarray:
    document, count = faults.document, len(used)
    if len(targets) * count > MAX_ELEMENTS:
        raise document.fail(
            f"{where} has {len(targets)} morph targets of {count} vertices, expected {MAX_ELEMENTS} in all"
        )
    offsets = np.zeros((len(targets), count, 3))
    for index, target in enumerate(targets):
        if "POSITION" in target:  # a target may change normals alone, which are recomputed here
            values = read_accessor(document, target["POSITION"], kind="VEC3", finite=False)
            if len(values) != count:
                raise document.fail(f"{where}.targets[{index}] has {len(values)} positions for {count} vertices")
            name = f"{where}.targets[{index}]"
            offsets[index] = clean_rows(faults, name, "offset", values, used, default=0, remedy="it is 0")
    return offsets


def _group_normals(positions: np.ndarray, normals: np.ndarray | None) -> np.ndarray:
    """Groups [p] of vertices that share a normal: those at one place with one normal, split only for their texture.

    Without normals each vertex is its own group: flat faces where faces share no vertices (what glTF asks for), smooth
    ones where they do.
    """
    if normals is None:
        return np.arange(len(positions))
    keys = np.concatenate([positions, np.nan_to_num(normals, nan=0.0, posinf=0.0, neginf=0.0)], axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def _packed_by(primitive: dict[str, Any]) -> str:
    """What may hold the data that is missed, for a message."""
    names = ", ".join(map(str, primitive.get("extensions", {})))
    return f"; the extensions {names} may hold it, which are not supported: export without them" if names else ""


def _read_texcoords(
    info: dict[str, Any] | None, attributes: dict[str, Any], read: Callable[..., np.ndarray], count: int
) -> np.ndarray:
    """Coordinates for one texture of the primitive's material, KHR_texture_transform applied; 0 without any."""
    if info is None:
        return np.zeros((count, 2))
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    name = f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}"
    if name not in attributes:
        return np.zeros((count, 2))
    return transform_texcoords(read(name, 0, "it is 0", "VEC2").astype(np.float64), transform)


def merge_geometries(document: Document, geometries: Sequence[Geometry]) -> Mesh:
    """Joins primitives into one mesh, vertices in the order given, and reads the materials that they use."""
    used = sorted({geometry.material for geometry in geometries})
    textures: dict[int, Texture] = {}
    starts = np.cumsum([0] + [len(geometry.positions) for geometry in geometries])
    groups, triangles, materials = [], [], []
    num_groups = 0
    for start, geometry in zip(starts, geometries):
        groups.append(geometry.smooth_groups + num_groups)
        num_groups += int(geometry.smooth_groups.max(initial=-1)) + 1
        triangles.append(geometry.triangles + start)
        materials.append(np.full(len(geometry.triangles), used.index(geometry.material), np.int32))
    return Mesh(
        triangles=np.concatenate(triangles).astype(np.int32),
        triangle_materials=np.concatenate(materials),
        materials=tuple(read_material(document, index, textures) for index in used),
        texcoords=np.concatenate([geometry.texcoords for geometry in geometries]),
        colors=np.concatenate([geometry.colors for geometry in geometries]),
        emissive_texcoords=np.concatenate([geometry.emissive_texcoords for geometry in geometries]),
        smooth_groups=np.concatenate(groups).astype(np.int32),
    )
