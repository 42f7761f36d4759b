"""Whether a video file is all there, by the lengths that its container's own parts claim.

ffmpeg plays what it can of a file that was cut off. A length in time cannot tell: a container's is that of its longest
track, which may be a sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from dimo_jax.core.errors import UserError

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def check_whole(path: Path) -> None:
    """Checks that no part of an MP4, MOV, WebM, Matroska or AVI file claims more bytes than the file has.

    Raises:
      UserError: it does: the file was cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in _BOXES:
            end = _end_of_boxes(file, size)
        elif head[:4] == _EBML:
            end = _end_of_segment(file, size)
        elif head[:4] == b"RIFF" and head[8:11] == b"AVI":
            end = _end_of_chunks(file, size)
        else:
            return
    if end > size:
        raise UserError(f"{path}: ends after {size} of {end} bytes, expected a whole video")


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last top-level box of an ISO file (MP4, MOV) ends."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length == 0:  # up to the end of the file
            return size
        if length < 8:
            return position  # no box: what ffmpeg makes of it counts
        position += length
    return position


def _vint(file: BinaryIO) -> int | None:
    """An EBML length; None for one that is not known, as live recorders write it."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> width)]) + file.read(width - 1), "big")
    return None if value == (1 << (7 * width)) - 1 else value


def _end_of_segment(file: BinaryIO, size: int) -> int:
    """Where the segment of a Matroska file ends; 0 where that is not known."""
    file.seek(4)
    length = _vint(file)
    if length is None or length > size:
        return 0  # no header: what ffmpeg makes of it counts
    file.seek(length, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length = _vint(file)
    return 0 if length is None else file.tell() + length


def _end_of_chunks(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk of an AVI file ends; long files have several."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(8)
        if header[:4] not in (b"RIFF", b"JUNK"):
            break
        length = int.from_bytes(header[4:], "little")
        if length == 0:  # a recorder that could not go back to fill it in
            return size
        position += 8 + length + length % 2
    return position
