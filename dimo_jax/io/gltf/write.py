"""Writes binary glTF 2.0 files: JSON and one buffer, collected entry by entry.

Source: the Khronos glTF 2.0 specification, sections 3.6 (binary data) and 4 (GLB). Every accessor starts on four bytes,
and accessors of vertex data have views of their own, as validators and engines ask.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.runtime.files import replace_file

VERTICES, INDICES = 34962, 34963  # bufferView.target
POINTS, TRIANGLES = 0, 4  # primitive.mode
_COMPONENTS: dict[str, int] = {
    "int8": 5120,
    "uint8": 5121,
    "int16": 5122,
    "uint16": 5123,
    "uint32": 5125,
    "float32": 5126,
}
_TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}


class GlbBuilder:
    """Collects a glTF file; every method that adds something returns its index."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0", "generator": "dimo_jax"}}
        self._binary = bytearray()

    def add(self, key: str, entry: dict[str, Any]) -> int:
        """Appends an entry to the top-level array `key`."""
        self.json.setdefault(key, []).append(entry)
        return len(self.json[key]) - 1

    def use_extension(self, name: str, *, required: bool = False) -> None:
        """Lists an extension among those that the file uses, once."""
        for key in ("extensionsUsed", *(["extensionsRequired"] if required else [])):
            names = self.json.setdefault(key, [])
            if name not in names:
                names.append(name)

    def add_bytes(self, data: bytes, *, target: int | None = None) -> int:
        """A buffer view of its own for some bytes."""
        self._binary.extend(b"\0" * (-len(self._binary) % 4))
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self._binary.extend(data)
        return self.add("bufferViews", view)

    def add_array(
        self, values: np.ndarray, *, target: int | None = None, bounds: bool = False, normalized: bool = False
    ) -> int:
        """An accessor for an array.

        Args:
          values: [n], [n,2], [n,3], [n,4], or [n,4,4] rows x columns (stored by columns); of a type that glTF has, and
            an element's size a multiple of four bytes where it is vertex data.
          target: `VERTICES`, `INDICES` or None.
          bounds: writes min and max, which positions and key times must have.
          normalized: integers stand for 0..1 or -1..1.
        """
        return self.add_arrays(np.asarray(values)[None], target=target, bounds=bounds, normalized=normalized)[0]

    def add_arrays(
        self, stack: np.ndarray, *, target: int | None = None, bounds: bool = False, normalized: bool = False
    ) -> list[int]:
        """One accessor for each array of a stack [S,n,...], all in one buffer view; arguments as in `add_array`."""
        stack = np.asarray(stack)
        kind, component = _TYPES[stack.shape[2:]], _COMPONENTS[stack.dtype.name]
        stored = np.ascontiguousarray(stack.swapaxes(-1, -2) if kind == "MAT4" else stack)
        view = self.add_bytes(stored.astype(stored.dtype.newbyteorder("<")).tobytes(), target=target)
        accessors = []
        for index, values in enumerate(stored):
            entry: dict[str, Any] = {
                "bufferView": view,
                "byteOffset": index * values.nbytes,
                "componentType": component,
                "count": len(values),
                "type": kind,
            }
            if normalized:
                entry["normalized"] = True
            if bounds:
                flat = values.reshape(len(values), -1)
                entry["min"], entry["max"] = flat.min(axis=0).tolist(), flat.max(axis=0).tolist()
            accessors.append(self.add("accessors", entry))
        return accessors

    def to_bytes(self) -> bytes:
        """The file."""
        content = self.json | ({"buffers": [{"byteLength": len(self._binary)}]} if self._binary else {})
        text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self._binary) + b"\0" * (-len(self._binary) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        if binary:
            chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def write(self, path: Path | str) -> Path:
        """Writes the file, atomically. Returns `path`."""
        data = self.to_bytes()
        with replace_file(path) as temporary:
            temporary.write_bytes(data)
        return Path(path)
