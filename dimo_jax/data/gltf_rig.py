"""The moving part of a glTF file: nodes, skins and animation clips, read and checked."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimo_jax.data.gltf_document import Document, read_accessor

STEP, LINEAR, CUBIC = "STEP", "LINEAR", "CUBICSPLINE"
PATHS = {"translation": 3, "rotation": 4, "scale": 3}  # and "weights", whose width is the number of morph targets


@dataclass(frozen=True)
class Node:
    """A node of the hierarchy; its transform is `matrix` where that is given, else translation, rotation and scale."""

    name: str
    parent: int  # -1 for a root
    translation: np.ndarray  # [3]
    rotation: np.ndarray  # [4] xyzw, as glTF stores it
    scale: np.ndarray  # [3]
    matrix: np.ndarray | None  # [4,4]
    mesh: int  # -1 for none
    skin: int  # -1 for none
    weights: np.ndarray | None  # of morph targets, over those of the mesh


@dataclass(frozen=True)
class Skin:
    """Joints that deform a mesh."""

    joints: np.ndarray  # [J] node indices
    inverse_bind: np.ndarray  # [J,4,4] mesh to joint


@dataclass(frozen=True)
class Channel:
    """One animated property of one node."""

    node: int
    path: str  # "translation", "rotation", "scale" or "weights"
    interpolation: str
    times: np.ndarray  # [S] seconds, rising
    values: np.ndarray  # [S,C]; for CUBICSPLINE [S,3,C]: in-tangent, value, out-tangent


@dataclass(frozen=True)
class Clip:
    """One animation. It lasts from its earliest to its latest key, in seconds."""

    name: str
    start: float
    end: float
    channels: tuple[Channel, ...]


def read_nodes(document: Document) -> tuple[tuple[Node, ...], np.ndarray]:
    """Reads the node hierarchy.

    Returns:
      The nodes, and their indices ordered so that a parent comes before its children.

    Raises:
      UserError: a node is its own ancestor or has two parents, or a transform has NaN or a wrong size.
    """
    entries = document.entries("nodes")
    parents = np.full(len(entries), -1)
    for index, entry in enumerate(entries):
        for child in entry.get("children", []):
            document.entry("nodes", child)
            if parents[child] >= 0:
                raise document.fail(f"nodes[{child}] has two parents, {parents[child]} and {index}")
            parents[child] = index
    order = [int(root) for root in np.flatnonzero(parents < 0)]
    for index in order:  # grows while it is walked
        order.extend(entries[index].get("children", []))
    if len(order) < len(entries):
        lost = min(set(range(len(entries))) - set(order))
        raise document.fail(f"the node hierarchy is cyclic: nodes[{lost}] is below itself")
    nodes = tuple(_read_node(document, i, entry, int(parents[i])) for i, entry in enumerate(entries))
    return nodes, np.array(order, np.int64)


def _read_node(document: Document, index: int, entry: dict[str, Any], parent: int) -> Node:
    def numbers(key: str, default: list[float]) -> np.ndarray:
        values = np.asarray(entry.get(key, default), np.float64)
        if values.shape != (len(default),) or not np.isfinite(values).all():
            raise document.fail(
                f"nodes[{index}].{key} is {str(entry[key])[:80]}, expected {len(default)} finite numbers"
            )
        return values

    rotation = numbers("rotation", [0.0, 0.0, 0.0, 1.0])
    norm = np.linalg.norm(rotation)
    if not 1e-6 <= norm < np.inf:
        raise document.fail(f"nodes[{index}].rotation is {rotation.tolist()}, expected a unit quaternion")
    mesh = document.entry("meshes", entry["mesh"]) if "mesh" in entry else {}
    if "skin" in entry:
        document.entry("skins", entry["skin"])
    matrix = numbers("matrix", [0.0] * 16).reshape(4, 4).T if "matrix" in entry else None
    weights = np.asarray(entry["weights"], np.float64) if "weights" in entry else None
    if weights is not None and (weights.ndim != 1 or not np.isfinite(weights).all()):
        raise document.fail(f"nodes[{index}].weights holds NaN or is not a list of numbers")
    return Node(
        name=str(entry.get("name") or mesh.get("name") or f"node_{index}"),
        parent=parent,
        translation=numbers("translation", [0.0] * 3),
        rotation=rotation / norm,
        scale=numbers("scale", [1.0] * 3),
        matrix=matrix,
        mesh=entry.get("mesh", -1),
        skin=entry.get("skin", -1),
        weights=weights,
    )


def read_skins(document: Document) -> tuple[Skin, ...]:
    """Reads all skins; joints without inverse bind matrices have the identity.

    Raises:
      UserError: a skin without joints, or with another number of inverse bind matrices than joints.
    """
    skins = []
    for index, entry in enumerate(document.entries("skins")):
        joints = entry.get("joints", [])
        if not joints:
            raise document.fail(f"skins[{index}] has no joints")
        for joint in joints:
            document.entry("nodes", joint)
        inverse_bind = np.tile(np.eye(4), (len(joints), 1, 1))
        if "inverseBindMatrices" in entry:
            inverse_bind = read_accessor(document, entry["inverseBindMatrices"], kind="MAT4").astype(np.float64)
        if len(inverse_bind) < len(joints):
            raise document.fail(
                f"skins[{index}] has {len(joints)} joints and {len(inverse_bind)} inverse bind matrices"
            )
        skins.append(Skin(np.array(joints, np.int64), inverse_bind[: len(joints)]))
    return tuple(skins)


def read_clips(document: Document) -> tuple[Clip, ...]:
    """Reads all animations. Clips without a name are called animation_0, ..., and a name used again gets a number.

    Raises:
      UserError: key times that fall or are negative, key counts that do not match, an unknown interpolation.
    """
    clips: list[Clip] = []
    names: set[str] = set()
    for index, entry in enumerate(document.entries("animations")):
        channels = tuple(
            channel
            for i, spec in enumerate(entry["channels"])
            if (channel := _read_channel(document, f"animations[{index}].channels[{i}]", spec, entry["samplers"]))
        )
        stem = str(entry.get("name") or f"animation_{index}")
        numbered = (f"{stem}_{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([stem], numbered) if name not in names)
        names.add(name)
        if channels:
            start, end = min(c.times[0] for c in channels), max(c.times[-1] for c in channels)
            clips.append(Clip(name, float(start), float(end), channels))
    return tuple(clips)


def _read_channel(
    document: Document, where: str, spec: dict[str, Any], samplers: list[dict[str, Any]]
) -> Channel | None:
    """One channel; None where it moves nothing that is drawn (no node, or a path of an extension)."""
    target = spec["target"]
    path = target.get("path")
    if "node" not in target or (path not in PATHS and path != "weights"):
        return None
    document.entry("nodes", target["node"])
    if not isinstance(spec["sampler"], int) or not 0 <= spec["sampler"] < len(samplers):
        raise document.fail(f"{where} refers to sampler {spec['sampler']!r} of {len(samplers)}")
    sampler = samplers[spec["sampler"]]
    interpolation = sampler.get("interpolation", LINEAR)
    if interpolation not in (STEP, LINEAR, CUBIC):
        raise document.fail(f"{where} has interpolation {interpolation!r}, expected STEP, LINEAR or CUBICSPLINE")
    times = read_accessor(document, sampler["input"], kind="SCALAR").astype(np.float64)
    values = read_accessor(document, sampler["output"]).astype(np.float64)
    if len(times) == 0 or times[0] < 0 or (np.diff(times) < 0).any():
        raise document.fail(f"{where} has {len(times)} key times, expected at least one, rising from 0 or later")
    per_key = 3 if interpolation == CUBIC else 1
    width = PATHS.get(path) or values.size // (len(times) * per_key)
    if width == 0 or values.size != len(times) * per_key * width or (path in PATHS and values.shape[1:] != (width,)):
        raise document.fail(f"{where} has {values.shape} values for {len(times)} keys of {path}")
    shape = (len(times), 3, width) if interpolation == CUBIC else (len(times), width)
    return Channel(target["node"], path, interpolation, times, values.reshape(shape))
