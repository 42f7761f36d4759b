"""The moving part of a glTF file: nodes, skins and animation clips, read and checked."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import to_text
from dimo_jax.io.gltf.document import Document, read_accessor
from dimo_jax.io.gltf.faults import Faults
from dimo_jax.rigs.skeleton import CUBIC, LINEAR, STEP, Channel, Clip, Node, Skin

PATHS = {"translation": 3, "rotation": 4, "scale": 3}  # and "weights", whose width is the number of morph targets


def read_nodes(document: Document) -> tuple[tuple[Node, ...], np.ndarray]:
    """Reads the node hierarchy, transforms as they stand in the file: see `clean_nodes`.

    Returns:
      The nodes, and their indices ordered so that a parent comes before its children.

    Raises:
      UserError: a node is its own ancestor or has two parents, or a transform has a wrong size.
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
        if values.shape != (len(default),):
            raise document.fail(
                f"nodes[{index}].{key} is {str(entry[key])[:80]}, expected {len(default)} finite numbers"
            )
        return values

    mesh = document.entry("meshes", entry["mesh"]) if "mesh" in entry else {}
    if "skin" in entry:
        document.entry("skins", entry["skin"])
    matrix = numbers("matrix", [0.0] * 16).reshape(4, 4).T if "matrix" in entry else None
    weights = np.asarray(entry["weights"], np.float64) if "weights" in entry else None
    if weights is not None and weights.ndim != 1:
        raise document.fail(f"nodes[{index}].weights is {str(entry['weights'])[:80]}, expected a list of numbers")
    return Node(
        name=to_text(str(entry.get("name") or mesh.get("name") or f"node_{index}")),
        parent=parent,
        translation=numbers("translation", [0.0] * 3),
        rotation=numbers("rotation", [0.0, 0.0, 0.0, 1.0]),
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
            given = read_accessor(document, entry["inverseBindMatrices"], kind="MAT4", finite=False)
            inverse_bind = given.astype(np.float64)
        if len(inverse_bind) < len(joints):
            raise document.fail(
                f"skins[{index}] has {len(joints)} joints and {len(inverse_bind)} inverse bind matrices"
            )
        inverse_bind = inverse_bind[: len(joints)]
        finite = np.isfinite(inverse_bind.reshape(len(joints), 16))
        damaged = np.array([not row.all() for row in finite], bool)
        clean = np.where(damaged[:, None, None], np.eye(4), inverse_bind)
        skins.append(Skin(np.array(joints, np.int64), clean, damaged))
    return tuple(skins)


def find_needed(nodes: tuple[Node, ...], skins: tuple[Skin, ...], drawn: list[int]) -> np.ndarray:
    """Which nodes [nodes] place anything drawn: the drawn ones, the joints of their skins, and what is above these."""
    needed = np.zeros(len(nodes), bool)
    roots = list(drawn)
    for index in drawn:
        if nodes[index].skin >= 0:
            roots.extend(int(joint) for joint in skins[nodes[index].skin].joints)
    for index in roots:
        while index >= 0 and not needed[index]:
            needed[index] = True
            index = nodes[index].parent
    return needed


def clean_nodes(faults: Faults, nodes: tuple[Node, ...], needed: np.ndarray) -> tuple[Node, ...]:
    """The nodes with finite transforms and unit rotations; what is wrong with one that is `needed` is a fault."""
    return tuple(_clean_node(faults, index, node, bool(needed[index])) for index, node in enumerate(nodes))


def _clean_node(faults: Faults, index: int, node: Node, needed: bool) -> Node:
    defaults = {
        "translation": np.zeros(3),
        "rotation": np.array([0.0, 0.0, 0.0, 1.0]),
        "scale": np.ones(3),
        "matrix": np.eye(4),
    }
    changes = {}
    for key, default in defaults.items():
        value = getattr(node, key)
        if value is None:
            continue
        zero = key == "rotation" and not 1e-6 <= np.linalg.norm(value) < np.inf
        if np.isfinite(value).all() and not zero:
            continue
        changes[key] = default
        where = f"nodes[{index}].{key} of {node.name!r}"
        if needed and not faults.repair:
            shown = " ".join(f"{number:g}" for number in np.ravel(value))
            expected = "a unit quaternion" if zero else f"{value.size} finite numbers"
            raise faults.document.fail(f"{where} is {shown}, expected {expected}; with --repair it is left out")
        if needed:
            faults.lines.append(f"repaired: {where}: left out")
    rotation = changes.get("rotation", node.rotation)
    return replace(node, **{**changes, "rotation": rotation / np.linalg.norm(rotation)})


def check_joints(
    document: Document, where: str, joints: np.ndarray, weights: np.ndarray, used: np.ndarray, skin: Skin
) -> np.ndarray:
    """Joints [p,S] of a skin, 0 where a slot has no weight: such a slot may hold any number.

    Raises:
      UserError: a vertex in use follows a joint that the skin has not, or whose inverse bind matrix is not finite.
    """
    follows = (weights > 0) & used[:, None]
    beyond = joints >= len(skin.joints)
    if (follows & beyond).any():
        row = int(np.flatnonzero((follows & beyond).any(axis=1))[0])
        found = joints[row][follows[row] & beyond[row]][0]
        raise document.fail(f"{where}: vertex {row} refers to joint {found} of {len(skin.joints)} in its skin")
    joints = np.where(beyond, 0, joints)
    damaged = np.flatnonzero(skin.damaged)
    hit = np.isin(joints, damaged) & follows
    if hit.any():
        raise document.fail(
            f"{where}: vertex {int(np.flatnonzero(hit.any(axis=1))[0])} follows joint {joints[hit][0]} of its skin, "
            "whose inverse bind matrix is not finite, expected finite numbers"
        )
    return joints


def read_clips(faults: Faults, needed: np.ndarray) -> tuple[Clip, ...]:
    """Reads all animations. Clips without a name are called animation_0, ..., and a name used again gets a number.

    A clip with key times that fall or are negative, key counts that do not match, an unknown interpolation, or NaN
    where something drawn needs it (`needed` [nodes]) has a `problem`.
    """
    document = faults.document
    clips: list[Clip] = []
    names: set[str] = set()
    for index, entry in enumerate(document.entries("animations")):
        stem = to_text(str(entry.get("name") or f"animation_{index}"))
        numbered = (f"{stem}_{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([stem], numbered) if name not in names)
        names.add(name)
        try:
            channels = _read_channels(faults, f"animations[{index}] {name!r}", entry, needed)
        except UserError as error:
            clips.append(Clip(name, 0.0, 0.0, (), str(error)))
            continue
        if channels:
            start, end = min(c.times[0] for c in channels), max(c.times[-1] for c in channels)
            clips.append(Clip(name, float(start), float(end), channels))
    return tuple(clips)


def _read_channels(faults: Faults, where: str, entry: dict[str, Any], needed: np.ndarray) -> tuple[Channel, ...]:
    channels = (
        _read_channel(faults, f"{where}.channels[{index}]", spec, entry["samplers"], needed)
        for index, spec in enumerate(entry["channels"])
    )
    return tuple(channel for channel in channels if channel)


def _read_channel(
    faults: Faults, where: str, spec: dict[str, Any], samplers: list[dict[str, Any]], needed: np.ndarray
) -> Channel | None:
    """One channel; None where it moves nothing that is drawn (no node, or a path of an extension, or NaN unseen)."""
    target, document = spec["target"], faults.document
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
    times = read_accessor(document, sampler["input"], kind="SCALAR", finite=False).astype(np.float64)
    values = read_accessor(document, sampler["output"], finite=False).astype(np.float64)
    if len(times) == 0:
        raise document.fail(f"{where} has no key times, expected at least one")
    per_key = 3 if interpolation == CUBIC else 1
    width = PATHS.get(path) or values.size // (len(times) * per_key)
    if width == 0 or values.size != len(times) * per_key * width or (path in PATHS and values.shape[1:] != (width,)):
        raise document.fail(f"{where} has {values.shape} values for {len(times)} keys of {path}")
    shape = (len(times), 3, width) if interpolation == CUBIC else (len(times), width)
    channel = Channel(target["node"], path, interpolation, times, values.reshape(shape))
    cleaned = _clean_keys(faults, where, channel, needed=bool(needed[target["node"]]))
    if cleaned is not None:
        _check_times(document, where, cleaned.times)
    return cleaned


def _check_times(document: Document, where: str, times: np.ndarray) -> None:
    falls = np.flatnonzero(np.diff(times) < 0)
    if times[0] < 0 or len(falls):
        found = f"its first key at {times[0]:g} s" if times[0] < 0 else f"key {falls[0] + 1} before the one before it"
        raise document.fail(f"{where} has {found}, expected key times that rise from 0 or later")


def _clean_keys(faults: Faults, where: str, channel: Channel, *, needed: bool) -> Channel | None:
    """The channel without keys that hold no numbers, which are a fault where it is `needed`; None if none is left."""
    finite = np.isfinite(channel.times) & np.isfinite(channel.values.reshape(len(channel.times), -1)).all(axis=1)
    if finite.all():
        return channel
    if not needed:
        return None
    key = int(np.flatnonzero(~finite)[0])
    if not faults.repair or not finite.any():
        shown = " ".join(f"{value:g}" for value in [channel.times[key], *np.ravel(channel.values[key])[:12]])
        raise faults.document.fail(
            f"{where} has the time and {channel.path} {shown} at key {key}, expected finite numbers; with --repair "
            "such keys are left out, but for the last"
        )
    faults.lines.append(f"repaired: {where}: {int((~finite).sum())} of {len(finite)} keys left out")
    return replace(channel, times=channel.times[finite], values=channel.values[finite])
