"""Poses of a glTF scene: interpolation of clips, node transforms, morph targets and skinning, in float64.

Source: the Khronos glTF 2.0 specification, sections 3.7.3 (skins), 3.11 and appendix C (interpolation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.geometry import rotations
from dimo_jax.rigs.scene import Part, Scene, check_clips
from dimo_jax.rigs.skeleton import CUBIC, STEP, Channel, Clip


@dataclass(frozen=True)
class Poses:
    """Where all nodes of a scene are at T times."""

    matrices: np.ndarray  # [T,nodes,4,4] node to world
    weights: dict[int, np.ndarray]  # node -> [T,targets] morph weights, where a clip animates them


def sample_channel(channel: Channel, times: np.ndarray) -> np.ndarray:
    """Values of an animated property at `times` [T] in seconds -> [T,C].

    Before the first key and after the last the value stays. Rotations (xyzw) follow the shorter great arc between
    LINEAR keys and are normalized after CUBICSPLINE.
    """
    after = np.clip(np.searchsorted(channel.times, times, side="right"), 1, max(len(channel.times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(channel.times) - 1)
    span = channel.times[after] - channel.times[before]
    fraction = np.divide(times - channel.times[before], span, out=np.zeros(len(times)), where=span > 0)
    fraction = np.clip(fraction, 0, 1)[:, None]
    if channel.interpolation == CUBIC:
        values = _interpolate_cubic(channel.values[before], channel.values[after], fraction, span[:, None])
    elif channel.interpolation == STEP:
        values = np.where(fraction >= 1, channel.values[after], channel.values[before])
    elif channel.path == "rotation":
        values = _interpolate_rotation(channel.values[before], channel.values[after], fraction)
    else:
        values = channel.values[before] * (1 - fraction) + channel.values[after] * fraction
    if channel.path == "rotation":
        values = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
    return values


def _interpolate_cubic(before: np.ndarray, after: np.ndarray, s: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Hermite spline between keys [T,3,C] (in-tangent, value, out-tangent)."""
    s2, s3 = s * s, s * s * s
    return (
        (2 * s3 - 3 * s2 + 1) * before[:, 1]
        + span * (s3 - 2 * s2 + s) * before[:, 2]
        + (-2 * s3 + 3 * s2) * after[:, 1]
        + span * (s3 - s2) * after[:, 0]
    )


def _interpolate_rotation(before: np.ndarray, after: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Spherical interpolation of unit quaternions [T,4] along the shorter arc."""
    dot = (before * after).sum(-1, keepdims=True)
    after = np.where(dot < 0, -after, after)
    angle = np.arccos(np.clip(np.abs(dot), 0, 1))
    sine = np.sin(angle)
    near = sine < 1e-6  # the arc is straight at this length, and the quotient of sines loses its digits
    safe = np.where(near, 1.0, sine)
    first = np.where(near, 1 - s, np.sin((1 - s) * angle) / safe)
    second = np.where(near, s, np.sin(s * angle) / safe)
    return first * before + second * after


def compose_matrices(translation: np.ndarray, rotation: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Matrices [...,4,4] of translation [...,3], unit quaternion xyzw [...,4] and scale [...,3]."""
    matrices = np.zeros((*translation.shape[:-1], 4, 4))
    matrices[..., :3, :3] = rotations.to_matrix(np.roll(rotation, 1, axis=-1)) * scale[..., None, :]
    matrices[..., :3, 3] = translation
    matrices[..., 3, 3] = 1
    return matrices


def pose_nodes(scene: Scene, clip: Clip | None, times: np.ndarray) -> Poses:
    """Transforms of all nodes at `times` [T] in seconds of a clip's own time line; without a clip, the rest pose."""
    if clip is not None:
        check_clips([clip])
    times = np.atleast_1d(np.asarray(times, np.float64))
    animated: dict[tuple[int, str], np.ndarray] = {}
    for channel in clip.channels if clip else ():
        animated[channel.node, channel.path] = sample_channel(channel, times)
    matrices = np.zeros((len(times), len(scene.nodes), 4, 4))
    for index in scene.order:
        node = scene.nodes[index]
        moved = any((index, path) in animated for path in ("translation", "rotation", "scale"))
        if node.matrix is not None and not moved:
            local = np.broadcast_to(node.matrix, (len(times), 4, 4))
        else:
            parts = [
                animated.get((int(index), path), np.broadcast_to(rest, (len(times), len(rest))))
                for path, rest in (
                    ("translation", node.translation),
                    ("rotation", node.rotation),
                    ("scale", node.scale),
                )
            ]
            local = compose_matrices(*parts)
        matrices[:, index] = matrices[:, node.parent] @ local if node.parent >= 0 else local
    weights = {node: values for (node, path), values in animated.items() if path == "weights"}
    return Poses(matrices, weights)


def pose_vertices(scene: Scene, poses: Poses, frame: int | slice) -> np.ndarray:
    """World positions [P,3] float64 of all visible vertices in frame `frame` of `poses`, or [T,P,3] of several.

    A skinned vertex is sum_j w_j joint_j inverse_bind_j v; the transform of its own node plays no part.
    """
    matrices = poses.matrices[frame]
    vertices = np.empty((*matrices.shape[:-3], scene.num_vertices, 3))
    for part in scene.parts:
        local = part.positions
        if len(part.morph_targets):
            weights = poses.weights.get(part.node)
            local = local + np.tensordot(
                part.morph_weights if weights is None else weights[frame], part.morph_targets, 1
            )
        vertices[..., part.start : part.start + len(part.positions), :] = _transform(scene, part, local, matrices)
    return vertices


def _transform(scene: Scene, part: Part, local: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Places `local` [...,p,3] by the nodes' `matrices` [...,nodes,4,4]; both lead with the same frames, or none."""
    if part.skin < 0:
        matrix = matrices[..., part.node, :, :]
        return local @ matrix[..., :3, :3].swapaxes(-1, -2) + matrix[..., None, :3, 3]
    skin = scene.skins[part.skin]
    joints = (matrices[..., skin.joints, :, :] @ skin.inverse_bind)[..., :3, :]
    moved = np.zeros((*matrices.shape[:-3], *part.positions.shape))
    for slot in range(part.joints.shape[1]):
        weight = part.weights[:, slot]
        used = np.flatnonzero(weight)
        chosen = joints[..., part.joints[used, slot], :, :]
        points = np.einsum("...pij,...pj->...pi", chosen[..., :3], local[..., used, :]) + chosen[..., 3]
        moved[..., used, :] += weight[used, None] * points
    return moved


def pose_scene(scene: Scene, clip: Clip | None, time: float) -> np.ndarray:
    """World positions [P,3] float64 of all visible vertices at `time` seconds of a clip; without a clip, at rest."""
    return pose_vertices(scene, pose_nodes(scene, clip, np.array([time])), 0)


def pose_joints(scene: Scene, poses: Poses) -> np.ndarray:
    """World positions [T,J,3] of the joints of all skins (of all animated scene nodes where there is no skin)."""
    return poses.matrices[:, scene.joints][..., :3, 3]
