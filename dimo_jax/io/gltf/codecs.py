"""Compressed meshes of glTF files, undone with the libraries made for them: DracoPy and meshoptimizer.

A few bytes may claim to hold any number of vertices, so what a stream's own header asks for is compared with what the
file says it holds before a library allocates it.

Sources: the Draco bitstream specification, sections 3-6; EXT_meshopt_compression and KHR_meshopt_compression.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

MAX_DECODED_BYTES = 1 << 28  # of all that one file has compressed
_MESH, _SEQUENTIAL, _EDGEBREAKER = 1, 0, 1
_METADATA_FLAG = 0x8000
_MAX_DEPTH = 16  # of metadata within metadata


class CodecError(ValueError):
    """Compressed data that cannot be undone; one line says why."""


@dataclass(frozen=True)
class DracoMesh:
    """A decoded Draco mesh."""

    triangles: np.ndarray  # [F,3] uint32
    attributes: dict[int, np.ndarray]  # unique id -> [P,C] in the type that the decoder gives


@dataclass(frozen=True)
class _Reader:
    """Bytes with a place in them."""

    data: bytes
    place: list[int]

    def byte(self) -> int:
        """The next byte."""
        if self.place[0] >= len(self.data):
            raise CodecError("the Draco stream ends in its header")
        self.place[0] += 1
        return self.data[self.place[0] - 1]

    def skip(self, count: int) -> None:
        """Leaves some bytes out."""
        self.place[0] += count

    def varint(self) -> int:
        """An unsigned integer of seven bits a byte, the least first."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise CodecError("the Draco stream has an integer of more than 32 bits in its header")


def read_draco_counts(data: bytes) -> tuple[int, int]:
    """Faces and points that a Draco mesh says it holds.

    Points of an edgebreaker mesh are those before attributes split them: a lower bound, as is 3 faces an upper one.

    Raises:
      CodecError: not a Draco mesh of bitstream version 2.2.
    """
    if data[:5] != b"DRACO":
        raise CodecError(f"holds no Draco data, found bytes that begin with {data[:5].hex(' ')}")
    reader = _Reader(data, [5])
    major, minor, kind, method = (reader.byte() for _ in range(4))
    flags = reader.byte() | reader.byte() << 8
    if (major, minor) != (2, 2) or kind != _MESH or method not in (_SEQUENTIAL, _EDGEBREAKER):
        raise CodecError(f"holds Draco data of version {major}.{minor}, kind {kind}, expected a mesh of version 2.2")
    if flags & _METADATA_FLAG:
        for _ in range(reader.varint()):
            reader.varint()
            _skip_metadata(reader, _MAX_DEPTH)
        _skip_metadata(reader, _MAX_DEPTH)
    if method == _SEQUENTIAL:
        faces = reader.varint()
        return faces, reader.varint()
    reader.byte()  # how symbols were traversed
    points = reader.varint()
    return reader.varint(), points


def _skip_metadata(reader: _Reader, depth: int) -> None:
    if depth == 0:
        raise CodecError(f"has Draco metadata nested deeper than {_MAX_DEPTH}")
    for _ in range(reader.varint()):
        reader.skip(reader.byte())
        reader.skip(reader.byte())
    for _ in range(reader.varint()):
        reader.skip(reader.byte())
        _skip_metadata(reader, depth - 1)


def decode_draco(data: bytes, *, num_faces: int | None, num_points: int) -> DracoMesh:
    """Decodes a Draco mesh.

    Args:
      data: the stream.
      num_faces: triangles that the file says it has; None where it does not say.
      num_points: vertices that the file says it has.

    Raises:
      CodecError: damaged data, other counts than these, or more than `MAX_DECODED_BYTES`.
    """
    faces, points = read_draco_counts(data)
    if (num_faces is not None and faces > num_faces) or points > num_points:
        raise CodecError(
            f"holds {faces} triangles and {points} vertices or more, expected {num_faces} and {num_points}"
        )
    if 12 * faces + 12 * points > MAX_DECODED_BYTES:
        raise CodecError(f"holds {faces} triangles and {points} vertices, more than {MAX_DECODED_BYTES} bytes")
    import DracoPy

    try:
        mesh = DracoPy.decode(data)
    except (DracoPy.FileTypeException, ValueError, TypeError, RuntimeError, IndexError, MemoryError) as error:
        raise CodecError(f"cannot be decoded by Draco ({' '.join(str(error).split())[:120]})") from error
    triangles = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), np.uint32).reshape(-1, 3)
    attributes = {int(entry["unique_id"]): np.asarray(entry["data"]) for entry in mesh.attributes}
    lengths = {len(values) for values in attributes.values()} | {num_points}
    if lengths != {num_points} or (num_faces is not None and len(triangles) != num_faces):
        raise CodecError(
            f"holds {len(triangles)} triangles and {sorted(lengths - {num_points})} vertices, "
            f"expected {num_faces} and {num_points}"
        )
    if len(triangles) and triangles.max() >= num_points:
        raise CodecError(f"holds the vertex index {triangles.max()}, expected one below {num_points}")
    return DracoMesh(triangles, attributes)


def load_meshoptimizer() -> ModuleType:
    """The library for meshopt.

    Raises:
      CodecError: it is not installed.
    """
    try:
        import meshoptimizer
    except (ImportError, OSError) as error:
        raise CodecError(
            "is compressed by meshopt, which needs the package meshoptimizer: pip install 'dimo_jax[gltf]' "
            "(and a C++ compiler), or undo the compression with `npx @gltf-transform/cli copy IN.glb OUT.glb`"
        ) from error
    return meshoptimizer


def decode_meshopt(data: bytes, *, mode: Any, filtering: Any, count: int, stride: int) -> bytes:
    """Decodes a buffer view of EXT_meshopt_compression -> `count` elements of `stride` bytes.

    Args:
      data: the compressed bytes.
      mode: "ATTRIBUTES", "TRIANGLES" or "INDICES".
      filtering: "NONE", "OCTAHEDRAL", "QUATERNION" or "EXPONENTIAL"; for attributes alone.
      count: elements.
      stride: bytes of an element: for attributes a multiple of four up to 256, for indices 2 or 4.

    Raises:
      CodecError: damaged data, an unknown mode or filter, or more than `MAX_DECODED_BYTES`.
    """
    _check_meshopt(mode, filtering, count, stride)
    library = load_meshoptimizer()
    if count == 0:
        return b""
    try:
        if mode != "ATTRIBUTES":
            decode = library.decode_index_buffer if mode == "TRIANGLES" else library.decode_index_sequence
            indices = np.asarray(decode(count, 4, data), np.uint32)
            if stride == 2 and indices.max() > 65535:
                raise CodecError(f"holds the vertex index {indices.max()}, expected 16 bits")
            return indices.astype("<u2" if stride == 2 else "<u4").tobytes()
        decoded = library.decode_vertex_buffer(count, stride, data, dtype=np.dtype((np.void, stride)))
        decoded = np.frombuffer(decoded.tobytes(), np.uint8)
    except CodecError:
        raise
    except (RuntimeError, ValueError, MemoryError) as error:
        raise CodecError(f"cannot be decoded by meshopt ({' '.join(str(error).split())[:120]})") from error
    filters = {
        "OCTAHEDRAL": library.decode_filter_oct,
        "QUATERNION": library.decode_filter_quat,
        "EXPONENTIAL": library.decode_filter_exp,
    }
    if filtering in filters:
        decoded = filters[filtering](decoded, count, stride)
    return decoded.tobytes()


def _check_meshopt(mode: Any, filtering: Any, count: Any, stride: Any) -> None:
    strides = {"ATTRIBUTES": range(4, 257, 4), "TRIANGLES": (2, 4), "INDICES": (2, 4)}
    filters = {"NONE": range(257), "OCTAHEDRAL": (4, 8), "QUATERNION": (8,), "EXPONENTIAL": range(4, 257, 4)}
    if mode not in strides or filtering not in filters or (mode != "ATTRIBUTES" and filtering != "NONE"):
        raise CodecError(f"has the meshopt mode {mode!r} with filter {filtering!r}, which is not supported")
    if isinstance(stride, bool) or stride not in strides[mode] or stride not in filters[filtering]:
        raise CodecError(f"has a meshopt stride of {stride!r} for {mode} with filter {filtering}")
    if not isinstance(count, int) or not 0 <= count <= MAX_DECODED_BYTES // stride:
        raise CodecError(f"has {count!r} meshopt elements, expected 0..{MAX_DECODED_BYTES // stride}")
    if mode == "TRIANGLES" and count % 3:
        raise CodecError(f"has {count} triangle corners, expected a multiple of 3")
