"""Meshes in PLY files, text or binary, with vertex colours: what scanners and generators write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.meshes.renderer import Material, Mesh
from dimo_jax.meshes.textures import decode_srgb

_SCALARS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_MAX_HEADER = 65536
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}

_Property = tuple[str, str, str]  # name, type, type of the count where it is a list


def read_mesh_ply(path: Path) -> ObjectMesh:
    """Reads the elements `vertex` (x, y, z, optional red, green, blue, alpha) and `face` (one list of indices).

    Raises:
      UserError: not PLY, cut short, without faces, or with an index out of range.
    """
    data = path.read_bytes()
    end = data.find(b"end_header", 0, _MAX_HEADER)
    if not data.startswith(b"ply") or end < 0:
        raise UserError(f"{path}: found no header of a PLY file, expected one")
    start = data.find(b"\n", end) + 1
    try:
        order, elements = _parse_header(data[:end].decode("latin-1"))
        read = _read_text if order == "" else _read_binary
        tables = read(data[start:], order, elements)
        if not len(tables.get("faces", ())):
            raise ValueError("no element face with a list of indices")
        return _assemble(path, tables["vertex"], tables["faces"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: malformed PLY ({' '.join(str(error).split())[:120]}), expected a mesh") from None


def _parse_header(text: str) -> tuple[str, list[tuple[str, int, list[_Property]]]]:
    order: str | None = None
    elements: list[tuple[str, int, list[_Property]]] = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"]:
            order = _ORDERS[words[1]]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            listed = words[1] == "list"
            entry = (words[-1], _SCALARS[words[-2]], _SCALARS[words[2]] if listed else "")
            elements[-1][2].append(entry)
    if order is None:
        raise ValueError("no format line")
    return order, elements


def _read_text(data: bytes, order: str, elements: list[tuple[str, int, list[_Property]]]) -> dict:
    values = np.array(data.split(), dtype=np.float64)
    tables: dict = {}
    at = 0
    for name, count, properties in elements:
        if not any(each[2] for each in properties):
            width = len(properties)
            block = values[at : at + count * width].reshape(count, width)
            at += count * width
            tables[name] = {each[0]: block[:, index] for index, each in enumerate(properties)}
            continue
        faces = []
        for _ in range(count):
            for listed in properties:
                size = int(values[at]) if listed[2] else 1
                at += bool(listed[2])
                if listed[2] and listed[0] in ("vertex_indices", "vertex_index"):
                    faces.append(_whole(values[at : at + size]))
                at += size
            if at > len(values):
                raise ValueError("cut short")
        tables["faces"] = faces
    return tables


def _read_binary(data: bytes, order: str, elements: list[tuple[str, int, list[_Property]]]) -> dict:
    tables: dict = {}
    at = 0
    for name, count, properties in elements:
        if not any(each[2] for each in properties):
            row = np.dtype([(each[0], order + each[1]) for each in properties])
            if at + count * row.itemsize > len(data):
                raise ValueError("cut short")
            block = np.frombuffer(data, row, count, at)
            at += count * row.itemsize
            tables[name] = {each[0]: block[each[0]].astype(np.float64) for each in properties}
        else:
            tables["faces"], at = _binary_faces(data, at, order, count, properties)
    return tables


def _binary_faces(
    data: bytes, at: int, order: str, count: int, properties: list[_Property]
) -> tuple[list[np.ndarray] | np.ndarray, int]:
    """Lists of indices; read as one block where all are triangles and nothing stands beside them."""
    if len(properties) == 1:
        name, kind, length = properties[0]
        row = np.dtype([("count", order + length), ("ids", order + kind, (3,))])
        if at + count * row.itemsize <= len(data):
            block = np.frombuffer(data, row, count, at)
            if (block["count"] == 3).all():
                return _whole(block["ids"]), at + count * row.itemsize
    faces = []
    for _ in range(count):
        for name, kind, length in properties:
            size = 1
            if length:
                size = int(np.frombuffer(data, order + length, 1, at)[0])
                at += np.dtype(length).itemsize
            ids = np.frombuffer(data, order + kind, size, at)
            at += size * np.dtype(kind).itemsize
            if length and name in ("vertex_indices", "vertex_index"):
                faces.append(_whole(ids))
    return faces, at


def _whole(values: np.ndarray) -> np.ndarray:
    """Indices as integers."""
    if not (np.abs(values.astype(np.float64)) < 1 << 40).all():
        raise ValueError("a vertex index that is no number")
    return values.astype(np.int64)


def _assemble(path: Path, vertex: dict[str, np.ndarray], faces: list[np.ndarray] | np.ndarray) -> ObjectMesh:
    places = np.stack([vertex[axis] for axis in "xyz"], axis=1)
    if isinstance(faces, np.ndarray):
        triangles = faces
    else:
        fans = [np.stack([np.repeat(f[:1], len(f) - 2), f[1:-1], f[2:]], axis=1) for f in faces if len(f) > 2]
        triangles = np.concatenate(fans) if fans else np.zeros((0, 3), np.int64)
    if len(triangles) and not (triangles.min() >= 0 and triangles.max() < len(places)):
        raise ValueError(f"a vertex index beyond {len(places) - 1}")
    colors = np.ones((len(places), 4))
    if "red" in vertex:
        names = [name for name in ("red", "green", "blue", "alpha") if name in vertex]
        given = np.stack([vertex[name] for name in names], axis=1)
        colors[:, : len(names)] = given / 255 if given.max(initial=0) > 1 else given
        colors[:, :3] = decode_srgb(colors[:, :3])
    mesh = Mesh(
        triangles=triangles.astype(np.int32),
        triangle_materials=np.zeros(len(triangles), np.int32),
        materials=(Material(np.ones(4)),),
        texcoords=np.zeros((len(places), 2)),
        colors=colors,
        smooth_groups=np.arange(len(places), dtype=np.int32),
    )
    return ObjectMesh(places, mesh, np.zeros(len(triangles), np.int32), (path.stem,), (-1,), path)
