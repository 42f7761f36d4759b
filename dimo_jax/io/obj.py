"""Wavefront OBJ with its materials (.mtl): what artists' programs and shape collections write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import to_text
from dimo_jax.io.gltf.uris import find_file
from dimo_jax.io.pictures import read_image
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.meshes.renderer import Material, Mesh
from dimo_jax.meshes.textures import Texture, decode_srgb, make_texture


@dataclass
class _Rows:
    """What the lines of a file hold; indices count from 0."""

    places: list[list[float]] = field(default_factory=list)  # xyz, or xyz and rgb
    texcoords: list[list[float]] = field(default_factory=list)
    corners: list[tuple[int, int]] = field(default_factory=list)  # (place, texture coordinate or -1)
    triangles: list[tuple[int, int, int]] = field(default_factory=list)  # into `corners`
    nodes: list[int] = field(default_factory=list)
    materials: list[int] = field(default_factory=list)
    node_names: list[str] = field(default_factory=list)
    material_names: list[str] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)


def read_obj(path: Path) -> ObjectMesh:
    """Reads an OBJ file: objects or groups as nodes, polygons as fans, materials with colour and texture.

    Colours of materials and vertices are taken as sRGB, as programs write them.

    Raises:
      UserError: a malformed line, an index out of range, a material library or texture that is not in its folder.
    """
    rows = _read_rows(path)
    if not rows.triangles:
        raise UserError(f"{path}: has no faces, expected a surface")
    known: dict[str, Material] = {}
    for name in rows.libraries:
        known |= _read_materials(find_file(path, name))
    places = _padded(rows.places, path)
    corners = np.array(rows.corners)
    texcoords = np.concatenate([np.array(rows.texcoords).reshape(-1, 2), np.zeros((1, 2))])[corners[:, 1]]
    colors = np.ones((len(corners), 4))
    colors[:, :3] = places[corners[:, 0], 3:]
    mesh = Mesh(
        triangles=np.array(rows.triangles, np.int32),
        triangle_materials=np.array(rows.materials, np.int32),
        materials=tuple(known.get(name) or Material(np.ones(4), name=name) for name in rows.material_names),
        texcoords=np.stack([texcoords[:, 0], 1 - texcoords[:, 1]], axis=1),  # v rises in OBJ
        colors=colors,
        smooth_groups=np.arange(len(corners), dtype=np.int32),
    )
    lost = [name for name in rows.material_names if name and name not in known]
    return ObjectMesh(
        vertices=places[corners[:, 0], :3],
        mesh=mesh,
        triangle_nodes=np.array(rows.nodes, np.int32),
        node_names=tuple(rows.node_names),
        node_parents=(-1,) * len(rows.node_names),
        path=path,
        notes=(f"materials that no library describes are white: {', '.join(lost)}",) if lost else (),
    )


def _padded(places: list[list[float]], path: Path) -> np.ndarray:
    """[P,6] xyz and linear rgb; white where a line gives no colour."""
    table = np.array([each if len(each) == 6 else [*each[:3], 1.0, 1.0, 1.0] for each in places])
    table[:, 3:] = decode_srgb(np.clip(table[:, 3:], 0, 1))
    return table


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines as words; comments are dropped and lines that end in a backslash are joined."""
    held = ""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            text = held + line.split("#", 1)[0].rstrip()
            held = text[:-1] + " " if text.endswith("\\") else ""
            if not held and (words := text.split()):
                yield number, words


def _read_rows(path: Path) -> _Rows:
    rows = _Rows()
    index: dict[tuple[int, int], int] = {}
    node, material = "", ""
    has_objects = False
    number = 0
    try:
        for number, words in _lines(path):  # noqa: B007 (the error names it)
            key, rest = words[0], words[1:]
            if key == "v":
                rows.places.append([float(each) for each in rest[: 6 if len(rest) >= 6 else 3]])
                if len(rows.places[-1]) not in (3, 6):
                    raise ValueError("a vertex needs three numbers")
            elif key == "vt":
                rows.texcoords.append([float(rest[0]), float(rest[1]) if len(rest) > 1 else 0.0])
            elif key == "f":
                _add_face(rows, index, [_corner(rows, each) for each in rest], node, material)
            elif key == "o":
                node, has_objects = to_text(" ".join(rest)), True
            elif key == "g" and not has_objects:
                node = to_text(" ".join(rest))
            elif key == "usemtl":
                material = to_text(" ".join(rest))
            elif key == "mtllib":
                rows.libraries.append(" ".join(rest))
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: line {number} is malformed ({error}), expected Wavefront OBJ") from None
    return rows


def _corner(rows: _Rows, text: str) -> tuple[int, int]:
    """(place, texture coordinate or -1) of "7", "7/3", "7//2" or "7/3/2"; negative numbers count from the end."""
    parts = text.split("/")

    def resolve(part: str, count: int) -> int:
        value = int(part)
        value = value - 1 if value > 0 else count + value
        if not 0 <= value < count:
            raise ValueError(f"index {part} of {count}")
        return value

    place = resolve(parts[0], len(rows.places))
    return place, resolve(parts[1], len(rows.texcoords)) if len(parts) > 1 and parts[1] else -1


def _add_face(
    rows: _Rows, index: dict[tuple[int, int], int], corners: list[tuple[int, int]], node: str, material: str
) -> None:
    if len(corners) < 3:
        raise ValueError("a face needs three corners")
    numbers = []
    for corner in corners:
        if corner not in index:
            index[corner] = len(rows.corners)
            rows.corners.append(corner)
        numbers.append(index[corner])
    for second, third in itertools.pairwise(numbers[1:]):
        rows.triangles.append((numbers[0], second, third))
        rows.nodes.append(_number_of(rows.node_names, node))
        rows.materials.append(_number_of(rows.material_names, material))


def _number_of(names: list[str], name: str) -> int:
    if names and names[-1] == name:
        return len(names) - 1
    if name not in names:
        names.append(name)
    return names.index(name)


def _read_materials(path: Path) -> dict[str, Material]:
    """Diffuse colour, opacity and diffuse texture of the materials of a library."""
    found: dict[str, Material] = {}
    name, number = "", 0
    colors: dict[str, np.ndarray] = {}
    textures: dict[str, Texture] = {}
    try:
        for number, (key, *rest) in _lines(path):  # noqa: B007
            if key == "newmtl":
                name = to_text(" ".join(rest))
                colors[name] = np.ones(4)
            elif key == "Kd" and name:
                colors[name][:3] = decode_srgb(np.clip([float(each) for each in rest[:3]], 0, 1))
            elif key in ("d", "Tr") and name:
                value = float(rest[-1])
                colors[name][3] = value if key == "d" else 1 - value
            elif key == "map_Kd" and name:
                textures[name] = _read_texture(path, rest)
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: line {number} is malformed ({error}), expected a material library") from None
    for name, color in colors.items():
        if name in textures:
            color = np.array([1.0, 1.0, 1.0, color[3]])  # most programs ignore Kd beside a texture
        found[name] = Material(color, textures.get(name), blend=color[3] < 1, name=name)
    return found


def _read_texture(path: Path, words: list[str]) -> Texture:
    """The picture of a map_Kd line; options such as `-s 1 1 1` before the name are skipped."""
    skip = 0
    while skip < len(words) - 1 and words[skip].startswith("-"):
        skip += 1
        while skip < len(words) - 1 and (words[skip] in ("on", "off") or _is_number(words[skip])):
            skip += 1
    picture = read_image(find_file(path, " ".join(words[skip:])))
    if picture.shape[-1] == 3:
        picture = np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=-1)
    return make_texture(picture, mipmaps=True)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
