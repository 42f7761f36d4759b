"""The drawn part of a glTF file: primitives, morph targets, skin weights, materials and their textures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimo_jax.data.gltf_document import MAX_ELEMENTS, Document, read_accessor, read_image
from dimo_jax.data.gltf_faults import Faults, clean_positions, clean_rows, clean_weights, find_used
from dimo_jax.data.mesh import Material, Mesh
from dimo_jax.data.textures import CLAMP, MIRROR, REPEAT, Texture, make_texture

_WRAPS: dict[Any, str] = {10497: REPEAT, 33071: CLAMP, 33648: MIRROR}
_NEAREST, _LINEAR = 9728, 9729  # filters; as minFilter, those without mipmaps
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


@dataclass(frozen=True)
class Geometry:
    """One primitive as it stands in the file."""

    positions: np.ndarray  # [p,3] float64
    triangles: np.ndarray  # [f,3]
    texcoords: np.ndarray  # [p,2] of its material's texture
    colors: np.ndarray  # [p,4] linear RGBA
    smooth_groups: np.ndarray  # [p]
    joints: np.ndarray  # [p,S] int64, S is 0 without skin attributes
    weights: np.ndarray  # [p,S] float64, sum 1
    morph_targets: np.ndarray  # [targets,p,3] offsets
    material: int  # -1: the default material


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
        given = read_clean("COLOR_0", 1, "it is white")
        colors[:, : given.shape[1]] = given
    joints, weights = _read_skinning(faults, where, attributes, read, positions, used)
    return Geometry(
        positions=positions,
        triangles=triangles,
        texcoords=_read_texcoords(document, primitive, attributes, read_clean, count),
        colors=colors,
        smooth_groups=_group_normals(positions, read("NORMAL", "VEC3") if "NORMAL" in attributes else None),
        joints=joints,
        weights=weights,
        morph_targets=_read_morph_targets(faults, where, primitive.get("targets", []), used),
        material=primitive.get("material", -1),
    )


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


def _read_skinning(
    faults: Faults,
    where: str,
    attributes: dict[str, Any],
    read: Callable[..., np.ndarray],
    positions: np.ndarray,
    used: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    sets = [index for index in range(8) if f"JOINTS_{index}" in attributes and f"WEIGHTS_{index}" in attributes]
    if not sets:
        return np.zeros((len(positions), 0), np.int64), np.zeros((len(positions), 0))
    given = np.concatenate([read(f"JOINTS_{index}", "VEC4") for index in sets], axis=1)
    joints = _unsigned(faults.document, where, given, "joints")
    weights = np.concatenate([read(f"WEIGHTS_{index}", "VEC4") for index in sets], axis=1).astype(np.float64)
    return clean_weights(faults, where, joints, weights, positions, used)


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


def _read_texcoords(
    document: Document,
    primitive: dict[str, Any],
    attributes: dict[str, Any],
    read: Callable[..., np.ndarray],
    count: int,
) -> np.ndarray:
    """Coordinates for the base colour texture of the primitive's material, KHR_texture_transform applied."""
    if primitive.get("material") is None:
        return np.zeros((count, 2))
    material = document.entry("materials", primitive["material"])
    info = _read_surface(material)[1]
    if info is None:
        return np.zeros((count, 2))
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    name = f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}"
    if name not in attributes:
        return np.zeros((count, 2))
    coordinates = read(name, 0, "it is 0", "VEC2").astype(np.float64) * np.asarray(
        transform.get("scale", [1, 1]), np.float64
    )
    cosine, sine = np.cos(transform.get("rotation", 0.0)), np.sin(transform.get("rotation", 0.0))
    turned = coordinates @ np.array([[cosine, -sine], [sine, cosine]])
    return turned + np.asarray(transform.get("offset", [0, 0]), np.float64)


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
        materials=tuple(_read_material(document, index, textures) for index in used),
        texcoords=np.concatenate([geometry.texcoords for geometry in geometries]),
        colors=np.concatenate([geometry.colors for geometry in geometries]),
        smooth_groups=np.concatenate(groups).astype(np.int32),
    )


def _read_material(document: Document, index: int, textures: dict[int, Texture]) -> Material:
    """A material's base colour and alpha mode; textures read before are shared."""
    if index < 0:
        return Material(np.ones(4))
    entry = document.entry("materials", index)
    factor, info = _read_surface(entry)
    color = np.asarray(factor, np.float64)
    if color.shape != (4,) or not np.isfinite(color).all():
        raise document.fail(f"materials[{index}] has the colour {str(factor)[:80]}, expected four finite numbers")
    texture = None
    if info is not None:
        number: Any = info.get("index")
        if number not in textures:
            textures[number] = _read_texture(document, number)
        texture = textures[number]
    mode = entry.get("alphaMode", "OPAQUE")
    cutoff = float(entry.get("alphaCutoff", 0.5)) if mode == "MASK" else 0.0
    unlit = "KHR_materials_unlit" in entry.get("extensions", {})
    return Material(color, texture, cutoff=cutoff, blend=mode == "BLEND", unlit=unlit)


def _read_surface(material: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """A material's colour factor and colour texture, of the older specular-glossiness model where the file has that."""
    older = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if older is not None:
        return older.get("diffuseFactor", [1, 1, 1, 1]), older.get("diffuseTexture")
    surface = material.get("pbrMetallicRoughness", {})
    return surface.get("baseColorFactor", [1, 1, 1, 1]), surface.get("baseColorTexture")


def _read_texture(document: Document, index: Any) -> Texture:
    entry = document.entry("textures", index)
    sampler = document.entry("samplers", entry["sampler"]) if "sampler" in entry else {}
    wrap = (_WRAPS.get(sampler.get("wrapS"), REPEAT), _WRAPS.get(sampler.get("wrapT"), REPEAT))
    extension = entry.get("extensions", {}).get("EXT_texture_webp", {})
    return make_texture(
        read_image(document, entry.get("source", extension.get("source"))),
        wrap=wrap,
        nearest=sampler.get("magFilter") == _NEAREST,
        mipmaps=sampler.get("minFilter") not in (_NEAREST, _LINEAR),
    )
