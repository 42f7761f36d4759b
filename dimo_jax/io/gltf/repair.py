"""Weights at fault of a glTF file's skins, mended in its bytes, so that what is written reads without a repair.

What a reading with `repair` takes for them (see `clean_weights`) goes where they stood; no other byte changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dimo_jax.core.names import to_text
from dimo_jax.io.gltf.document import COMPONENTS, Document, read_accessor
from dimo_jax.io.gltf.faults import Faults, find_wrong_weights
from dimo_jax.io.gltf.geometry import find_weight_sets, read_primitive
from dimo_jax.io.gltf.plain import MESHOPT
from dimo_jax.rigs.scene import Scene

_WIDTH = 4  # of an element of JOINTS_n and WEIGHTS_n


@dataclass(frozen=True)
class Repairs:
    """What of a file is written otherwise."""

    buffers: dict[int, bytes]  # number -> its bytes
    bounds: dict[int, dict[str, list[float]]]  # accessor -> its min and max, where it states them
    lines: tuple[str, ...]  # what was done, for people


def repair_weights(document: Document) -> Repairs:
    """Mends the weights of all meshes that are NaN, infinite or negative, whether drawn or not.

    Raises:
      UserError: such weights in a sparse accessor, or of a mesh that cannot be read otherwise.
    """
    changed: dict[int, bytearray] = {}
    bounds: dict[int, dict[str, list[float]]] = {}
    lines = []
    for index, mesh in enumerate(document.entries("meshes")):
        name = to_text(str(mesh.get("name", "")))
        for number, primitive in enumerate(mesh["primitives"]):
            where = f"meshes[{index}].primitives[{number}]" + (f" of {name!r}" if name else "")
            count, total = _mend(document, where, primitive, changed, bounds)
            if count:
                lines.append(f"repaired: {where}: weights of {count} of {total} vertices, in what is written too")
    return Repairs({number: bytes(body) for number, body in changed.items()}, bounds, tuple(lines))


def _mend(
    document: Document,
    where: str,
    primitive: dict[str, Any],
    changed: dict[int, bytearray],
    bounds: dict[int, dict[str, list[float]]],
) -> tuple[int, int]:
    """Mends a primitive's weights in `changed`; how many of its vertices had some at fault, and how many it has."""
    attributes = primitive["attributes"]
    sets = find_weight_sets(attributes)
    if not sets or not all(_is_plain(document, attributes[f"WEIGHTS_{number}"]) for number in sets):
        return 0, 0
    given = [read_accessor(document, attributes[f"WEIGHTS_{number}"], kind="VEC4", finite=False) for number in sets]
    rows = np.flatnonzero(find_wrong_weights(np.concatenate(given, axis=1)).any(axis=1))
    geometry = read_primitive(Faults(document, repair=True), where, primitive) if len(rows) else None
    if geometry is None:
        return 0, 0
    weights = _round(geometry.weights[rows])
    for place, number in enumerate(sets):
        columns = slice(_WIDTH * place, _WIDTH * (place + 1))
        _put(document, changed, attributes[f"JOINTS_{number}"], rows, geometry.joints[rows, columns])
        index = attributes[f"WEIGHTS_{number}"]
        _put(document, changed, index, rows, weights[:, columns])
        mended = given[place].copy()
        mended[rows] = weights[:, columns]
        stated = {key: getattr(mended, key)(axis=0).astype(float).tolist() for key in ("min", "max")}
        bounds[index] = {key: stated[key] for key in stated if key in document.json["accessors"][index]}
    return len(rows), len(given[0])


def _is_plain(document: Document, index: Any) -> bool:
    """Whether an accessor holds float numbers that lie in a buffer as they are; others cannot be NaN."""
    accessor = document.entry("accessors", index)
    if COMPONENTS.get(accessor.get("componentType")) is not np.float32 or "bufferView" not in accessor:
        return False
    packed = document.entry("bufferViews", accessor["bufferView"]).get("extensions", {})
    return not set(MESHOPT) & set(packed)


def _round(weights: np.ndarray) -> np.ndarray:
    """Weights [n,S] as float32, the largest of each row so that they sum to 1."""
    rounded = weights.astype(np.float32)
    largest = (np.arange(len(rounded)), rounded.argmax(axis=1))
    rounded[largest] += 1 - rounded.sum(axis=1, dtype=np.float64)
    return rounded


def _put(document: Document, changed: dict[int, bytearray], index: int, rows: np.ndarray, values: np.ndarray) -> None:
    """Writes some rows of an accessor into the bytes of its buffer."""
    accessor = document.entry("accessors", index)
    if "sparse" in accessor:
        raise document.fail(f"accessors[{index}] is sparse, expected plain skin weights, which alone are repaired")
    view = document.entry("bufferViews", accessor["bufferView"])
    stored = np.ascontiguousarray(values, np.dtype(COMPONENTS[accessor["componentType"]]).newbyteorder("<"))
    size = stored.itemsize * _WIDTH
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    body = changed.setdefault(view["buffer"], bytearray(document.buffers[view["buffer"]]))
    for row, value in zip(rows, stored):
        first = start + int(row) * (view.get("byteStride") or size)
        body[first : first + size] = value.tobytes()


def describe_repairs(repairs: Repairs, scene: Scene) -> tuple[str, ...]:
    """What was mended, and what a reading settled that the written file still holds."""
    done = {line.split(": weights of ")[0] for line in repairs.lines}
    others = [
        note for note in scene.notes if note.startswith("repaired: ") and note.split(": weights of ")[0] not in done
    ]
    return (*repairs.lines, *(f"not repaired in what is written: {note.removeprefix('repaired: ')}" for note in others))
