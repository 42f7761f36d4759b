"""The points of a rig that a pose map shows: heads of the joints that move something, and tips of the last ones.

Joints that carry no weight move nothing and crowd the picture, joints at one place hide each other, and a last joint's
turning cannot be seen from its head: so those are left out, merged, and given a tip (measured: DESIGN, docs/rigs.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.rigs.palette import MAX_COLORS, assign_colors
from dimo_jax.rigs.posing import pose_nodes, pose_scene
from dimo_jax.rigs.scene import Part, Scene

COINCIDENT = 5e-3  # of the diagonal: discs of joints that are nearer cover each other in every view
_SHORTEST_TIP = 2e-2  # of the diagonal
_LEAST_WEIGHT = 1e-3  # of a vertex: sums of rounding errors carry nothing
_OF_TIP = 0.5  # weight from which a vertex counts as a joint's


@dataclass(frozen=True)
class Markers:
    """K points fixed to nodes of a rig."""

    names: tuple[
        str, ...
    ]  # of the first node, with "#2" where it is not the first of that name; a tip's ends in ":tip"
    nodes: tuple[tuple[int, ...], ...]  # the nodes that a marker stands for: several where heads coincide
    offsets: np.ndarray  # [K,3] in the first node's own frame; zero for heads
    parents: np.ndarray  # [K] marker that a line goes to, -1 for none; before the marker itself
    rest: np.ndarray  # [K,3] world positions at rest
    colors: np.ndarray  # [K,3] uint8
    diagonal: float  # of the box around the model at rest

    @property
    def is_tip(self) -> np.ndarray:
        """Which of the markers are tips -> [K] bool."""
        return np.array([name.endswith(":tip") for name in self.names])


def measure_diagonal(scene: Scene) -> float:
    """Diagonal of the box around all visible vertices at rest, in the scene's units."""
    return float(np.linalg.norm(np.ptp(pose_scene(scene, None, 0.0), axis=0)))


def find_carriers(scene: Scene) -> np.ndarray:
    """Nodes that move vertices: joints with weight, and nodes of parts without a skin -> [C], parents first."""
    heaviest = np.zeros(len(scene.nodes))
    for part in scene.parts:
        if part.skin < 0:
            heaviest[part.node] = 1
            continue
        for slot in range(part.joints.shape[1]):
            np.maximum.at(heaviest, scene.skins[part.skin].joints[part.joints[:, slot]], part.weights[:, slot])
    return np.array([index for index in scene.order if heaviest[index] > _LEAST_WEIGHT], int)


def make_markers(scene: Scene) -> Markers:
    """The markers of a model.

    Raises:
      UserError: nothing moves in it, or it has more markers than there are colours.
    """
    carriers = find_carriers(scene)
    if not any(part.skin >= 0 for part in scene.parts):
        raise UserError(f"{scene.path}: no skin found, expected a rigged model (a mesh with joints)")
    if not len(carriers):
        raise UserError(f"{scene.path}: no joint carries weight, expected a rigged model")
    diagonal = measure_diagonal(scene)
    matrices = pose_nodes(scene, None, np.zeros(1)).matrices[0]
    groups, group_of = _merge(carriers, matrices[:, :3, 3], COINCIDENT * diagonal)
    parents = [_find_parent(scene, group[0], group_of, index) for index, group in enumerate(groups)]
    nodes = [tuple(group) for group in groups]
    names = _tell_apart([scene.nodes[group[0]].name for group in groups])
    offsets = [np.zeros(3)] * len(groups)
    for index in range(len(groups)):
        if index in parents:
            continue
        tip = _find_tip(scene, nodes[index], matrices, _SHORTEST_TIP * diagonal)
        if tip is not None:
            names.append(f"{names[index]}:tip")
            nodes.append((tip[0],))
            offsets.append(tip[1])
            parents.append(index)
    if len(names) > MAX_COLORS:
        raise UserError(f"{scene.path}: {len(names)} markers for its joints, expected at most {MAX_COLORS}")
    first = np.array([group[0] for group in nodes])
    rest = np.einsum("kij,kj->ki", matrices[first, :3, :3], np.array(offsets)) + matrices[first, :3, 3]
    return Markers(
        names=tuple(names),
        nodes=tuple(nodes),
        offsets=np.array(offsets),
        parents=np.array(parents),
        rest=rest,
        colors=assign_colors(rest),
        diagonal=diagonal,
    )


def _tell_apart(names: list[str]) -> list[str]:
    """Names, of which the second and further ones of a kind end in "#2", "#3", ..."""
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if count == 1 else f"{name}#{count}" for name, count in zip(names, counts)]


def _merge(carriers: np.ndarray, heads: np.ndarray, tolerance: float) -> tuple[list[list[int]], dict[int, int]]:
    """Groups of nodes whose heads coincide, and the group of each."""
    groups: list[list[int]] = []
    group_of: dict[int, int] = {}
    for node in carriers.tolist():
        same = [i for i, group in enumerate(groups) if np.linalg.norm(heads[node] - heads[group[0]]) < tolerance]
        if not same:
            groups.append([])
        index = same[0] if same else len(groups) - 1
        groups[index].append(node)
        group_of[node] = index
    return groups, group_of


def _find_parent(scene: Scene, node: int, group_of: dict[int, int], own: int) -> int:
    """The group of the nearest node above that has one, other than its own; -1 for none."""
    above = scene.nodes[node].parent
    while above >= 0:
        if group_of.get(above, own) != own:
            return group_of[above]
        above = scene.nodes[above].parent
    return -1


def _find_tip(
    scene: Scene, nodes: tuple[int, ...], matrices: np.ndarray, shortest: float
) -> tuple[int, np.ndarray] | None:
    """The vertex of some nodes that is furthest from their head: (node, place in its frame); None if all are near."""
    furthest, found = shortest, None
    for part in scene.parts:
        for node in nodes:
            local = _own_vertices(scene, part, node)
            if not len(local):
                continue
            reach = np.linalg.norm(local @ matrices[node, :3, :3].T, axis=1)
            if reach.max() > furthest:
                furthest, found = float(reach.max()), (node, local[reach.argmax()])
    return found


def _own_vertices(scene: Scene, part: Part, node: int) -> np.ndarray:
    """Vertices of a part that mostly follow a node, in its frame -> [n,3]."""
    if part.skin < 0:
        return part.positions if part.node == node else np.zeros((0, 3))
    skin = scene.skins[part.skin]
    columns = np.flatnonzero(skin.joints == node)
    if not len(columns):
        return np.zeros((0, 3))
    weight = (part.weights * np.isin(part.joints, columns)).sum(axis=1)
    matrix = skin.inverse_bind[columns[0]]
    return part.positions[weight >= _OF_TIP] @ matrix[:3, :3].T + matrix[:3, 3]


def place_markers(markers: Markers, matrices: np.ndarray) -> np.ndarray:
    """World positions of markers.

    Args:
      markers: of the model.
      matrices: [T,nodes,4,4] node to world, of `posing.pose_nodes`.

    Returns:
      [T,K,3]. A merged head is in the middle of its nodes' heads.
    """
    places = np.empty((len(matrices), len(markers.names), 3))
    for index, nodes in enumerate(markers.nodes):
        chosen = matrices[:, list(nodes)]
        places[:, index] = (chosen[..., :3, :3] @ markers.offsets[index] + chosen[..., :3, 3]).mean(axis=1)
    return places
