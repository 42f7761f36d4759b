"""Poses as plain vectors: of a rig's nodes only what its clips move and what moves anything drawn.

A rotation is the first two columns of its matrix, which a linear mixture of poses cannot tear apart as it does
quaternions of two signs (Zhou et al. 2019). Bones keep their lengths because nothing else of them is in the vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.geometry import quaternion, rotations
from dimo_jax.geometry.safe import safe_normalize
from dimo_jax.rigs.forward import Pose, Rig, chain_matrices, multiply
from dimo_jax.rigs.markers import Joints

_MOVES = 1e-4  # of a matrix's entries, a scale, or a morph weight: less is a file's rounding


@dataclass(frozen=True)
class Channels:
    """Which properties of which nodes a pose vector [C] holds; everything else rests."""

    turning: tuple[int, ...]  # nodes, six numbers each
    sliding: tuple[int, ...]  # nodes, three numbers each
    scaling: tuple[int, ...]  # likewise
    morphs: tuple[int, ...]  # morph weights of the rig, one number each

    @property
    def size(self) -> int:
        """Length C of a pose vector."""
        return 6 * len(self.turning) + 3 * (len(self.sliding) + len(self.scaling)) + len(self.morphs)

    def to_json(self) -> dict[str, Any]:
        """As `facts.json` has it."""
        return {name: list(getattr(self, name)) for name in ("turning", "sliding", "scaling", "morphs")}


def find_carriers(rig: Rig, joints: Joints) -> tuple[int, ...]:
    """The nodes that move anything drawn: those that are solved and all above them, in rising order."""
    found: set[int] = set()
    for node in joints.solved:
        while node >= 0 and node not in found:
            found.add(node)
            node = rig.parents[node]
    return tuple(sorted(found))


def find_channels(
    rig: Rig, joints: Joints, poses: Pose, matrices: np.ndarray, *, size: float, least_slide: float
) -> Channels:
    """The channels that a rig's own clips ask for.

    Joints on which nothing that deforms hangs further up slide wherever they do so. Of the others, whose sliding is
    the stretching of a bone, only those do that leave their place by `least_slide` of the size in some clip: there an
    animator moved a shoulder or a weapon, below it a file stores what its bones' lengths round to.

    Args:
      rig: with N nodes.
      joints: of it.
      poses: of all clips, any leading axes.
      matrices: [N,4,4] of its nodes at rest.
      size: of the model, in the file's units.
      least_slide: as a share of the size.
    """
    carriers = np.array(find_carriers(rig, joints))
    rest = rig.rest
    away = _matrices(poses.rotations) - _matrices(rest.rotations)
    turning = carriers[np.abs(away).max(axis=(*range(away.ndim - 3), -1, -2))[carriers] > _MOVES]
    slides = np.linalg.norm(np.asarray(poses.translations) - np.asarray(rest.translations), axis=-1)
    slides = slides.reshape(-1, rig.num_nodes).max(axis=0) * _scales_above(rig, matrices) / max(size, 1e-12)
    loose = np.array([node in _find_loose(rig, joints) for node in carriers], bool)
    sliding = carriers[slides[carriers] > np.where(loose, _MOVES, least_slide)]
    grown = np.abs(np.asarray(poses.scales) - np.asarray(rest.scales)).reshape(-1, rig.num_nodes, 3).max(axis=(0, 2))
    shaped = np.abs(np.asarray(poses.morphs) - np.asarray(rest.morphs))
    shaped = shaped.reshape(int(np.prod(shaped.shape[:-1])), shaped.shape[-1])
    return Channels(
        turning=tuple(map(int, turning)),
        sliding=tuple(map(int, sliding)),
        scaling=tuple(int(node) for node in carriers if grown[node] > _MOVES),
        morphs=tuple(map(int, np.flatnonzero(shaped.max(axis=0, initial=0) > _MOVES))),
    )


def _matrices(quats: Array) -> np.ndarray:
    given = np.asarray(quats)
    return rotations.to_matrix(given / np.maximum(np.linalg.norm(given, axis=-1, keepdims=True), 1e-12))


def _scales_above(rig: Rig, matrices: np.ndarray) -> np.ndarray:
    """By how much the parents of all nodes enlarge, at rest."""
    own, parents = np.cbrt(np.abs(np.linalg.det(matrices[:, :3, :3]))), np.array(rig.parents)
    return np.where(parents >= 0, own[parents], 1.0)


def _find_loose(rig: Rig, joints: Joints) -> set[int]:
    """The joints above which nothing deforms, and all nodes above these."""
    found: set[int] = set()
    for node, free in zip(joints.solved, joints.free):
        while free and node >= 0 and node not in found:
            found.add(node)
            node = rig.parents[node]
    return found


def to_vector(channels: Channels, pose: Pose) -> Array:
    """Poses with any leading axes as vectors [...,C]."""
    lead = pose.translations.shape[:-2]
    columns = quaternion.to_matrix(pose.rotations[..., np.array(channels.turning, int), :])[..., :2]
    parts = [
        columns.reshape(*lead, -1),
        pose.translations[..., np.array(channels.sliding, int), :].reshape(*lead, -1),
        pose.scales[..., np.array(channels.scaling, int), :].reshape(*lead, -1),
        pose.morphs[..., np.array(channels.morphs, int)],
    ]
    return jnp.concatenate(parts, axis=-1)


def _split(channels: Channels, vectors: Array) -> tuple[Array, Array, Array, Array]:
    """Rotations [...,n,3,3], translations [...,n,3], scales [...,n,3] and morph weights [...,n] of vectors [...,C]."""
    lead = vectors.shape[:-1]
    ends = np.cumsum([6 * len(channels.turning), 3 * len(channels.sliding), 3 * len(channels.scaling)])
    columns, places, sizes, morphs = jnp.split(vectors, ends, axis=-1)
    turns = orthonormalize(columns.reshape(*lead, -1, 3, 2))
    return turns, places.reshape(*lead, -1, 3), sizes.reshape(*lead, -1, 3), morphs


def _put(still: Array, nodes: tuple[int, ...], values: Array) -> Array:
    """`still` [N,...] for every vector, with `values` [...,n,...] at some nodes."""
    tail = still.ndim - 1
    lead = values.shape[: values.ndim - 1 - tail]
    spread = jnp.broadcast_to(still, (*lead, *still.shape))
    return spread.at[(..., np.array(nodes, int), *[slice(None)] * tail)].set(values)


def to_pose(channels: Channels, rig: Rig, vectors: Array) -> Pose:
    """The poses of vectors [...,C]; two columns that are not of a rotation become those of one near by."""
    turns, places, sizes, morphs = _split(channels, vectors)
    return Pose(
        translations=_put(rig.rest.translations, channels.sliding, places),
        rotations=_put(rig.rest.rotations, channels.turning, quaternion.from_matrix(turns)),
        scales=_put(rig.rest.scales, channels.scaling, sizes),
        morphs=_put(rig.rest.morphs, channels.morphs, morphs),
    )


def place_vectors(channels: Channels, rig: Rig, vectors: Array) -> Array:
    """Node-to-world matrices [...,N,3,4] of the poses of vectors [...,C]; differentiable, and without quaternions."""
    turns, places, sizes, _ = _split(channels, vectors)
    still = quaternion.to_matrix(rig.rest.rotations)
    linear = _put(still, channels.turning, turns) * _put(rig.rest.scales, channels.scaling, sizes)[..., None, :]
    translations = _put(rig.rest.translations, channels.sliding, places)
    return chain_matrices(rig, jnp.concatenate([multiply(linear, rig.shears), translations[..., None]], axis=-1))


def orthonormalize(columns: Array) -> Array:
    """Rotation matrices [...,3,3] of two columns [...,3,2], by Gram and Schmidt."""
    first = safe_normalize(columns[..., 0])
    second = columns[..., 1] - (first * columns[..., 1]).sum(axis=-1, keepdims=True) * first
    second = safe_normalize(second)
    return jnp.stack([first, second, jnp.cross(first, second)], axis=-1)
