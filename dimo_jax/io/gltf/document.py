"""The container of a glTF 2.0 file: JSON, buffers and accessors, every range checked before it is used.

Source: the Khronos glTF 2.0 specification, sections 3.6 (binary data) and 4 (GLB). A file may refer to other files of
its own folder and to nothing else; nothing here executes or trusts what the file says of sizes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import to_text
from dimo_jax.io.gltf.uris import find_file

MAX_FILE_BYTES = 2 << 30
MAX_ELEMENTS = 50_000_000  # of one accessor: without it, a sparse accessor of a tiny file could ask for any memory
FALLBACKS = ("EXT_meshopt_compression", "KHR_meshopt_compression")  # that may stand in for a buffer's data
MAX_MESSAGE = 1000  # characters

GLB_MAGIC = b"glTF"
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
_ARRAYS = (
    *("accessors", "animations", "bufferViews", "buffers", "images", "materials", "meshes", "nodes", "samplers"),
    *("scenes", "skins", "textures"),
)
COMPONENTS: dict[Any, Any] = {
    5120: np.int8,
    5121: np.uint8,
    5122: np.int16,
    5123: np.uint16,
    5125: np.uint32,
    5126: np.float32,
}
_SHAPES = {"SCALAR": (), "VEC2": (2,), "VEC3": (3,), "VEC4": (4,), "MAT2": (2, 2), "MAT3": (3, 3), "MAT4": (4, 4)}


@dataclass(frozen=True)
class Document:
    """An opened glTF file: its JSON and its binary buffers."""

    path: Path
    json: dict[str, Any]
    buffers: tuple[bytes, ...]

    def fail(self, message: str) -> UserError:
        """The error to raise about this file: one line that begins with its name, whatever of the file it quotes."""
        text = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} ..."
        return UserError(f"{self.path}: {text}")

    def digest(self) -> str:
        """A hash of the JSON and the buffers; images in files of their own are left out."""
        content = hashlib.sha256(json.dumps(self.json).encode())
        for buffer in self.buffers:
            content.update(buffer)
        return content.hexdigest()

    def entries(self, key: str) -> list[dict[str, Any]]:
        """The top-level array `key`; empty where the file has none."""
        return self.json.get(key, [])

    def entry(self, key: str, index: Any) -> dict[str, Any]:
        """Element `index` of the top-level array `key`, the index checked."""
        entries = self.entries(key)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(entries):
            raise self.fail(f"refers to {key}[{index!r}], expected an index below {len(entries)}")
        return entries[index]


def open_document(path: str | Path) -> Document:
    """Opens a .glb or .gltf file, told apart by content, and loads its buffers.

    Raises:
      UserError: the file is missing, too large, truncated, not glTF 2.0, or refers outside its own folder.
    """
    path = Path(path)
    if not path.is_file():
        found = "found a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {found}, expected a .glb or .gltf model")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_FILE_BYTES}")
    data = _read(path, path)
    if not data:
        raise UserError(f"{path}: an empty file, expected a .glb or .gltf model")
    text, binary = _split_glb(path, data) if data[:4] == GLB_MAGIC else (data, None)
    try:
        content = _whole_characters(json.loads(text.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a glTF file: no readable JSON ({error.__class__.__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get("asset"), dict):
        raise UserError(f"{path}: not a glTF file: its JSON has no 'asset'")
    version = str(content["asset"].get("version"))
    if not version.startswith("2."):
        raise UserError(f"{path}: found glTF version {version[:40]!r}, expected 2.0")
    for key in _ARRAYS:
        found = content.get(key, [])
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise UserError(f"{path}: {key!r} is not an array of objects, as glTF 2.0 expects")
    header = Document(path, content, ())
    entries = header.entries("buffers")
    return Document(path, content, tuple(_load_buffer(header, i, entry, binary) for i, entry in enumerate(entries)))


def _whole_characters(value: Any) -> Any:
    """What JSON says without halves of characters, which it may escape and no file or terminal takes."""
    if isinstance(value, str):
        return to_text(value)
    if isinstance(value, list):
        return [_whole_characters(each) for each in value]
    if isinstance(value, dict):
        return {to_text(key): _whole_characters(each) for key, each in value.items()}
    return value


def _split_glb(path: Path, data: bytes) -> tuple[bytes, bytes | None]:
    """The JSON and the binary chunk of a GLB (specification 4.4)."""
    if len(data) < 20:
        raise UserError(f"{path}: truncated GLB: {len(data)} bytes, expected at least 20")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise UserError(f"{path}: found GLB version {version}, expected 2")
    if length > len(data):
        raise UserError(f"{path}: truncated GLB: {len(data)} bytes, expected {length} as its header says")
    chunks: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        offset += 8
        if offset + size > length:
            raise UserError(f"{path}: truncated GLB: a chunk of {size} bytes where {length - offset} are left")
        chunks.setdefault(kind, data[offset : offset + size])
        offset += size
    if _JSON_CHUNK not in chunks:
        raise UserError(f"{path}: malformed GLB: no JSON chunk")
    return chunks[_JSON_CHUNK], chunks.get(_BINARY_CHUNK)


def _load_buffer(document: Document, index: int, entry: dict[str, Any], binary: bytes | None) -> bytes:
    size = entry.get("byteLength")
    if not isinstance(size, int) or size < 0:
        raise document.fail(f"buffers[{index}].byteLength is {size!r}, expected a positive integer")
    extensions = entry.get("extensions")
    named = [extensions[name] for name in FALLBACKS if name in extensions] if isinstance(extensions, dict) else []
    if any(isinstance(extension, dict) and extension.get("fallback") for extension in named):
        return b""  # for readers that cannot decode the views of it; the file need not hold it
    if "uri" in entry:
        data = load_uri(document, entry["uri"])
    elif index == 0 and binary is not None:
        data = binary
    else:
        raise document.fail(f"buffers[{index}] has neither a 'uri' nor a binary chunk")
    if len(data) < size:
        raise document.fail(f"buffers[{index}] holds {len(data)} bytes, expected {size}")
    return data[:size]


def load_uri(document: Document, uri: Any) -> bytes:
    """A base64 data URI, or a file of the model's own folder."""
    if not isinstance(uri, str):
        raise document.fail(f"found the uri {uri!r}, expected a string")
    if uri.startswith("data:"):
        header, _, payload = uri.partition(",")
        if not header.endswith(";base64"):
            raise document.fail(f"found a data URI that begins with {header[:40]!r}, expected base64")
        try:
            return base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise document.fail(f"a data URI is not valid base64 ({error})") from error
    target = find_file(document.path, uri)
    if target.stat().st_size > MAX_FILE_BYTES:
        raise document.fail(
            f"refers to {uri[:80]!r} of {target.stat().st_size} bytes, expected {MAX_FILE_BYTES} at most"
        )
    return _read(document.path, target)


def _read(path: Path, target: Path) -> bytes:
    """The bytes of a file that the model at `path` refers to, or is."""
    try:
        return target.read_bytes()
    except OSError as error:
        of = "" if target == path else f"{path}: refers to "
        raise UserError(f"{of}{target}: cannot be read ({error.strerror or error})") from error


def read_view(document: Document, index: Any) -> tuple[bytes, int]:
    """The bytes of a buffer view and its stride (0: tightly packed)."""
    view = document.entry("bufferViews", index)
    data = span(document, f"bufferViews[{index}]", view)
    stride = view.get("byteStride", 0)
    if not isinstance(stride, int) or stride < 0:
        raise document.fail(f"bufferViews[{index}] has stride {stride!r}")
    return data, stride


def span(document: Document, where: str, entry: dict[str, Any]) -> bytes:
    """The bytes of a buffer that `entry` names by `buffer`, `byteOffset` and `byteLength`."""
    document.entry("buffers", entry.get("buffer"))
    buffer = document.buffers[entry["buffer"]]
    start, size = entry.get("byteOffset", 0), entry.get("byteLength")
    if not isinstance(start, int) or not isinstance(size, int) or start < 0 or size < 0:
        raise document.fail(f"{where} has offset {start!r} and length {size!r}")
    if start + size > len(buffer):
        raise document.fail(f"{where} spans bytes {start}..{start + size}, out of its buffer of {len(buffer)}")
    return buffer[start : start + size]


def _gather(document: Document, where: str, spec: dict[str, Any], dtype: Any, width: int, count: int) -> np.ndarray:
    """`count` elements of `width` numbers each from a buffer view -> [count, width]."""
    dtype = np.dtype(dtype)
    data, stride = read_view(document, spec["bufferView"])
    offset = spec.get("byteOffset", 0)
    size = width * dtype.itemsize
    stride = stride or size
    if not isinstance(offset, int) or offset < 0 or stride < size:
        raise document.fail(f"{where} has offset {offset!r} and stride {stride}, expected a stride of {size} or more")
    end = offset + (count - 1) * stride + size if count else 0
    if end > len(data):
        raise document.fail(f"{where} reads up to byte {end}, out of its buffer view of {len(data)}")
    raw = np.frombuffer(data, np.uint8)
    window = np.lib.stride_tricks.as_strided(raw[offset:], (count, size), (stride, 1)) if count else raw[:0]
    return np.ascontiguousarray(window).view(dtype.newbyteorder("<")).reshape(count, width)


def read_accessor(document: Document, index: Any, *, kind: str | None = None, finite: bool = True) -> np.ndarray:
    """Reads an accessor: strided or packed, sparse or not.

    Args:
      document: the opened file.
      index: the accessor's index.
      kind: the element type that is expected ("SCALAR", "VEC3", "MAT4", ...); None takes any.
      finite: whether NaN and infinite numbers are an error; else they are the caller's to judge.

    Returns:
      An array [count, ...] of the file's own component type; normalized integers come as float32 in -1..1 or 0..1, and
      matrices as rows x columns (glTF stores columns).

    Raises:
      UserError: the accessor reaches out of its buffer, is of another type, or has NaN or infinite numbers.
    """
    accessor = document.entry("accessors", index)
    where = f"accessors[{index}]"
    count, dtype, shape = accessor.get("count"), COMPONENTS.get(accessor.get("componentType")), accessor.get("type")
    if dtype is None or shape not in _SHAPES:
        raise document.fail(f"{where} has component type {accessor.get('componentType')!r} and type {shape!r}")
    if kind is not None and shape != kind:
        raise document.fail(f"{where} is a {shape}, expected a {kind}")
    if not isinstance(count, int) or not 0 <= count <= MAX_ELEMENTS:
        raise document.fail(f"{where} has count {count!r}, expected 0..{MAX_ELEMENTS}")
    width = int(np.prod(_SHAPES[shape], dtype=np.int64))
    if shape.startswith("MAT") and np.dtype(dtype).itemsize < 4 and shape != "MAT4":
        raise document.fail(f"{where} is a {shape} of small integers, whose padded columns are not supported")
    if "bufferView" in accessor:
        values = _gather(document, where, accessor, dtype, width, count)
    else:
        values = np.zeros((count, width), dtype)
    if "sparse" in accessor:
        values = _apply_sparse(document, where, accessor["sparse"], values)
    if finite and values.dtype.kind == "f" and not np.isfinite(values).all():
        raise document.fail(f"{where} has NaN or infinite numbers, expected finite ones")
    if accessor.get("normalized") and values.dtype.kind != "f":
        values = np.maximum(values.astype(np.float32) / np.iinfo(values.dtype).max, np.float32(-1))
    values = values.reshape(count, *_SHAPES[shape])
    return values.swapaxes(1, 2) if shape.startswith("MAT") else values


def _apply_sparse(document: Document, where: str, sparse: dict[str, Any], values: np.ndarray) -> np.ndarray:
    count = sparse.get("count")
    index_type = COMPONENTS.get(sparse["indices"].get("componentType"))
    if (
        not isinstance(count, int)
        or not 0 <= count <= len(values)
        or index_type not in (np.uint8, np.uint16, np.uint32)
    ):
        raise document.fail(
            f"{where}.sparse has count {count!r}, expected unsigned indices and 0..{len(values)} of them"
        )
    indices = _gather(document, f"{where}.sparse.indices", sparse["indices"], index_type, 1, count)[:, 0]
    if count and int(indices.max()) >= len(values):
        raise document.fail(f"{where}.sparse refers to element {indices.max()} of {len(values)}")
    values = values.copy()
    values[indices] = _gather(
        document, f"{where}.sparse.values", sparse["values"], values.dtype, values.shape[1], count
    )
    return values
