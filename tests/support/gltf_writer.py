"""Builds small glTF files by hand, for tests: struct and json, nothing of the reader under test."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

COMPONENTS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
TWO_TRIANGLES = np.array([0, 1, 2, 0, 2, 3], np.uint16)


class Writer:
    """Collects a glTF file; every method returns the index of what it added."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "buffers": [{"byteLength": 0}]}

    def add(self, key: str, entry: dict[str, Any]) -> int:
        self.json.setdefault(key, []).append(entry)
        return len(self.json[key]) - 1

    def view(self, data: bytes, **fields: Any) -> int:
        self.binary.extend(b"\0" * (-len(self.binary) % 4))
        start = len(self.binary)
        self.binary.extend(data)
        return self.add("bufferViews", {"buffer": 0, "byteOffset": start, "byteLength": len(data), **fields})

    def accessor(self, values: np.ndarray, **fields: Any) -> int:
        entry = {
            "bufferView": self.view(np.ascontiguousarray(values).tobytes()),
            "componentType": COMPONENTS[values.dtype.name],
            "count": len(values),
            "type": TYPES[values.shape[1:]],
            **fields,
        }
        return self.add("accessors", entry)

    def clip(self, name: str, node: int, path: str, times: list[float], values: np.ndarray, **sampler: Any) -> int:
        keys = self.accessor(np.array(times, np.float32))
        output = self.accessor(np.asarray(values, np.float32))
        return self.add(
            "animations",
            {
                "name": name,
                "samplers": [{"input": keys, "output": output, **sampler}],
                "channels": [{"sampler": 0, "target": {"node": node, "path": path}}],
            },
        )

    def square(self, *, extra: dict[str, int] | None = None, **primitive: Any) -> int:
        """A mesh of one square in the plane z = 0, from -1 to 1."""
        attributes = {"POSITION": self.accessor(SQUARE), **(extra or {})}
        entry = {"attributes": attributes, "indices": self.accessor(TWO_TRIANGLES), **primitive}
        return self.add("meshes", {"primitives": [entry]})

    def glb(self) -> bytes:
        buffer = self.json["buffers"][0]
        buffer["byteLength"] = buffer["byteLength"] or len(self.binary)  # a test may have set a wrong one
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self.binary) + b"\0" * (-len(self.binary) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def write(self, path: Path) -> Path:
        """Writes a .glb, or a .gltf whose buffer is a data URI."""
        if path.suffix == ".glb":
            path.write_bytes(self.glb())
            return path
        payload = base64.b64encode(bytes(self.binary)).decode()
        uri = "data:application/octet-stream;base64," + payload
        self.json["buffers"] = [{"byteLength": len(self.binary), "uri": uri}]
        path.write_text(json.dumps(self.json))
        return path


def moving_square(name: str = "Walk", *, double_sided: bool = False) -> Writer:
    """A square that a clip of one second moves by 1 along x."""
    writer = Writer()
    material = {"material": writer.add("materials", {"doubleSided": True})} if double_sided else {}
    writer.add("nodes", {"name": "square", "mesh": writer.square(**material)})
    writer.add("scenes", {"nodes": [0]})
    writer.clip(name, 0, "translation", [0.0, 1.0], np.array([[0, 0, 0], [1, 0, 0]]))
    return writer
