"""What a pose map shows of a rig: the points of `markers`, those at one place as one, each in its own colour.

Joints that carry no weight move nothing and crowd the picture, joints at one place hide each other, and a last joint's
turning cannot be seen from its head: so those are left out, merged, and given a tip (measured: docs/rigs.md). Where all
points of a skeleton lie on a line, as a fish's do, one more beside it shows how it rolls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.rigs.markers import Joints, collect_followers, find_joints, place_markers
from dimo_jax.rigs.palette import MAX_COLORS, assign_colors
from dimo_jax.rigs.posing import pose_nodes, pose_scene
from dimo_jax.rigs.scene import Scene

STRAIGHT = 0.2  # of their extent along a line: points that leave it by less lie on it
_LEAST_SIDE, _OF_SIDE = 0.02, 0.5  # of the diagonal, away from the line; weight from which a vertex follows a joint
COINCIDENT = 5e-3  # of the diagonal: discs of points that are nearer cover each other in every view


@dataclass(frozen=True)
class PoseMarkers:
    """K markers, each of one or several of the M points of a rig."""

    joints: Joints
    names: tuple[str, ...]  # of the first point, with "#2", "#3", ... where it is not the first of that name
    marker_of: np.ndarray  # [M] the marker of each point; -1 where none shows it, see `few_markers`
    parents: np.ndarray  # [K] marker that a line goes to, -1 for none
    rest: np.ndarray  # [K,3] world positions at rest
    colors: np.ndarray  # [K,3] uint8
    diagonal: float  # of the box around the model at rest


def measure_diagonal(scene: Scene) -> float:
    """Diagonal of the box around all visible vertices at rest, in the scene's units."""
    return float(np.linalg.norm(np.ptp(pose_scene(scene, None, 0.0), axis=0)))


def make_markers(scene: Scene) -> PoseMarkers:
    """The markers of a model.

    Raises:
      UserError: no skin, no joint that carries weight, or more markers than there are colours.
    """
    diagonal = measure_diagonal(scene)
    matrices = pose_nodes(scene, None, np.zeros(1)).matrices
    joints = _add_sides(scene, find_joints(scene), matrices, diagonal)
    points = place_markers(joints, matrices)[0]
    marker_of = _merge(points, COINCIDENT * diagonal)
    count = int(marker_of.max()) + 1
    if count > MAX_COLORS:
        raise UserError(f"{scene.path}: {count} markers for its joints, expected at most {MAX_COLORS}")
    first = np.array([np.flatnonzero(marker_of == index)[0] for index in range(count)])
    rest = _average(points[None], marker_of)[0]
    return PoseMarkers(
        joints=joints,
        names=tuple(_tell_apart([joints.names[index] for index in first])),
        marker_of=marker_of,
        parents=np.array([_find_parent(scene, joints, marker_of, int(index)) for index in first]),
        rest=rest,
        colors=assign_colors(rest),
        diagonal=diagonal,
    )


def _add_sides(scene: Scene, joints: Joints, matrices: np.ndarray, diagonal: float) -> Joints:
    """Joints with a point more, off the line, for each tree of them whose points lie on one: nothing shows its roll."""
    points, tops = place_markers(joints, matrices)[0], _find_tops(joints)
    followers = collect_followers(scene)
    nodes, offsets, names = list(joints.nodes), list(joints.offsets), list(joints.names)
    for top in dict.fromkeys(tops.values()):
        own = points[[tops[node] == top for node in joints.nodes]]
        middle = own.mean(axis=0)
        _, sizes, axes = np.linalg.svd(np.concatenate([own - middle, np.zeros((2, 3))]))
        if sizes[1] > STRAIGHT * sizes[0]:
            continue
        best, far = None, _LEAST_SIDE * diagonal
        for node in (node for node in joints.deforming if tops[node] == top):
            local, weights = followers[node]
            places = local @ matrices[0, node, :3, :3].T + matrices[0, node, :3, 3] - middle
            away = np.linalg.norm(places - np.outer(places @ axes[0], axes[0]), axis=1) * (weights > _OF_SIDE)
            if away.max(initial=0) > far:
                best, far = (node, local[away.argmax()]), 1.5 * float(away.max())  # above goes before a bit further out
        if best is not None:
            nodes.append(best[0])
            offsets.append(best[1])
            names.append(f"{scene.nodes[best[0]].name} (side)")
    return replace(joints, nodes=tuple(nodes), offsets=np.array(offsets), names=tuple(names))


def _find_tops(joints: Joints) -> dict[int, int]:
    """The topmost joint above each solved node."""
    tops: dict[int, int] = {}
    for place, node in enumerate(joints.solved):
        parent = joints.parents[place]
        tops[node] = tops[joints.solved[parent]] if parent >= 0 else node
    return tops


def place_pose_markers(markers: PoseMarkers, matrices: np.ndarray) -> np.ndarray:
    """World positions [T,K,3] of markers, from matrices [T,nodes,4,4] node to world: in the middle of their points."""
    return _average(place_markers(markers.joints, matrices), markers.marker_of)


def _average(points: np.ndarray, marker_of: np.ndarray) -> np.ndarray:
    """Middles [T,K,3] of the points [T,M,3] of each marker."""
    shares = (marker_of == np.arange(marker_of.max() + 1)[:, None]).astype(np.float64)
    return np.matmul(shares / shares.sum(axis=1, keepdims=True), points)


def _merge(points: np.ndarray, tolerance: float) -> np.ndarray:
    """The group of each of some points [M,3]; one within `tolerance` of a group's first point belongs to that."""
    firsts: list[int] = []
    groups = np.empty(len(points), int)
    for index, point in enumerate(points):
        near = [g for g, first in enumerate(firsts) if np.linalg.norm(point - points[first]) < tolerance]
        if not near:
            firsts.append(index)
        groups[index] = near[0] if near else len(firsts) - 1
    return groups


def _find_parent(scene: Scene, joints: Joints, marker_of: np.ndarray, point: int) -> int:
    """The marker at a point's own head where it is a tip, else of the nearest head above that is another's."""
    own, node = marker_of[point], joints.nodes[point]
    heads = {head: int(marker_of[place]) for place, head in enumerate(joints.deforming)}
    above = node if point >= joints.num_heads else scene.nodes[node].parent
    while above >= 0:
        if heads.get(above, own) != own:
            return heads[above]
        above = scene.nodes[above].parent
    return -1


def _tell_apart(names: list[str]) -> list[str]:
    """Names, of which the second and further ones of a kind end in "#2", "#3", ..."""
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if count == 1 else f"{name}#{count}" for name, count in zip(names, counts)]
