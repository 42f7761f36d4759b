"""The machine code inside a serialized program of XLA: ELF files (cubins) in records that are compressed by blocks.

The container is Riegeli's (github.com/google/riegeli, doc/riegeli_records_file_format.md): a block header of 24 bytes
at every multiple of 64 KiB, and chunks with a header of 40 bytes, whose records are plain or compressed by Snappy. A
record may be such a container again.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

_SIGNATURE = bytes.fromhex("83af70d10d884a3f")
_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 1 << 16, 24, 40
_RECORDS = ord("r")
_PLAIN, _SNAPPY = 0, ord("s")
_ELF = b"\x7fELF\x02\x01\x01"
_KERNEL = re.compile(rb"\.text\.([\w$.\-]+)")

Decompress = Callable[[bytes], bytes]


def find_cubins(serialized: bytes, decompress: Decompress) -> dict[str, bytes]:
    """Kernel name -> its ELF file, of all that a serialized program holds.

    Args:
      serialized: what jax's `Compiled.runtime_executable().serialize()` gives.
      decompress: of Snappy, raw format.

    Raises:
      ValueError: the container is another one than is known here.
    """
    cubins = {}
    for record in _read_records(serialized, decompress):
        for found in re.finditer(re.escape(_ELF), record):
            cubin = _cut_elf(record, found.start())
            for name in _KERNEL.findall(cubin):
                cubins[name.decode()] = cubin
    return cubins


def _read_records(data: bytes, decompress: Decompress) -> Iterator[bytes]:
    start = data.find(_SIGNATURE)
    if start < 0:
        raise ValueError("no Riegeli container in the serialized program")
    for chunk in _read_chunks(data[start:]):
        kind = chunk[0]
        size, at = _read_varint(chunk, 1)
        values = chunk[at + size :]
        if kind == _SNAPPY:
            _, at = _read_varint(values, 0)  # the length once more, which Snappy's own format has, too
            values = decompress(values[at:])
        elif kind != _PLAIN:
            raise ValueError(f"records compressed as {kind}, expected plain or Snappy")
        if values.startswith(_SIGNATURE):
            yield from _read_records(values, decompress)
        else:
            yield values


def _read_chunks(data: bytes) -> Iterator[bytes]:
    stream = b"".join(
        data[block + _BLOCK_HEADER : block + _BLOCK] for block in range(0, len(data), _BLOCK)
    )  # without block headers
    at = 0
    while at + _CHUNK_HEADER <= len(stream):
        _, size, _, kind, _ = struct.unpack_from("<QQQQQ", stream, at)
        chunk = stream[at + _CHUNK_HEADER : at + _CHUNK_HEADER + size]
        if kind & 255 == _RECORDS and chunk:
            yield chunk
        at += _CHUNK_HEADER + size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at


def _cut_elf(data: bytes, at: int) -> bytes:
    """The file that begins there, up to the end of its tables, which come last."""
    program_table, section_table = struct.unpack_from("<QQ", data, at + 0x20)
    program_size, programs, section_size, sections = struct.unpack_from("<4H", data, at + 0x36)
    end = max(program_table + program_size * programs, section_table + section_size * sections)
    return data[at : at + end]
