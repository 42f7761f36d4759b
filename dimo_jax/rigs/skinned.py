"""The drawn vertices of a model in JAX: all skins, rigid parts on moving nodes, and morph targets.

Source: the Khronos glTF 2.0 specification, sections 3.7.2.2 (morph targets) and 3.7.3 (skins).
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.rigs.forward import Pose, Rig, multiply, place_nodes
from dimo_jax.rigs.scene import Part, Scene


class Surface(flax.struct.PyTreeNode):
    """Vertices and the bones that move them. A bone is a joint of one skin, or the node of a part without a skin."""

    positions: Array  # [P,3] of the mesh
    bones: Array  # [P,S] int
    weights: Array  # [P,S], sum 1
    offsets: Array  # [B,3,4] mesh to bone: inverse bind matrices
    targets: tuple[Array, ...]  # [targets,p,3] offsets of the vertices of each entry of `morphed`
    nodes: tuple[int, ...] = flax.struct.field(pytree_node=False)  # [B] of each bone
    morphed: tuple[tuple[int, int], ...] = flax.struct.field(pytree_node=False)  # first vertex, first morph weight


def make_surface(scene: Scene, rig: Rig) -> Surface:
    """The vertices of a model, in the order of its mesh, as float32 arrays; bones without any weight are left out."""
    bones: dict[tuple[int, int], int] = {}  # (skin, place in the skin or node) -> bone
    nodes: list[int] = []
    offsets: list[np.ndarray] = []
    width = max([part.joints.shape[1] for part in scene.parts if part.skin >= 0], default=1)
    indices = np.zeros((scene.num_vertices, max(width, 1)), np.int32)
    weights = np.zeros(indices.shape, np.float32)
    for part in scene.parts:
        rows = slice(part.start, part.start + len(part.positions))
        used, local = _find_bones(part)
        for place in used:
            key = (part.skin, int(place) if part.skin >= 0 else part.node)
            if key not in bones:
                bones[key] = len(nodes)
                skin = scene.skins[part.skin] if part.skin >= 0 else None
                nodes.append(int(skin.joints[place]) if skin else part.node)
                offsets.append(skin.inverse_bind[place][:3] if skin else np.eye(4)[:3])
        keys = [(part.skin, int(place) if part.skin >= 0 else part.node) for place in used]
        numbers = np.array([bones[key] for key in keys], np.int32)
        columns = slice(0, local[0].shape[1])
        indices[rows, columns] = numbers[local[0]] if len(numbers) else 0
        weights[rows, columns] = local[1]
    first = {node: start for node, start, _ in rig.morph_spans}
    shaped = [part for part in scene.parts if len(part.morph_targets)]
    return Surface(
        positions=jnp.asarray(np.concatenate([part.positions for part in scene.parts]), jnp.float32),
        bones=jnp.asarray(indices),
        weights=jnp.asarray(weights),
        offsets=jnp.asarray(np.reshape(offsets, (-1, 3, 4)), jnp.float32),
        targets=tuple(jnp.asarray(part.morph_targets, jnp.float32) for part in shaped),
        nodes=tuple(nodes),
        morphed=tuple((part.start, first[part.node]) for part in shaped),
    )


def _find_bones(part: Part) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The places in its skin of the joints that move a part, and its vertices' [p,S] numbers in these and weights."""
    if part.skin < 0:
        return np.zeros(1, np.int64), (np.zeros((len(part.positions), 1), np.int64), np.ones((len(part.positions), 1)))
    joints = np.where(part.weights > 0, part.joints, part.joints[:, :1] if part.joints.size else 0)
    strongest = np.take_along_axis(part.joints, part.weights.argmax(axis=1)[:, None], axis=1)
    joints = np.where(part.weights > 0, joints, strongest)
    used, numbers = np.unique(joints, return_inverse=True)
    return used, (numbers.reshape(joints.shape), part.weights)


@jax.jit
def deform_surface(surface: Surface, matrices: Array, morphs: Array) -> Array:
    """World positions of all vertices.

    Differentiable in both.

    Args:
      surface: with P vertices.
      matrices: [...,N,4,4] node to world, see `forward_kinematics`.
      morphs: [...,M] morph weights of a pose.

    Returns:
      [...,P,3]; leading axes broadcast.
    """
    above = matrices[..., np.array(surface.nodes, np.int32), :3, :]
    moved = multiply(above[..., :3], surface.offsets)
    bones = jnp.concatenate([moved[..., :3], moved[..., 3:] + above[..., 3:]], axis=-1)
    points = jnp.broadcast_to(surface.positions, (*morphs.shape[:-1], *surface.positions.shape))
    for (start, first), targets in zip(surface.morphed, surface.targets):
        shares = morphs[..., first : first + len(targets), None, None]
        points = points.at[..., start : start + targets.shape[1], :].add((shares * targets).sum(axis=-3))
    blended = jnp.zeros((), points.dtype)
    for slot in range(surface.bones.shape[1]):
        blended = blended + surface.weights[:, slot, None, None] * bones[..., surface.bones[:, slot], :, :]
    return multiply(blended[..., :3], points[..., None])[..., 0] + blended[..., 3]


def pose_surface(rig: Rig, surface: Surface, pose: Pose) -> Array:
    """World positions [...,P,3] of all vertices in a pose."""
    return deform_surface(surface, place_nodes(rig, pose), pose.morphs)
