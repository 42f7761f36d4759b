"""Copies of rigged files with skin weights that are no numbers, as some programs write them."""

import json
import struct

import numpy as np

from dimo_jax.io.gltf.document import open_document


def spoil_weights(path, rows, target):
    """Writes a copy of a file in which vertices `rows` of its first primitive have NaN weights, the last only such.

    Returns the places of all bytes of these weights, and of the last vertex' joints.
    """
    document = open_document(path)
    attributes = document.json["meshes"][0]["primitives"][0]["attributes"]
    places, spoilt = [], []
    for name, size, chosen in (("WEIGHTS_0", 16, rows), ("JOINTS_0", 4, rows[-1:])):
        accessor = document.json["accessors"][attributes[name]]
        view = document.json["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        size *= 2 if accessor["componentType"] == 5123 else 1
        firsts = [start + row * (view.get("byteStride") or size) for row in chosen]
        places += [first + byte for first in firsts for byte in range(size)]
        spoilt += [first for first in firsts if name == "WEIGHTS_0"]
    spoilt += [spoilt[-1] + 4 * slot for slot in (1, 2, 3)]
    shift = path.read_bytes().index(b"BIN\0") + 4 if path.suffix == ".glb" else 0
    body = bytearray(path.read_bytes() if shift else document.buffers[0])
    for place in spoilt:
        body[shift + place : shift + place + 4] = struct.pack("<f", np.nan)
    (target if shift else target.with_suffix(".bin")).write_bytes(body)
    if not shift:
        document.json["buffers"][0]["uri"] = target.with_suffix(".bin").name
        target.write_text(json.dumps(document.json))
    return places
