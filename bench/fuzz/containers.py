"""Damage inside of containers, whose lengths and checksums are then made right, so that it reaches what lies behind."""

from __future__ import annotations

import ast
import base64
import io
import json
import random
import struct
import zipfile
import zlib

from PIL import Image

from bench.fuzz.mutators import Damaged, compose, mutate_bytes, mutate_json, mutate_lines, mutate_text

_SHAPES = ((), (0,), (1,), (3,), (0, 3), (4, 0, 3), (10**12,), (-1,), (2**40, 3), (1,) * 40, "x", (2.5,), (True,))
_TYPES = (
    "<f4",
    "<f8",
    ">f4",
    "<f2",
    "<c8",
    "|b1",
    "|u1",
    "<i8",
    "<U4",
    "|S8",
    "|O",
    "<M8[s]",
    "|V8",
    "x",
    [("a", "<f4")],
)
_IHDR = (0, 1, 8192, 8193, 60000, 2**31 - 1)


def mutate_glb(data: bytes, rng: random.Random) -> Damaged:
    """The JSON or the binary chunk of a GLB, its lengths made right."""
    try:
        size = struct.unpack_from("<I", data, 12)[0]
        text, rest = data[20 : 20 + size], data[20 + size :]
        if data[:4] != b"glTF" or len(text) != size:
            return mutate_bytes(data, rng)
    except struct.error:
        return mutate_bytes(data, rng)
    if rng.random() < 0.8:
        text, said = mutate_json(text, rng)
    else:
        binary, said = mutate_bytes(rest[8:], rng)
        rest = struct.pack("<I", len(binary)) + rest[4:8] + binary
        said = f"binary: {said}"
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + rest
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks, said


def mutate_gltf(data: bytes, rng: random.Random) -> Damaged:
    """JSON, or the bytes of a data URI in it."""
    if rng.random() < 0.8:
        return mutate_json(data, rng)
    try:
        tree = json.loads(data)
        holders = [entry for key in ("buffers", "images") for entry in tree.get(key, []) if "," in entry.get("uri", "")]
        holder = rng.choice(holders)
        head, _, payload = holder["uri"].partition(",")
        inside, said = mutate_bytes(base64.b64decode(payload), rng)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return mutate_json(data, rng)
    holder["uri"] = f"{head},{base64.b64encode(inside).decode()}"
    return json.dumps(tree).encode(), f"data URI: {said}"


def mutate_npy(data: bytes, rng: random.Random) -> Damaged:
    """Shape, type or order in the header of an array, its length made right; or any bytes."""
    try:
        size = struct.unpack_from("<H", data, 8)[0]
        header = ast.literal_eval(data[10 : 10 + size].decode("latin1"))
    except (struct.error, ValueError, SyntaxError):
        return mutate_bytes(data, rng)
    if rng.random() < 0.4:
        body, said = mutate_bytes(data[10 + size :], rng)
        return data[: 10 + size] + body, f"numbers: {said}"
    key = rng.choice(("shape", "descr", "fortran_order"))
    header[key] = rng.choice({"shape": _SHAPES, "descr": _TYPES, "fortran_order": (True, 3)}[key])
    text = repr(header).encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return data[:8] + struct.pack("<H", len(text)) + text + data[10 + size :], f"{key} = {header[key]!r}"


def mutate_zip(data: bytes, rng: random.Random) -> Damaged:
    """One entry of an archive damaged, renamed, missing or compressed, its checksums made right; or any bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(entry.filename, archive.read(entry), entry.compress_type) for entry in archive.infolist()]
        index = rng.randrange(len(entries))
    except Exception:  # damaged already, in any of the ways that the archive's reader knows
        return mutate_bytes(data, rng)
    if rng.random() < 0.25:
        return mutate_bytes(data, rng)
    name, content, kind = entries[index]
    how = rng.random()
    if how < 0.08:
        del entries[index]
        said = "removed"
    elif how < 0.14:
        other = rng.choice(("", "x", "../x.npy", "a" * 300, entries[0][0]))
        entries[index] = (other, content, kind)
        said = f"renamed to {other[:20]!r}"
    elif how < 0.2:
        entries.append((name, rng.choice(entries)[1], kind))
        said = "twice"
    elif how < 0.25:
        entries[index] = (name, content, zipfile.ZIP_DEFLATED)
        said = "compressed"
    else:
        damaged, said = (mutate_npy if name.endswith(".npy") else mutate_bytes)(content, rng)
        entries[index] = (name, damaged, kind)
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
        for entry, inside, compression in entries:
            archive.writestr(zipfile.ZipInfo(entry), inside, compression)
    return result.getvalue(), f"{name}: {said}"


def mutate_safetensors(data: bytes, rng: random.Random) -> Damaged:
    """The JSON header, its length made right; or any bytes."""
    if len(data) < 8 or rng.random() < 0.3:
        return mutate_bytes(data, rng)
    size = min(struct.unpack_from("<Q", data)[0], len(data) - 8)
    text, said = mutate_json(data[8 : 8 + size], rng)
    return struct.pack("<Q", len(text)) + text + data[8 + size :], said


def _flat_png(side: int) -> bytes:
    """A sound picture of one colour: kilobytes that become up to 64 MiB."""
    result = io.BytesIO()
    Image.new("L", (side, side), 90).save(result, "PNG")
    return result.getvalue()


def mutate_png(data: bytes, rng: random.Random) -> Damaged:
    """One chunk, or the size and kind of the picture, checksums made right; or any bytes."""
    if data[:4] != b"\x89PNG" or rng.random() < 0.3:
        return mutate_bytes(data, rng)
    if rng.random() < 0.03:
        side = rng.choice((1, 512, 4096))
        return _flat_png(side), f"a flat picture of {side}x{side}"
    chunks, place = [], 8
    while place + 12 <= len(data):
        size = struct.unpack_from(">I", data, place)[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    index = rng.randrange(len(chunks)) if chunks else 0
    if chunks and chunks[0][0] == b"IHDR" and len(chunks[0][1]) == 13 and rng.random() < 0.5:
        index, body = 0, chunks[0][1]
        width, height = rng.choice(((rng.choice(_IHDR), None), (None, rng.choice(_IHDR)), (None, None)))
        old_width, old_height, depth, color = struct.unpack_from(">IIBB", body)
        if width is None and height is None:
            depth, color = rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 9))
        sizes = (old_width if width is None else width, old_height if height is None else height)
        chunks[0] = (b"IHDR", struct.pack(">IIBB", *sizes, depth, color) + body[10:])
        said = f"IHDR of {sizes[0]}x{sizes[1]}, {depth} bits, kind {color}"
    elif chunks:
        kind, body = chunks[index]
        body, said = mutate_bytes(body, rng)
        chunks[index] = (kind, body)
        said = f"{kind!r}: {said}"
    else:
        return mutate_bytes(data, rng)
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return data[:8] + b"".join(parts), said


def mutate_ply(data: bytes, rng: random.Random) -> Damaged:
    """The lines of a PLY's header, or any bytes."""
    end = data.find(b"end_header\n")
    if end < 0 or rng.random() < 0.3:
        return mutate_bytes(data, rng)
    head, said = mutate_text(data[:end], rng)
    return head + data[end:], f"header: {said}"


MUTATORS = {
    ".glb": mutate_glb,
    ".gltf": mutate_gltf,
    ".json": mutate_json,
    ".jsonl": mutate_lines,
    ".npy": mutate_npy,
    ".npz": mutate_zip,
    ".ply": mutate_ply,
    ".png": mutate_png,
    ".pth": mutate_zip,
    ".safetensors": mutate_safetensors,
    ".txt": mutate_text,
}


def mutate_file(name: str, data: bytes, rng: random.Random) -> Damaged:
    """A damaged copy of a file, by its name's suffix; now and then as bytes, whatever it is."""
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    mutate = MUTATORS.get(suffix, mutate_bytes)
    return compose(mutate_bytes if rng.random() < 0.1 else mutate, data, rng)
