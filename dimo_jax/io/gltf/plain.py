"""A glTF file as one without the extensions that only pack it differently, so that readers and exports need not know.

Compressed buffer views and primitives become plain ones (from the plain data, where a file that merely uses the
extension has both), each instance of EXT_mesh_gpu_instancing a child node, and a
pointer of KHR_animation_pointer to a node's own transform a plain channel. A file without these comes back as it is.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np

from dimo_jax.io.gltf.codecs import MAX_DECODED_BYTES, CodecError, decode_draco, decode_meshopt
from dimo_jax.io.gltf.document import COMPONENTS, MAX_ELEMENTS, Document, read_accessor, read_view, span
from dimo_jax.io.gltf.extensions import find_extensions

DRACO, INSTANCING, POINTER = "KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing", "KHR_animation_pointer"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
MAX_INSTANCES = 20_000
_POINTER = re.compile(r"/nodes/(\d{1,9})/(translation|rotation|scale|weights)")
_TRIANGLES, _STRIP = 4, 5
_UINT32 = 5125


def make_plain(document: Document) -> Document:
    """Undoes compression, instancing and animation pointers.

    Returns:
      A document whose nodes keep their indices; new ones come after them.

    Raises:
      UserError: compressed data that is damaged, larger than the file says, or that needs a package which is not
        installed; more than `MAX_INSTANCES` instances.
    """
    if not {DRACO, INSTANCING, POINTER, *MESHOPT} & set(find_extensions(document.json)):
        return document
    plain = replace(document, json=copy.deepcopy(document.json))
    plain = _unpack_primitives(_unpack_views(plain))
    _expand_pointers(plain)
    _expand_instances(plain)
    return plain


def _unpack_views(document: Document) -> Document:
    """Decodes the buffer views that meshopt has compressed, each into a buffer of its own."""
    buffers, total = list(document.buffers), 0
    for index, view in enumerate(document.entries("bufferViews")):
        extensions = view.get("extensions", {})
        packed = next((extensions[name] for name in MESHOPT if name in extensions), None)
        if packed is None:
            continue
        view["extensions"] = {name: content for name, content in extensions.items() if name not in MESHOPT}
        document.entry("buffers", view.get("buffer"))
        if not _is_required(document, *MESHOPT) and document.buffers[view["buffer"]]:
            continue  # the buffer holds the same without compression
        data = span(document, f"bufferViews[{index}]", packed)
        try:
            decoded = decode_meshopt(
                data,
                mode=packed.get("mode"),
                filtering=packed.get("filter", "NONE"),
                count=packed.get("count"),
                stride=packed.get("byteStride"),
            )
        except CodecError as error:
            raise document.fail(f"bufferViews[{index}] {error}") from error
        total += len(decoded)
        if total > MAX_DECODED_BYTES:
            raise document.fail(f"holds more than {MAX_DECODED_BYTES} bytes of compressed data, expected less")
        view |= {"buffer": len(buffers), "byteOffset": 0, "byteLength": len(decoded)}
        document.json["buffers"].append({"byteLength": len(decoded)})
        buffers.append(decoded)
    return replace(document, buffers=tuple(buffers))


def _unpack_primitives(document: Document) -> Document:
    """Decodes the primitives that Draco has compressed, and gives each accessors of its own."""
    buffers: list[bytes] = []
    start = len(document.buffers)
    for number, mesh in enumerate(document.entries("meshes")):
        for place, primitive in enumerate(mesh.get("primitives", [])):
            packed = primitive.get("extensions", {}).pop(DRACO, None)
            if packed is None or (not _is_required(document, DRACO) and _has_plain_data(document, primitive)):
                continue
            where = f"meshes[{number}].primitives[{place}]"
            try:
                buffers += _unpack_primitive(document, where, primitive, packed, start + len(buffers))
            except CodecError as error:
                raise document.fail(f"{where} {error} ({DRACO})") from error
            if sum(map(len, buffers)) > MAX_DECODED_BYTES:
                raise document.fail(f"holds more than {MAX_DECODED_BYTES} bytes of compressed data, expected less")
    return replace(document, buffers=(*document.buffers, *buffers))


def _is_required(document: Document, *names: str) -> bool:
    return bool(set(names) & set(document.json.get("extensionsRequired", [])))


def _has_plain_data(document: Document, primitive: dict[str, Any]) -> bool:
    """Whether a primitive can be read without what an extension holds: each of its accessors has data."""
    indices = [primitive["indices"]] if "indices" in primitive else []
    accessors = [document.entry("accessors", index) for index in (*primitive["attributes"].values(), *indices)]
    return all("bufferView" in accessor for accessor in accessors)


def _unpack_primitive(
    document: Document, where: str, primitive: dict[str, Any], packed: dict[str, Any], first: int
) -> list[bytes]:
    """Points a primitive at decoded data: its buffers, which are to come at index `first` and on."""
    attributes, names = primitive["attributes"], packed["attributes"]
    if primitive.get("mode", _TRIANGLES) not in (_TRIANGLES, _STRIP) or not set(names) <= set(attributes):
        raise CodecError(f"lists {sorted(set(names) - set(attributes))} beyond its own attributes, or is no triangles")
    counts = {document.entry("accessors", attributes[name]).get("count") for name in names}
    num_points = counts.pop() if len(counts) == 1 else None
    if not isinstance(num_points, int) or not 0 < num_points <= MAX_ELEMENTS:
        raise CodecError("has compressed attributes of no or of several lengths, expected one")
    corners = document.entry("accessors", primitive["indices"]).get("count") if "indices" in primitive else None
    strip = primitive.get("mode", _TRIANGLES) == _STRIP  # decoded as triangles, of which the file tells no number
    num_faces = corners // 3 if isinstance(corners, int) and not strip else None
    data = read_view(document, packed["bufferView"])[0]
    mesh = decode_draco(data, num_faces=num_faces, num_points=num_points)
    buffers: list[bytes] = []
    for name, identity in names.items():
        if identity not in mesh.attributes:
            raise CodecError(
                f"has no Draco attribute {identity!r} for {name}, expected one of {sorted(mesh.attributes)}"
            )
        accessor = dict(document.entry("accessors", attributes[name]))
        values = _as_component(mesh.attributes[identity], accessor, name)
        attributes[name] = _add_accessor(document, accessor, values, first + len(buffers))
        buffers.append(values.tobytes())
    corners_of = {"componentType": _UINT32, "count": mesh.triangles.size, "type": "SCALAR"}
    primitive["indices"] = _add_accessor(document, corners_of, mesh.triangles, first + len(buffers))
    primitive["mode"] = _TRIANGLES
    return [*buffers, mesh.triangles.astype("<u4").tobytes()]


def _as_component(values: np.ndarray, accessor: dict[str, Any], name: str) -> np.ndarray:
    """Decoded values in the component type of their accessor; the library gives integers as floats at times."""
    dtype = COMPONENTS.get(accessor.get("componentType"))
    if dtype is None:
        raise CodecError(f"has {name} of component type {accessor.get('componentType')!r}")
    if np.dtype(dtype).kind != "f":
        limits = np.iinfo(dtype)
        values = np.rint(np.clip(values, limits.min, limits.max))
    return np.ascontiguousarray(values.astype(np.dtype(dtype).newbyteorder("<")))


def _add_accessor(document: Document, accessor: dict[str, Any], values: np.ndarray, buffer: int) -> int:
    document.json["buffers"].append({"byteLength": values.nbytes})
    document.json.setdefault("bufferViews", []).append({"buffer": buffer, "byteOffset": 0, "byteLength": values.nbytes})
    entry = {key: value for key, value in accessor.items() if key not in ("sparse", "byteOffset")}
    document.json["accessors"].append(entry | {"bufferView": len(document.json["bufferViews"]) - 1})
    return len(document.json["accessors"]) - 1


def _expand_pointers(document: Document) -> None:
    """Turns pointers to a node's translation, rotation, scale or weights into plain channels."""
    for animation in document.entries("animations"):
        for channel in animation.get("channels", []):
            target = channel["target"]
            pointer = target.get("extensions", {}).get(POINTER, {}).get("pointer")
            found = _POINTER.fullmatch(pointer) if isinstance(pointer, str) else None
            if target.get("path") == "pointer" and found:
                channel["target"] = {"node": int(found[1]), "path": found[2]}


def _expand_instances(document: Document) -> None:
    """Gives a node with instances a child with its mesh for each of them."""
    total = 0
    nodes = document.entries("nodes")
    for index in range(len(nodes)):
        node = nodes[index]
        packed = node.get("extensions", {}).pop(INSTANCING, None)
        if packed is None or "mesh" not in node:
            continue
        if "skin" in node:
            raise document.fail(f"nodes[{index}] has both a skin and instances ({INSTANCING}), expected one of them")
        places = _read_instances(document, f"nodes[{index}]", packed.get("attributes", {}))
        count = len(next(iter(places.values()))) if places else 0
        total += count
        if total > MAX_INSTANCES:
            raise document.fail(f"has {total} instances or more ({INSTANCING}), expected {MAX_INSTANCES} at most")
        mesh, weights = node.pop("mesh"), node.pop("weights", None)
        name = node.get("name") or document.entry("meshes", mesh).get("name") or f"node_{index}"
        first = len(nodes)
        for number in range(count):
            child = {"name": name, "mesh": mesh} | {key: values[number].tolist() for key, values in places.items()}
            nodes.append(child | ({"weights": weights} if weights is not None else {}))
        node["children"] = [*node.get("children", []), *range(first, first + count)]
        _repeat_weights(document, index, range(first, first + count))


def _read_instances(document: Document, where: str, attributes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Where the instances of a node stand: translation [n,3], rotation [n,4] and scale [n,3], those that it gives."""
    kinds = {"TRANSLATION": "VEC3", "ROTATION": "VEC4", "SCALE": "VEC3"}
    places = {
        name.lower(): read_accessor(document, attributes[name], kind=kind).astype(np.float64)
        for name, kind in kinds.items()
        if name in attributes
    }
    if len({len(values) for values in places.values()}) > 1:
        counts = {name: len(values) for name, values in places.items()}
        raise document.fail(f"{where} has instances of different counts {counts} ({INSTANCING}), expected one")
    if not places and attributes:  # only attributes of the file's own, one value an instance
        count = document.entry("accessors", next(iter(attributes.values()))).get("count")
        if not isinstance(count, int) or not 0 <= count <= MAX_INSTANCES:
            raise document.fail(f"{where} has {count!r} instances ({INSTANCING}), expected 0..{MAX_INSTANCES}")
        places["translation"] = np.zeros((count, 3))
    return places


def _repeat_weights(document: Document, node: int, children: range) -> None:
    """Has clips that animate the morph weights of a node animate those of its instances."""
    for animation in document.entries("animations"):
        channels = animation.get("channels", [])
        of_node = [channel for channel in channels if channel["target"].get("node") == node]
        for channel in [channel for channel in of_node if channel["target"].get("path") == "weights"]:
            channels.remove(channel)
            channels += [channel | {"target": {"node": child, "path": "weights"}} for child in children]
