"""The way a model goes across the ground: found, taken from its clips, and given back to new ones.

A way is a twist [3]: along X and Z, and about +Y in radians, over a whole clip, as one screw about an axis that stands
upright. With it taken away, a walk that moves on, or turns, ends as it begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dimo_jax.geometry import rotations
from dimo_jax.rigs.forward import Pose, Rig, place_frames, to_wxyz

NO_WAY = np.zeros(3)
_SMALL = 1e-6  # radians, under which a way is straight


def find_way(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The twist [3] that brings points [P,3] nearest to others, but for their heights (Procrustes)."""
    ground, middles = [0, 2], [points[:, [0, 2]].mean(axis=0) for points in (before, after)]
    a, b = (points[:, ground] - middle for points, middle in zip((before, after), middles))
    angle = float(np.arctan2((a[:, 1] * b[:, 0] - a[:, 0] * b[:, 1]).sum(), (a * b).sum()))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # of (x, z) about +Y
    shift = middles[1] - turn @ middles[0]
    return np.array([*np.linalg.solve(_integrate(angle), shift), angle])


def _integrate(angle: float) -> np.ndarray:
    """[2,2] from the straight part of a twist to where it leads."""
    if abs(angle) < _SMALL:
        return np.eye(2)
    sine, rest = np.sin(angle) / angle, (1 - np.cos(angle)) / angle
    return np.array([[sine, rest], [-rest, sine]])


def follow_way(way: np.ndarray) -> np.ndarray:
    """The motion [4,4] of a whole twist [3]."""
    x, z, angle = (float(value) for value in way)
    matrix = np.eye(4)
    matrix[0, 0] = matrix[2, 2] = np.cos(angle)
    matrix[0, 2], matrix[2, 0] = np.sin(angle), -np.sin(angle)
    matrix[[0, 2], 3] = _integrate(angle) @ [x, z]
    return matrix


def follow_ways(ways: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Where one is [T,4,4] at times [T], 0 to 1, from a start at 0 on; `ways` is a twist [3], or one a frame [T,3]."""
    if ways.ndim == 1:
        return np.stack([follow_way(time * ways) for time in times])
    places, last = [follow_way(times[0] * ways[0])], 0
    for frame in range(1, len(times)):
        step = 0.5 * (ways[last] + ways[frame]) * (times[frame] - times[last])
        places.append(places[-1] @ follow_way(step))
        last = frame
    return np.stack(places)


def move_tops(rig: Rig, tops: Sequence[int], pose: Pose, places: np.ndarray) -> Pose:
    """A pose, leading axis T, moved as a whole by `places` [T,4,4] in the world.

    Args:
      rig: with N nodes.
      tops: nodes that are moved; none of them is above another.
      pose: leading axis T.
      places: [T,4,4] rigid motions.
    """
    matrices = place_frames(rig, pose)
    translations, turns = np.array(pose.translations, np.float64), np.array(pose.rotations, np.float64)
    for node in tops:
        above = matrices[:, rig.parents[node]] if rig.parents[node] >= 0 else np.broadcast_to(np.eye(4), places.shape)
        inner = np.linalg.pinv(above) @ places @ above
        translations[:, node] = np.einsum("tab,tb->ta", inner[:, :3, :3], translations[:, node]) + inner[:, :3, 3]
        turns[:, node] = rotations.keep_sign(rotations.multiply(to_wxyz(inner[:, :3, :3]), turns[:, node]))
    return pose.replace(translations=jnp.asarray(translations, jnp.float32), rotations=jnp.asarray(turns, jnp.float32))


def travel(rig: Rig, tops: Sequence[int], pose: Pose, ways: np.ndarray, times: np.ndarray) -> Pose:
    """A pose, leading axis T, that stays in place, sent along its way: see `follow_ways`."""
    return move_tops(rig, tops, pose, follow_ways(ways, times)) if np.any(ways) else pose


def take_way(rig: Rig, tops: Sequence[int], pose: Pose, way: np.ndarray, times: np.ndarray) -> Pose:
    """A pose, leading axis T, without its way: what `travel` undoes."""
    return move_tops(rig, tops, pose, np.linalg.inv(follow_ways(way, times)))


def find_movers(rig: Rig, carriers: Sequence[int], poses: Sequence[Pose], *, least: float = 1e-4) -> tuple[int, ...]:
    """The topmost of some nodes that leave their rest in poses; by these a model as a whole moves."""
    moving = np.zeros(rig.num_nodes, bool)
    for pose in poses:
        for name in ("translations", "rotations", "scales"):
            values, rest = (np.asarray(getattr(each, name), np.float64) for each in (pose, rig.rest))
            if name == "rotations":
                values = np.where((values * rest).sum(-1, keepdims=True) < 0, -values, values)
            moving |= np.abs(values - rest).max(axis=(0, 2)) > least * np.maximum(np.abs(rest).max(axis=-1), 1)
    return tuple(find_tops(rig, [node for node in carriers if moving[node]]))


def stay_in_place(rig: Rig, sliding: Sequence[int], pose: Pose) -> Pose:
    """A pose without the straight way across the ground (X and Z) from its first frame to its last.

    Sway, turns and jumps stay, as in an import with `root_motion="remove"`. All topmost sliding joints are shifted
    alike, by the mean of their ways, so that nothing between them stretches.

    Args:
      rig: with N nodes.
      sliding: nodes that slide, see `Channels`.
      pose: leading axis T.
    """
    tops = find_tops(rig, sliding)
    if not tops:
        return pose
    matrices = place_frames(rig, pose)
    places = matrices[..., :3, 3][:, tops].mean(axis=1)
    shift = -np.linspace(0, 1, len(places))[:, None] * (places[-1] - places[0]) * [1.0, 0.0, 1.0]
    translations = np.array(pose.translations, np.float64)
    for node in tops:
        parent = rig.parents[node]
        linear = matrices[:, parent, :3, :3] if parent >= 0 else np.broadcast_to(np.eye(3), (len(shift), 3, 3))
        translations[:, node] += np.einsum("tab,tb->ta", np.linalg.pinv(linear), shift)
    return pose.replace(translations=jnp.asarray(translations, jnp.float32))


def find_tops(rig: Rig, nodes: Sequence[int]) -> list[int]:
    """Those of some nodes above which none of them is."""
    chosen, tops = set(nodes), []
    for node in nodes:
        above = rig.parents[node]
        while above >= 0 and above not in chosen:
            above = rig.parents[above]
        if above < 0:
            tops.append(int(node))
    return tops
