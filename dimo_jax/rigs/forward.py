"""Forward kinematics in JAX: local transforms of all nodes of a file to where the nodes are in the world.

Nodes keep the indices that they have in the file. Source: the Khronos glTF 2.0 specification, section 3.5.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.geometry import quaternion
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skeleton import Node

FRAMES = 32


class Pose(flax.struct.PyTreeNode):
    """Local transforms of the N nodes of a rig, each against its parent, and its M morph weights.

    Leading axes (clips, frames) may precede N and M.
    """

    translations: Array  # [...,N,3] the file's units
    rotations: Array  # [...,N,4] wxyz
    scales: Array  # [...,N,3]
    morphs: Array  # [...,M] see `Rig.morph_spans`


class Rig(flax.struct.PyTreeNode):
    """The nodes of a model at rest, and what hangs below what."""

    rest: Pose  # without leading axes
    shears: Array  # [N,3,3] of a node's matrix what no rotation and scale make, applied first; else the identity
    parents: tuple[int, ...] = flax.struct.field(pytree_node=False)  # -1 for a root
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    matrix_nodes: tuple[int, ...] = flax.struct.field(pytree_node=False)  # the file gives these as matrices
    morph_spans: tuple[tuple[int, int, int], ...] = flax.struct.field(pytree_node=False)  # node, first weight, count

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return len(self.parents)

    @functools.cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The nodes by their depth, roots first; within a depth in rising order."""
        depths: dict[int, int] = {-1: -1}

        def depth(node: int) -> int:
            path = []
            while node not in depths:
                path.append(node)
                node = self.parents[node]
            for each in reversed(path):
                depths[each] = depths[self.parents[each]] + 1
            return depths[path[0]] if path else depths[node]

        by_depth: dict[int, list[int]] = {}
        for node in range(self.num_nodes):
            by_depth.setdefault(depth(node), []).append(node)
        return tuple(tuple(by_depth[key]) for key in sorted(by_depth))


def make_rig(scene: Scene) -> Rig:
    """The rig of a model, as float32 arrays; a node that the file gives as a matrix is taken apart."""
    parts = [_take_apart(node) for node in scene.nodes]
    spans, weights, count = [], [np.zeros(0)], 0
    for node, part in {part.node: part for part in scene.parts if len(part.morph_targets)}.items():
        spans.append((node, count, len(part.morph_weights)))
        weights.append(part.morph_weights)
        count += len(part.morph_weights)
    translations, rotations, scales, shears = (
        jnp.asarray(np.reshape([part[axis] for part in parts], (len(parts), *shape)), jnp.float32)
        for axis, shape in enumerate(((3,), (4,), (3,), (3, 3)))
    )
    return Rig(
        rest=Pose(translations, rotations, scales, jnp.asarray(np.concatenate(weights), jnp.float32)),
        shears=shears,
        parents=tuple(int(node.parent) for node in scene.nodes),
        names=tuple(node.name for node in scene.nodes),
        matrix_nodes=tuple(index for index, node in enumerate(scene.nodes) if node.matrix is not None),
        morph_spans=tuple(spans),
    )


def _take_apart(node: Node) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Translation, rotation wxyz, scale and shear of a node, whose linear part is the product of the last three."""
    if node.matrix is None:
        return node.translation, np.roll(node.rotation, 1), node.scale, np.eye(3)
    linear = node.matrix[:3, :3]
    scale = np.linalg.norm(linear, axis=0)
    rotation = linear / np.where(scale > 0, scale, 1)
    if not (scale.min() > 0 and np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-6)):
        return node.matrix[:3, 3], np.array([1.0, 0.0, 0.0, 0.0]), np.ones(3), linear
    mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(rotation))])
    return node.matrix[:3, 3], to_wxyz(rotation * mirror), scale * mirror, np.eye(3)


def to_wxyz(rotations: np.ndarray) -> np.ndarray:
    """Unit quaternions [...,4] wxyz, w 0 or more, of rotation matrices [...,3,3]: eigenvectors (Bar-Itzhack 2000)."""
    m = np.asarray(rotations, np.float64)
    k = np.zeros((*m.shape[:-2], 4, 4))
    trace = np.trace(m, axis1=-2, axis2=-1)
    k[..., 0, 0] = trace
    k[..., 1:, 1:] = m + m.swapaxes(-1, -2) - trace[..., None, None] * np.eye(3)
    k[..., 0, 1:] = k[..., 1:, 0] = np.stack(
        [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], axis=-1
    )
    quats = np.linalg.eigh(k)[1][..., -1]
    return np.where(quats[..., :1] < 0, -quats, quats)


def multiply(a: Array, b: Array) -> Array:
    """Products of small matrices [...,m,k] [...,k,n], in full float32 on every device: sums, not dots."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(axis=-2)


@jax.jit
def forward_kinematics(rig: Rig, translations: Array, rotations: Array, scales: Array) -> Array:
    """Node-to-world matrices of a rig whose nodes have these local transforms.

    Differentiable in all of them.

    Args:
      rig: with N nodes.
      translations: [...,N,3].
      rotations: [...,N,4] wxyz; need not be unit.
      scales: [...,N,3].

    Returns:
      [...,N,4,4]; leading axes broadcast.
    """
    batch = jnp.broadcast_shapes(translations.shape[:-2], rotations.shape[:-2], scales.shape[:-2])
    linear = multiply(quaternion.to_matrix(rotations) * scales[..., None, :], rig.shears)
    count = rig.num_nodes
    linear = jnp.broadcast_to(linear, (*batch, count, 3, 3))
    translations = jnp.broadcast_to(translations, (*batch, count, 3)).astype(linear.dtype)
    top = chain_matrices(rig, jnp.concatenate([linear, translations[..., None]], axis=-1))
    bottom = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], top.dtype), (*batch, count, 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)


def chain_matrices(rig: Rig, local: Array) -> Array:
    """Node-to-world matrices [...,N,3,4] of nodes with the matrices `local` [...,N,3,4] against their parents."""
    levels: list[Array] = []
    place: dict[int, int] = {}
    for number, level in enumerate(rig.levels):
        mine = local[..., np.array(level), :, :]
        if number:
            above = levels[-1][..., np.array([place[rig.parents[node]] for node in level]), :, :]
            moved = multiply(above[..., :3], mine)
            mine = jnp.concatenate([moved[..., :3], moved[..., 3:] + above[..., 3:]], axis=-1)
        levels.append(mine)
        place |= {node: index for index, node in enumerate(level)}
    if not levels:
        return local
    order = np.argsort(np.concatenate([np.array(level) for level in rig.levels]))
    return jnp.concatenate(levels, axis=-3)[..., order, :, :]


def prune_rig(rig: Rig, nodes: tuple[int, ...]) -> Rig:
    """The rig of some of its nodes, in rising order and with all above them; without morph weights.

    Raises:
      ValueError: the parent of one of them is missing.
    """
    place = {-1: -1} | {node: index for index, node in enumerate(nodes)}
    missing = {rig.parents[node] for node in nodes} - set(place)
    if missing:
        raise ValueError(f"nodes: parents {sorted(missing)} are not among them")
    chosen = np.array(nodes, int)
    rest = jax.tree.map(lambda x: x[chosen], rig.rest.replace(morphs=jnp.zeros(rig.num_nodes)))
    return Rig(
        rest=rest.replace(morphs=rig.rest.morphs[:0]),
        shears=rig.shears[chosen],
        parents=tuple(place[rig.parents[node]] for node in nodes),
        names=tuple(rig.names[node] for node in nodes),
        matrix_nodes=tuple(place[node] for node in rig.matrix_nodes if node in place),
        morph_spans=(),
    )


def place_nodes(rig: Rig, pose: Pose) -> Array:
    """Node-to-world matrices [...,N,4,4] of a pose: see `forward_kinematics`."""
    return forward_kinematics(rig, pose.translations, pose.rotations, pose.scales)


def place_frames(rig: Rig, pose: Pose) -> np.ndarray:
    """Node-to-world matrices [T,N,4,4] float64 of a clip; a program serves all T up to a multiple of `FRAMES`."""
    count = len(pose.translations)
    padded = jax.tree.map(lambda x: pad_frames(np.asarray(x)), pose)
    return np.asarray(place_nodes(rig, padded), np.float64)[:count]


def pad_frames(values: np.ndarray) -> np.ndarray:
    """Values [T,...] with the last repeated until their number is a multiple of `FRAMES`."""
    missing = -len(values) % FRAMES
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing else values
