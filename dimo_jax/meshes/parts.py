"""Which triangles of an object are the part that moves: by node, material, connected piece, face list, or box."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import choose_names, fold
from dimo_jax.meshes.objects import ObjectMesh

WELD = 1e-6  # of the diagonal: vertices that near are one when pieces are told apart
SHOWN = 40  # parts that a message or a picture lists
_KINDS = ("node", "material", "piece", "faces", "box")


@dataclass(frozen=True)
class PartChoice:
    """One part that can be chosen, as `--list_parts` shows it."""

    number: int  # from 0, in the order of the list
    kind: str  # "node", "material" or "piece"
    name: str
    faces: np.ndarray  # [F] bool

    @property
    def label(self) -> str:
        """What `--part` takes to choose it."""
        return f"{self.kind}:{self.name}"


def weld_vertices(vertices: np.ndarray, *, tolerance: float = WELD) -> np.ndarray:
    """Group [P] of every vertex: those within about `tolerance` of the diagonal of each other share one."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    step = max(float(np.linalg.norm(high - low)), 1e-30) * tolerance
    return np.unique(np.round((vertices - low) / step).astype(np.int64), axis=0, return_inverse=True)[1].reshape(-1)


def connected_pieces(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Piece [F] of every triangle, 0 the largest by area; triangles that share a (welded) vertex are of one piece."""
    if not len(triangles):
        return np.zeros(0, np.int32)
    corners = weld_vertices(vertices)[triangles]
    count = int(corners.max()) + 1
    ends = np.concatenate([corners[:, :2], corners[:, 1:]])
    graph = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(count, count))
    label = connected_components(graph, directed=False)[1][corners[:, 0]]
    label = np.unique(label, return_inverse=True)[1].reshape(-1)
    sides = vertices[triangles]
    areas = np.linalg.norm(np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0]), axis=1)
    order = np.argsort(-np.bincount(label, areas), kind="stable")
    return np.argsort(order)[label].astype(np.int32)


def list_parts(thing: ObjectMesh) -> list[PartChoice]:
    """What can be chosen by name: nodes with triangles, materials, connected pieces; numbered in that order.

    A list that would have a single entry of its kind is left out, because it is the whole object.
    """
    found: list[tuple[str, str, np.ndarray]] = []
    for index, name in enumerate(thing.node_names):
        mask = np.isin(thing.triangle_nodes, _below(thing, index))
        if mask.any() and not mask.all():
            found.append(("node", name, mask))
    materials = np.unique(thing.mesh.triangle_materials)
    if len(materials) > 1:
        for index in materials:
            name = thing.material_names[index] or str(index)
            found.append(("material", name, thing.mesh.triangle_materials == index))
    pieces = connected_pieces(thing.vertices, thing.triangles)
    if len(pieces) and pieces.max() > 0:
        found += [("piece", str(index), pieces == index) for index in range(min(int(pieces.max()) + 1, SHOWN))]
    return [PartChoice(number, *each) for number, each in enumerate(found)]


def _below(thing: ObjectMesh, node: int) -> list[int]:
    """A node with all of its descendants."""
    found = {node}
    for _ in thing.node_names:
        more = {index for index, parent in enumerate(thing.node_parents) if parent in found} - found
        if not more:
            break
        found |= more
    return sorted(found)


def find_part(thing: ObjectMesh, part: str) -> np.ndarray:
    """The triangles [F] bool that a text means.

    Args:
      thing: the object.
      part: "node:NAME", "material:NAME", "piece:NUMBER", "faces:FILE" (indices of triangles, as JSON, .npy or text
        with one a line), "box:x0,y0,z0,x1,y1,z1" (triangles whose centre lies in it, units of the file), a number of
        `list_parts`, or just a name, which is looked for among nodes and then materials. Several may be joined by `+`.

    Raises:
      UserError: nothing of that name (the line lists what there is), or the part is empty or the whole object.
    """
    mask = np.zeros(len(thing.triangles), bool)
    kind, _, rest = part.partition(":")
    nodes, materials = ({fold(name) for name in names} for names in (thing.node_names, thing.material_names))
    named = {"node": nodes, "material": materials}.get(kind, set())
    whole = kind == "faces" or fold(part) in nodes | materials or fold(rest) in named
    pieces = [part] if whole else part.split("+")
    for each in pieces:
        mask |= _find_one(thing, each.strip())
    if not mask.any():
        raise UserError(f"{thing.path}: the part {part!r} has no triangles; there are: {_describe(thing)}")
    if mask.all():
        raise UserError(
            f"{thing.path}: the part {part!r} is the whole object, expected a part that moves against a body; "
            f"there are: {_describe(thing)}"
        )
    return mask


def _find_one(thing: ObjectMesh, text: str) -> np.ndarray:
    kind, _, rest = text.partition(":")
    if rest and kind in _KINDS:
        return {"node": _by_node, "material": _by_material, "piece": _by_piece, "faces": _by_faces, "box": _by_box}[
            kind
        ](thing, rest)
    if text in thing.node_names:
        return _by_node(thing, text)
    if text.isdecimal():
        choices = list_parts(thing)
        if int(text) >= len(choices):
            raise _not_found(thing, text)
        return choices[int(text)].faces
    try:
        return _by_node(thing, text)
    except UserError:
        return _by_material(thing, text)


def _by_node(thing: ObjectMesh, name: str) -> np.ndarray:
    found = choose_names([name], thing.node_names, fail=lambda text: _not_found(thing, text), patterns=True)[0]
    return np.isin(thing.triangle_nodes, [below for index in found for below in _below(thing, index)])


def _by_material(thing: ObjectMesh, name: str) -> np.ndarray:
    names = [known or str(index) for index, known in enumerate(thing.material_names)]
    found = choose_names([name], names, fail=lambda text: _not_found(thing, text), patterns=True)[0]
    return np.isin(thing.mesh.triangle_materials, found)


def _by_piece(thing: ObjectMesh, number: str) -> np.ndarray:
    pieces = connected_pieces(thing.vertices, thing.triangles)
    if not number.isdecimal() or int(number) > pieces.max():
        raise UserError(f"{thing.path}: piece:{number} does not exist, expected 0 to {pieces.max()} (0 is the largest)")
    return pieces == int(number)


def _by_box(thing: ObjectMesh, numbers: str) -> np.ndarray:
    try:
        box = np.array([float(each) for each in numbers.split(",")]).reshape(2, 3)
    except ValueError:
        raise UserError(f"part box:{numbers[:80]}, expected six numbers x0,y0,z0,x1,y1,z1") from None
    centers = thing.corners.mean(axis=1)
    return ((centers >= box.min(axis=0)) & (centers <= box.max(axis=0))).all(axis=1)


def _by_faces(thing: ObjectMesh, file: str) -> np.ndarray:
    indices = read_face_list(Path(file))
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(thing.triangles)):
        raise UserError(
            f"{file}: has the triangle {indices[(indices < 0) | (indices >= len(thing.triangles))][0]}, expected "
            f"0 to {len(thing.triangles) - 1} of {thing.path}"
        )
    mask = np.zeros(len(thing.triangles), bool)
    mask[indices] = True
    return mask


def read_face_list(path: Path) -> np.ndarray:
    """Indices of triangles [n] int64 from a file: .npy (indices, or a mask), .json (a list), else text, one a line.

    Raises:
      UserError: no such file, or something else than whole numbers.
    """
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        elif path.suffix == ".json":
            values = np.asarray(json.loads(path.read_text()))
        else:
            values = np.asarray([float(each) for each in path.read_text().replace(",", " ").split()])
        if values.dtype == bool:
            return np.flatnonzero(values)
        if values.ndim != 1 or not np.isfinite(values).all() or (values != np.round(values)).any():
            raise ValueError(f"{values.dtype} of shape {values.shape}")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}, expected a list of triangles") from None
    except (ValueError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path}: {reason}, expected whole numbers, the indices of triangles") from None
    return values.astype(np.int64)


def _not_found(thing: ObjectMesh, text: str) -> UserError:
    return UserError(f"{thing.path}: no part {text!r}; there are: {_describe(thing)}")


def _describe(thing: ObjectMesh) -> str:
    labels = [choice.label for choice in list_parts(thing)]
    if not labels:
        return "none, it is one piece with one material: give faces:FILE or box:x0,y0,z0,x1,y1,z1"
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(labels[:SHOWN]) + more
