"""New clips in an existing glTF file, everything else of which stays as it is.

The file's JSON keeps all its values and their order and its buffers all their bytes: accessors, buffer views and
animations are added at the ends. A .glb gets them in its binary chunk, a .gltf in a buffer more: a file where it has
such, else a data URI. Skin weights that are no numbers may be mended on the way (`repair.py`). Source: the Khronos glTF
2.0 specification, sections 3.11 (animations) and 4 (GLB).
"""

from __future__ import annotations

import base64
import json
import shutil
import struct
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.geometry.rotations import keep_sign
from dimo_jax.io.gltf.document import GLB_MAGIC, open_document
from dimo_jax.io.gltf.repair import Repairs
from dimo_jax.io.gltf.uris import find_file
from dimo_jax.rigs.forward import Pose, Rig
from dimo_jax.runtime.files import replace_file

_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
_FLOAT = 5126
_FIELDS = {"translation": "translations", "rotation": "rotations", "scale": "scales"}
STILL = 1e-6  # a property that leaves its rest by less, of its own size, gets no channel


@dataclass(frozen=True)
class NewClip:
    """A clip to write: a pose at every key time."""

    name: str
    seconds: np.ndarray  # [T] rising, from 0 or later
    pose: Pose  # leading axis T


def append_clips(
    source: Path | str,
    path: Path | str,
    rig: Rig,
    clips: Sequence[NewClip],
    *,
    nodes: Sequence[int] = (),
    repairs: Repairs | None = None,
) -> tuple[str, ...]:
    """Writes a model with clips more, atomically; of what the source holds nothing changes but what `repairs` names.

    A node of which a clip moves any property gets a channel for that, with linear interpolation between the keys. One
    that the file gives as a matrix, which glTF does not let clips move, is written as translation, rotation and scale;
    one with a skin and nothing below it gets no channel, since it stands where its joints are.

    Args:
      source: a .glb or .gltf file.
      path: the file to write, of the same kind; it may be the source. The files to which a .gltf refers are copied
        beside it.
      rig: of the source, see `make_rig`.
      clips: what to add.
      nodes: whose rotation gets a channel even where it rests.
      repairs: of the source, see `repair_weights`.

    Returns:
      The names of the clips: a number is added to one that the file has.

    Raises:
      UserError: a source that cannot be read, a path of another kind, numbers that are not finite, key times that do
        not rise, a clip in which nothing moves, or a node that moves and whose matrix shears.
    """
    source, path = Path(source), Path(path)
    open_document(source)  # raises what is wrong with it
    content, chunks = _read(source)
    if (path.suffix.lower() == ".glb") != (chunks is not None):
        kind = ".gltf" if chunks is None else ".glb"
        raise UserError(f"{path}: found the ending {path.suffix!r}, expected {kind!r} as of {source.name}")
    try:
        json.dumps(content, allow_nan=False)
    except ValueError as error:  # from NaN in the source's text, which is written as it stands
        raise UserError(f"{source}: its JSON has NaN or infinite numbers, expected finite ones") from error
    for clip in clips:
        _check(path, rig, clip)
    packer = _Packer(content)
    if repairs is not None:
        packer.mend(repairs, path, chunks)
    names = tuple(packer.add_clip(rig, clip, set(nodes), path) for clip in clips)
    if chunks is not None:
        packer.write_glb(path, chunks)
    else:
        packer.write_gltf(source, path)
    return names


def _read(source: Path) -> tuple[dict[str, Any], list[tuple[int, bytes]] | None]:
    """The JSON of a file, and for a GLB its chunks."""
    data = source.read_bytes()
    if data[:4] != GLB_MAGIC:
        return json.loads(data.decode("utf-8-sig")), None
    length, offset = struct.unpack_from("<I", data, 8)[0], 12
    chunks: list[tuple[int, bytes]] = []
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        chunks.append((kind, data[offset + 8 : offset + 8 + size]))
        offset += 8 + size
    text = next(body for kind, body in chunks if kind == _JSON_CHUNK)
    return json.loads(text.decode("utf-8-sig")), chunks


def _check(path: Path, rig: Rig, clip: NewClip) -> None:
    where = f"{path}: clip {clip.name!r}"
    seconds = np.asarray(clip.seconds, np.float32)  # as they are stored: what rises by less does not rise there
    if not len(seconds) or not np.isfinite(seconds).all() or seconds[0] < 0 or (np.diff(seconds) <= 0).any():
        raise UserError(f"{where} has the key times {seconds[:6].tolist()}, expected some that rise from 0 or later")
    for field in (*_FIELDS.values(), "morphs"):
        values = np.asarray(getattr(clip.pose, field))
        expected = (len(seconds), *getattr(rig.rest, field).shape)
        if values.shape != expected:
            raise UserError(f"{where} has {field} of shape {values.shape}, expected {expected}")
        if not np.isfinite(values).all():
            frame = int(np.argwhere(~np.isfinite(values))[0][0])
            raise UserError(f"{where} has {field} that are NaN or infinite at frame {frame}, expected finite numbers")


class _Packer:
    """Collects what is added to a file's JSON."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.json = content
        self.binary = bytearray()
        self.views: list[dict[str, Any]] = []  # whose buffer and offset are settled when the file is written
        self.files: list[tuple[Path, bytes]] = []  # to write beside the file

    def mend(self, repairs: Repairs, path: Path, chunks: list[tuple[int, bytes]] | None) -> None:
        """Puts mended buffers in the place of those that they come from: `chunks`, data URIs, or files more."""
        for index, bounds in repairs.bounds.items():
            self.json["accessors"][index].update(bounds)
        for number, body in repairs.buffers.items():
            entry = self.json["buffers"][number]
            if "uri" not in entry:
                assert chunks is not None
                place = next(place for place, (kind, _) in enumerate(chunks) if kind == _BINARY_CHUNK)
                chunks[place] = (_BINARY_CHUNK, body + chunks[place][1][len(body) :])
            elif entry["uri"].startswith("data:"):
                entry["uri"] = f"{entry['uri'].partition(',')[0]},{base64.b64encode(body).decode()}"
            else:
                name = _find_name(path, f"repaired_{number}")
                self.files.append((path.parent / name, body))
                entry["uri"] = urllib.parse.quote(name)

    def add_clip(self, rig: Rig, clip: NewClip, always: set[int], path: Path) -> str:
        """Adds a clip and returns its name."""
        tracks = _find_tracks(rig, clip.pose, always)
        seconds = np.asarray(clip.seconds, np.float32)
        keys = self._add_accessors("SCALAR", [seconds], bounds=True)[0]
        samplers: list[dict[str, Any]] = []
        channels: list[dict[str, Any]] = []
        for target, kind in (("translation", "VEC3"), ("rotation", "VEC4"), ("scale", "VEC3"), ("weights", "SCALAR")):
            chosen = [(node, values) for where, node, values in tracks if where == target and self._counts(node, where)]
            outputs = self._add_accessors(kind, [values for _, values in chosen])
            for (node, _), output in zip(chosen, outputs):
                self._free_node(rig, node, path)
                channels.append({"sampler": len(samplers), "target": {"node": node, "path": target}})
                samplers.append({"input": keys, "interpolation": "LINEAR", "output": output})
        if not channels:  # glTF has no animation without channels
            raise UserError(f"{path}: clip {clip.name!r} moves nothing, expected a pose that leaves the rest pose")
        animations = self.json.setdefault("animations", [])
        taken = {entry.get("name") for entry in animations}
        name, number = clip.name, 2
        while name in taken:
            name, number = f"{clip.name}_{number}", number + 1
        animations.append({"name": name, "samplers": samplers, "channels": channels})
        return name

    def _add_accessors(self, kind: str, arrays: list[np.ndarray], *, bounds: bool = False) -> list[int]:
        """Accessors of float32 arrays that share one buffer view."""
        if not arrays:
            return []
        self.binary.extend(b"\0" * (-len(self.binary) % 4))
        start, indices = len(self.binary), []
        view = len(self.json.setdefault("bufferViews", []))
        for values in arrays:
            stored = np.ascontiguousarray(values, "<f4")
            count = stored.size if kind == "SCALAR" else len(stored)
            entry: dict[str, Any] = {"bufferView": view, "componentType": _FLOAT, "count": count, "type": kind}
            if len(self.binary) > start:
                entry["byteOffset"] = len(self.binary) - start
            if bounds:
                entry |= {"min": [float(stored.min())], "max": [float(stored.max())]}
            self.binary.extend(stored.tobytes())
            indices.append(len(self.json.setdefault("accessors", [])))
            self.json["accessors"].append(entry)
        entry = {"byteOffset": start, "byteLength": len(self.binary) - start}
        self.json["bufferViews"].append(entry)
        self.views.append(entry)
        return indices

    def _counts(self, node: int, target: str) -> bool:
        """Whether a property shows: a node with a skin stands where its joints are, and no clip should move it."""
        entry = self.json["nodes"][node]
        return target == "weights" or "skin" not in entry or bool(entry.get("children"))

    def _free_node(self, rig: Rig, node: int, path: Path) -> None:
        """Writes a node's matrix as what clips may move."""
        entry = self.json["nodes"][node]
        if "matrix" not in entry:
            return
        if not np.allclose(np.asarray(rig.shears)[node], np.eye(3), atol=1e-5):
            raise UserError(
                f"{path}: nodes[{node}] {rig.names[node]!r} moves, and has a matrix that shears, expected one of "
                "translation, rotation and scale"
            )
        del entry["matrix"]
        for target, field in _FIELDS.items():
            values = np.asarray(getattr(rig.rest, field), np.float64)[node]
            entry[target] = (np.roll(values, -1) if target == "rotation" else values).tolist()

    def _settle(self, buffer: int, start: int) -> None:
        for view in self.views:
            view["byteOffset"] += start
            view["buffer"] = buffer
            order = sorted(view, key=("buffer", "byteOffset", "byteLength").index)
            for key in order:
                view[key] = view.pop(key)

    def write_glb(self, path: Path, chunks: list[tuple[int, bytes]]) -> None:
        """Writes the file with its binary chunk extended, or given one."""
        buffers = self.json.setdefault("buffers", [])
        old = next((body for kind, body in chunks if kind == _BINARY_CHUNK), None)
        if buffers and (old is None or "uri" in buffers[0]):  # its first buffer lies elsewhere, so ours is no chunk
            self._settle(len(buffers), 0)
            buffers.append(self._data_uri())
            body = old
        else:
            kept = (old or b"")[: buffers[0]["byteLength"]] if buffers else b""
            kept += b"\0" * (-len(kept) % 4)
            self._settle(0, len(kept))
            body = kept + bytes(self.binary)
            if buffers:
                buffers[0]["byteLength"] = len(body)
            else:
                buffers.append({"byteLength": len(body)})
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode()
        parts = [(_JSON_CHUNK, text + b" " * (-len(text) % 4))]
        if body is not None:
            parts.append((_BINARY_CHUNK, body + b"\0" * (-len(body) % 4)))
        parts += [chunk for chunk in chunks if chunk[0] not in (_JSON_CHUNK, _BINARY_CHUNK)]
        packed = b"".join(struct.pack("<II", len(each), kind) + each for kind, each in parts)
        self._write_files()
        with replace_file(path) as temporary:
            temporary.write_bytes(struct.pack("<4sII", GLB_MAGIC, 2, 12 + len(packed)) + packed)

    def _write_files(self) -> None:
        for path, body in self.files:
            with replace_file(path) as temporary:
                temporary.write_bytes(body)

    def _data_uri(self) -> dict[str, Any]:
        payload = base64.b64encode(bytes(self.binary)).decode()
        return {"byteLength": len(self.binary), "uri": f"data:application/octet-stream;base64,{payload}"}

    def write_gltf(self, source: Path, path: Path) -> None:
        """Writes the file, the files to which it refers, and a buffer more: before it what it refers to."""
        buffers = self.json.setdefault("buffers", [])
        uris = [entry["uri"] for key in ("buffers", "images") for entry in self.json.get(key, []) if "uri" in entry]
        own = {urllib.parse.quote(file.name) for file, _ in self.files}
        outside = [uri for uri in uris if not uri.startswith("data:") and uri not in own]
        copies = [(found, path.parent / found.relative_to(source.parent.resolve()))
                  for found in (find_file(source, uri) for uri in outside)]  # fmt: skip
        for found, copy in copies:
            if copy.exists() and copy.read_bytes() != found.read_bytes():
                raise UserError(f"{copy}: another file than that of {source}, expected the same or none")
        self._settle(len(buffers), 0)
        if any(not entry.get("uri", "data:").startswith("data:") for entry in buffers):
            name = _find_name(path, "clips")
            self.files.append((path.parent / name, bytes(self.binary)))
            buffers.append({"byteLength": len(self.binary), "uri": urllib.parse.quote(name)})
        else:
            buffers.append(self._data_uri())
        self._write_files()
        for found, copy in copies:
            if not copy.exists():
                with replace_file(copy) as temporary:
                    shutil.copyfile(found, temporary)
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(self.json, indent=2, allow_nan=False), encoding="utf-8")


def _find_name(path: Path, what: str) -> str:
    """A name that is still free for a buffer of the file at `path`."""
    number = 1
    while (path.parent / (name := f"{path.stem}_{what}_{number}.bin")).exists():
        number += 1
    return name


def _find_tracks(rig: Rig, pose: Pose, always: set[int]) -> list[tuple[str, int, np.ndarray]]:
    """What moves: (path, node, values [T,C]), rotations as unit xyzw of one sign along time."""
    tracks = []
    for target, field in _FIELDS.items():
        rest, values = (np.asarray(getattr(each, field), np.float64) for each in (rig.rest, pose))
        if target == "rotation":
            rest = rest / np.linalg.norm(rest, axis=-1, keepdims=True)
            values = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
            values = np.where((values[:1] * rest).sum(-1, keepdims=True) < 0, -values, values)
            values = keep_sign(values)
        off = np.abs(values - rest).max(axis=(0, 2)) > STILL * np.maximum(np.abs(rest).max(axis=-1), 1e-3)
        for node in range(rig.num_nodes):
            if off[node] or (target == "rotation" and node in always):
                tracks.append(
                    (target, node, np.roll(values[:, node], -1, -1) if target == "rotation" else values[:, node])
                )
    for node, first, count in rig.morph_spans:
        span = slice(first, first + count)
        values = np.asarray(pose.morphs)[:, span]
        if np.abs(values - np.asarray(rig.rest.morphs)[span]).max(initial=0) > STILL:
            tracks.append(("weights", node, values))
    return tracks
