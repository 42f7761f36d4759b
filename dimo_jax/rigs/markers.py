"""Which joints of a model deform it, and the points on them that say how it stands: heads, and the tips of leaves.

What is seen of a joint is its head. A leaf's own rotation moves no head, so it gets a second point, its tip, inside the
vertices that follow it. The twist of a joint about its only child is not seen by any of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.rigs.posing import pose_nodes
from dimo_jax.rigs.scene import Part, Scene

SHARE = 0.5  # of a joint's strongest weight, from which on a vertex counts as the joint's own
REACH = 0.9  # quantile of these vertices, along the bone, at which the tip lies
CENTERED = 0.05  # of their spread: a centre nearer to the head gives no direction


@dataclass(frozen=True)
class Joints:
    """The nodes that move what is drawn, and M points on them: all heads, then the tips of the leaves.

    Where the joints form one chain without forks, a point beside it comes last.
    """

    deforming: tuple[int, ...]  # nodes with weight, or with a part of their own, parents first
    solved: tuple[int, ...]  # these, joints above several of them, and the nodes between, parents first
    parents: tuple[int, ...]  # of each solved node its parent's place in `solved`; -1 for the topmost
    free: tuple[bool, ...]  # of each whether it may leave its place: nothing above it deforms
    nodes: tuple[int, ...]  # [M] of each point
    offsets: np.ndarray  # [M,3] of each point in its node's frame; a head has zeros
    names: tuple[str, ...]  # [M]

    @property
    def num_heads(self) -> int:
        """How many of the points are heads; the others are tips."""
        return len(self.deforming)


def find_joints(scene: Scene) -> Joints:
    """The joints that deform a model, and its points.

    Raises:
      UserError: nothing that is drawn has a skin, or no joint of it carries weight.
    """
    if not any(part.skin >= 0 for part in scene.parts):
        raise UserError(f"{scene.path}: no skin found, expected a mesh that joints deform")
    followers = collect_followers(scene)
    if not any(part.skin >= 0 and part.bound for part in scene.parts):
        raise UserError(f"{scene.path}: no joint carries weight, expected skin weights above 0")
    order = [int(node) for node in scene.order]
    deforming = tuple(node for node in order if node in followers)
    solved = _fill_between(scene, order, set(deforming))
    place = {node: index for index, node in enumerate(solved)}
    parents = tuple(place.get(scene.nodes[node].parent, -1) for node in solved)
    free: list[bool] = []
    for parent in parents:
        free.append(parent < 0 or (free[parent] and solved[parent] not in followers))
    leaves = _find_leaves(scene, deforming)
    tips = [(node, tip) for node in leaves if (tip := _place_tip(*followers[node])) is not None]
    nodes = (*deforming, *(node for node, _ in tips))
    names = [scene.nodes[node].name for node in deforming] + [f"{scene.nodes[node].name} (tip)" for node, _ in tips]
    offsets = np.concatenate([np.zeros((len(deforming), 3)), np.reshape([tip for _, tip in tips], (-1, 3))])
    side = _place_side(scene, followers, nodes, offsets) if len(set(parents)) == len(parents) else None
    if side is not None:
        nodes, offsets = (*nodes, side[0]), np.concatenate([offsets, side[1][None]])
        names.append(f"{scene.nodes[side[0]].name} (side)")
    return Joints(deforming, solved, parents, tuple(free), nodes, offsets, tuple(names))


def place_markers(
    joints: Joints, matrices: Array, nodes: tuple[int, ...] | None = None, offsets: np.ndarray | None = None
) -> np.ndarray:
    """World positions [...,M,3] float64 of a rig's points, or of others, by its nodes' matrices [...,N,4,4]."""
    if nodes is None or offsets is None:
        nodes, offsets = joints.nodes, joints.offsets
    chosen = np.asarray(matrices, np.float64)[..., np.array(nodes), :3, :]
    return np.einsum("...mab,mb->...ma", chosen[..., :3], offsets) + chosen[..., 3]


def check_names(scene: Scene, nodes: tuple[int, ...]) -> None:
    """Raises UserError for the first two of these nodes that have one name, for what tells joints by their names."""
    known: dict[str, int] = {}
    for node in nodes:
        name = scene.nodes[node].name
        if name in known:
            raise UserError(f"{scene.path}: nodes[{known[name]}] and nodes[{node}] are both called {name!r}, "
                            "expected one name for each joint")  # fmt: skip
        known[name] = node


def collect_followers(scene: Scene) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Node -> places [v,3] in its frame and weights [v] of the vertices that follow it."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for part in scene.parts:
        for node, places, weights in _split(scene, part):
            found.setdefault(node, []).append((places, weights))
    return {node: (np.concatenate([p for p, _ in each]), np.concatenate([w for _, w in each]))
            for node, each in found.items()}  # fmt: skip


def _split(scene: Scene, part: Part) -> list[tuple[int, np.ndarray, np.ndarray]]:
    if part.skin < 0:
        return [(part.node, part.positions, np.ones(len(part.positions)))]
    skin, found = scene.skins[part.skin], []
    for place in np.unique(part.joints[part.weights > 0]):
        weights = np.where(part.joints == place, part.weights, 0).sum(axis=1)
        rows = np.flatnonzero(weights)
        inverse = skin.inverse_bind[place]
        found.append(
            (int(skin.joints[place]), part.positions[rows] @ inverse[:3, :3].T + inverse[:3, 3], weights[rows])
        )
    return found


def _fill_between(scene: Scene, order: list[int], deforming: set[int]) -> tuple[int, ...]:
    """The nodes that deform, joints on which several branches of these hang, and the nodes between any two.

    A body that moves its limbs and no vertex is such a joint: only its turn says how limbs that turn with it twist.
    """
    joints = {int(joint) for part in scene.parts if part.skin >= 0 for joint in scene.skins[part.skin].joints}
    branches: dict[int, int] = {}
    below = set(deforming)
    for node in reversed(order):
        parent = scene.nodes[node].parent
        if node in below and parent >= 0:
            below.add(parent)
            branches[parent] = branches.get(parent, 0) + 1
    solved: dict[int, None] = {}
    for node in order:
        forks = node in joints and branches.get(node, 0) > 1
        if node in deforming or forks or (node in below and scene.nodes[node].parent in solved):
            solved[node] = None
    return tuple(solved)


def _find_leaves(scene: Scene, deforming: tuple[int, ...]) -> list[int]:
    inner = set()
    for node in deforming:
        above = scene.nodes[node].parent
        while above >= 0 and above not in inner:
            inner.add(above)
            above = scene.nodes[above].parent
    return [node for node in deforming if node not in inner]


def _place_side(
    scene: Scene, followers: dict[int, tuple[np.ndarray, np.ndarray]], nodes: tuple[int, ...], offsets: np.ndarray
) -> tuple[int, np.ndarray] | None:
    """A point beside a chain without forks, which alone shows how the whole rolls; None where nothing lies beside it.

    It is the vertex farthest from the chain's line, of all that follow one joint, on the node that it follows.
    """
    matrices = pose_nodes(scene, None, np.zeros(1)).matrices[0, :, :3]
    points = np.einsum("mab,mb->ma", matrices[list(nodes), :, :3], offsets) + matrices[list(nodes), :, 3]
    center = points.mean(axis=0)
    axes = np.linalg.svd(points - center)[2]
    best: tuple[float, int, np.ndarray] | None = None
    for node, (places, weights) in followers.items():
        own = places[weights >= SHARE * weights.max()]
        away = own @ matrices[node, :, :3].T + matrices[node, :, 3] - center
        off = np.linalg.norm(away - (away @ axes[0])[:, None] * axes[0], axis=1)
        if best is None or off.max() > best[0]:
            best = float(off.max()), node, own[off.argmax()]
    return best[1:] if best is not None and best[0] > 0 else None


def _place_tip(places: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """The tip [3] of a leaf in its frame, from the vertices that follow it; None where they are all at its head."""
    own = places[weights >= SHARE * weights.max()]
    center = own.mean(axis=0)
    spread = np.linalg.norm(own, axis=1).max()
    if not spread > 0:
        return None
    if np.linalg.norm(center) < CENTERED * spread:
        center = own[np.linalg.norm(own, axis=1).argmax()]
    direction = center / np.linalg.norm(center)
    along = own @ direction
    return direction * max(float(np.quantile(along, REACH)), 0.5 * float(along.max()))
