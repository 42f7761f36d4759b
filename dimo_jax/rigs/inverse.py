"""Inverse kinematics: the pose in which points on a rig are where they were seen, for all frames at once.

Unknown are the turn of every joint that moves vertices, the place of the topmost of them, and how far bones stretch.
Levenberg-Marquardt on the squared distances, weighted by confidence, each step solved along the tree in linear time
(see `tree`). The twist of a bone about its own axis, which no point shows, is held near its rest by a weak prior.
The paper (AnimaX Sec. 3.3) turns joints from the root to the leaves, once; that is the start here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dimo_jax.geometry.rotations import keep_sign, multiply, to_matrix
from dimo_jax.rigs.fitting import HARD, Problem, fit_points
from dimo_jax.rigs.forward import Pose, Rig, place_nodes, to_wxyz
from dimo_jax.rigs.markers import Joints

SWING = 1e-8  # stiffness of a joint's turn in directions that points show, against a point of confidence 1
TWIST = 1e-6  # about the bone's own axis
BLIND = 1e-4  # of a joint on which nothing hangs away from its head, so that no point shows its turn
POINTS = 1e-3  # of the rig's size: the error of a point of confidence 1, against which bones stretch
SHORT = 1e-3  # of the rig's size: an arm that shows no turn
FREE = 1e-6  # stiffness of the place of the topmost joints


class Solution(NamedTuple):
    """A pose that fits T frames of points, and how well."""

    pose: Pose  # leading axis T
    misses: np.ndarray  # [T,M] distance of every point from where it was seen, the file's units; NaN where it was not
    stretches: np.ndarray  # [T,J] by how much each of `Joints.solved` is off its place on its parent, the file's units


@dataclass(frozen=True)
class Frame:
    """A base pose as rigid frames of the solved joints, and what hangs on them. Leading axis of T or 1 frames."""

    turns: np.ndarray  # [F,J,4] wxyz, the rotation in each joint's linear part
    places: np.ndarray  # [F,J,3]
    shapes: np.ndarray  # [F,J,3,3] the rest of the linear part: scales
    above: np.ndarray  # [F,J,3,4] what the node's parent is in the world, for the topmost


def solve_pose(
    rig: Rig,
    joints: Joints,
    targets: np.ndarray,
    confidences: np.ndarray | float = 1.0,
    *,
    base: Pose | None = None,
    nodes: tuple[int, ...] | None = None,
    offsets: np.ndarray | None = None,
    facings: np.ndarray | None = None,
    facing_confidences: np.ndarray | float = 1.0,
    stretch: float = 0.03,
    smooth: float = 0.0,
    num_iterations: int = 20,
) -> Solution:
    """Poses a rig by points.

    Args:
      rig: the model's nodes.
      joints: which of them move; see `find_joints`.
      targets: [T,M,3] where the points are in the world, in the file's units; NaN for a point that was not seen.
      confidences: [T,M], [M] or a number: the weight of each squared distance, 0 or more. 1 is a point seen as well as
        points are.
      base: the pose to start from and to which unseen turns tend, with a leading axis T or none; at rest by default.
        Nodes that are not solved stay as they are in it.
      nodes: [M] the nodes of other points than the joints' own, solved ones; with `offsets`.
      offsets: [M,3] of these points in their node's frame.
      facings: [T,J,4] rotations wxyz in the world to which the solved joints' rigid frames turn from their rest, NaN
        where none is known: 1 for a joint that faces as in the base pose.
      facing_confidences: [T,J], [J] or a number; the squared angle, in radians, counts like a squared distance of a
        tenth of the rig's size.
      stretch: by how much of the rig's size bones stretch, as a standard deviation, where points of confidence 1 have
        one of a thousandth; 0 keeps the lengths of all bones below the topmost exactly.
      smooth: weight of squared second differences in time, of turns in radians and places in sizes.
      num_iterations: steps of Levenberg-Marquardt.

    Returns:
      The pose, distances and stretches.
    """
    targets = np.asarray(targets, np.float64)
    if nodes is None or offsets is None:
        nodes, offsets = joints.nodes, joints.offsets
    frame = _make_frame(rig, joints, base)
    problem, size = _make_problem(rig, joints, frame, nodes, offsets, targets, confidences, stretch, smooth)
    if facings is not None:
        problem = _aim(problem, frame, facings, facing_confidences)
    turns, moves, heads, points = fit_points(problem, num_iterations)
    pose = _to_pose(rig, joints, frame, base, turns, heads * size, stretch > 0)
    misses = np.linalg.norm(points.swapaxes(0, 1) * size - targets, axis=-1)
    stretches = np.where(np.array(joints.free)[:, None], 0.0, np.linalg.norm(moves, axis=-1)).T * size
    return Solution(pose, misses, stretches if stretch > 0 else np.zeros_like(stretches))


def _make_frame(rig: Rig, joints: Joints, base: Pose | None) -> Frame:
    """The rigid frames of a base pose, as float64."""
    matrices = np.asarray(place_nodes(rig, rig.rest if base is None else base), np.float64)
    matrices = matrices[None] if matrices.ndim == 3 else matrices
    solved = np.array(joints.solved)
    linear = matrices[:, solved][..., :3, :3]
    mirrored = np.sign(np.linalg.det(linear))[..., None, None]
    u, _, vt = np.linalg.svd(np.where(mirrored < 0, -linear, linear))
    det = np.sign(np.linalg.det(u @ vt))
    u[..., :, 2] *= np.where(det == 0, 1, det)[..., None]
    rotation = u @ vt
    above = np.array([rig.parents[node] for node in joints.solved])
    world = np.where((above >= 0)[:, None, None], matrices[:, above][..., :3, :], np.eye(4)[:3])
    return Frame(
        turns=to_wxyz(rotation),
        places=matrices[:, solved][..., :3, 3],
        shapes=rotation.swapaxes(-1, -2) @ linear,
        above=world,
    )


def _rotate(quats: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors [...,3] turned by unit quaternions [...,4] wxyz, in float64."""
    w, xyz = quats[..., :1], quats[..., 1:]
    twice = 2 * np.cross(xyz, vectors)
    return vectors + w * twice + np.cross(xyz, twice)


def _normalize(quats: np.ndarray) -> np.ndarray:
    """Unit quaternions [...,4], in float64."""
    quats = np.asarray(quats, np.float64)
    return quats / np.maximum(np.linalg.norm(quats, axis=-1, keepdims=True), 1e-12)


_MIRROR = np.array([1.0, -1.0, -1.0, -1.0])  # makes the inverse of a unit quaternion


def _make_problem(
    rig: Rig,
    joints: Joints,
    frame: Frame,
    nodes: tuple[int, ...],
    offsets: np.ndarray,
    targets: np.ndarray,
    confidences: np.ndarray | float,
    stretch: float,
    smooth: float,
) -> tuple[Problem, float]:
    """The problem in units of the rig's size, and that size."""
    count, frames = len(joints.solved), len(targets)
    parents = np.array(joints.parents)
    place = {node: index for index, node in enumerate(joints.solved)}
    owners = np.array([place[node] for node in nodes])
    local = np.einsum("fmab,mb->fma", frame.shapes[:, owners], offsets)
    spots = frame.places[:, owners] + _rotate(frame.turns[:, owners], local)
    size = max(float(np.linalg.norm(np.ptp(spots[0], axis=0))), 1e-12)
    tops = parents < 0
    up = np.where(tops, 0, parents)
    arms = _rotate(frame.turns[:, up] * _MIRROR, frame.places - frame.places[:, up])
    arms = np.where(tops[:, None], frame.places, arms) / size
    turns = frame.turns
    against = multiply(turns[:, up] * _MIRROR, turns)
    ancestors = np.eye(count)
    for index, parent in enumerate(parents):
        if parent >= 0:
            ancestors[index] += ancestors[parent]
    seen = np.isfinite(targets).all(axis=-1)
    weights = np.where(seen, np.broadcast_to(confidences, seen.shape), 0.0)
    bone = (POINTS / stretch) ** 2 if stretch > 0 else HARD
    curved = np.full(frames, smooth)
    curved[[0, -1]] = 0.0
    return Problem(
        parents=jnp.asarray(np.where(tops, count, parents)),
        ancestors=jnp.asarray(ancestors, jnp.float32),
        arms=jnp.asarray(arms.swapaxes(0, 1), jnp.float32),
        rests=jnp.asarray(np.where(tops[:, None], turns, against).swapaxes(0, 1), jnp.float32),
        priors=jnp.asarray(_twist_priors(count, parents, owners, local / size, arms), jnp.float32),
        stiffness=jnp.asarray(np.where(joints.free, FREE, bone), jnp.float32),
        joints=jnp.asarray(owners),
        still_turns=jnp.asarray(turns.swapaxes(0, 1), jnp.float32),
        still_heads=jnp.asarray(frame.places.swapaxes(0, 1) / size, jnp.float32),
        still_points=jnp.asarray(spots.swapaxes(0, 1) / size, jnp.float32),
        offsets=jnp.asarray(local.swapaxes(0, 1) / size, jnp.float32),
        targets=jnp.asarray(np.where(seen[..., None], targets, 0.0).swapaxes(0, 1) / size, jnp.float32),
        confidences=jnp.asarray(weights.T, jnp.float32),
        facings=jnp.asarray(np.tile([1.0, 0.0, 0.0, 0.0], (count, frames, 1)), jnp.float32),
        facing_confidences=jnp.asarray(np.zeros((count, frames)), jnp.float32),
        smooth=jnp.asarray(curved, jnp.float32),
    ), size


def _twist_priors(
    count: int, parents: np.ndarray, owners: np.ndarray, local: np.ndarray, arms: np.ndarray
) -> np.ndarray:
    """Stiffness [J,F,3,3] of every joint's turn away from rest: weak, less so about the axis of what hangs on it."""
    axes, spread = np.zeros((local.shape[0], count, 3)), np.zeros((local.shape[0], count))
    for marker, owner in enumerate(owners):
        axes[:, owner] += local[:, marker]
        spread[:, owner] = np.maximum(spread[:, owner], np.linalg.norm(local[:, marker], axis=-1))
    for child, parent in enumerate(parents):
        if parent >= 0:
            axes[:, parent] += arms[:, child]
            spread[:, parent] = np.maximum(spread[:, parent], np.linalg.norm(arms[:, child], axis=-1))
    length = np.linalg.norm(axes, axis=-1, keepdims=True).swapaxes(0, 1)
    axes = axes.swapaxes(0, 1) / np.maximum(length, 1e-9)
    bound = TWIST * (parents >= 0)[:, None, None, None]  # the topmost have no rest to keep to
    seen = SWING * np.eye(3) + bound * axes[..., :, None] * axes[..., None, :]
    reach = spread.swapaxes(0, 1)[..., None, None]
    return np.where(reach < SHORT, BLIND * np.eye(3), np.where(length[..., None] < SHORT, SWING * np.eye(3), seen))


def _aim(problem: Problem, frame: Frame, facings: np.ndarray, confidences: np.ndarray | float) -> Problem:
    """The problem with orientations to meet."""
    facings = np.asarray(facings, np.float64)
    known = np.isfinite(facings).all(axis=-1)
    weights = np.where(known, np.broadcast_to(confidences, known.shape), 0.0) * 0.01
    asked = multiply(np.where(known[..., None], facings, [1.0, 0, 0, 0]), frame.turns).swapaxes(0, 1)
    return problem.replace(
        facings=jnp.asarray(asked, jnp.float32), facing_confidences=jnp.asarray(weights.T, jnp.float32)
    )


def _to_pose(
    rig: Rig, joints: Joints, frame: Frame, base: Pose | None, turns: np.ndarray, heads: np.ndarray, soft: bool
) -> Pose:
    """Local transforms of all nodes, [T,...], from the solved joints' turns [J,T,4] and heads [J,T,3] in the world.

    Exact where nodes are scaled alike along all axes; others get the nearest turn.
    """
    frames = turns.shape[1]
    base = rig.rest if base is None else base
    arrays = {name: np.array(np.broadcast_to(np.asarray(getattr(base, name)), (frames, *getattr(rig.rest, name).shape)))
              for name in ("translations", "rotations", "scales", "morphs")}  # fmt: skip
    found, rest = _normalize(turns.swapaxes(0, 1)), frame.turns
    turned = to_matrix(multiply(found, rest * _MIRROR))
    places, parents = heads.swapaxes(0, 1).astype(np.float64), np.array(joints.parents)
    linear = turned @ (to_matrix(rest) @ frame.shapes)
    changes, shifts = np.zeros_like(turned), np.zeros_like(places)
    for index, parent in enumerate(parents):
        above = frame.above[:, index, :, :3] if parent < 0 else linear[:, parent]
        origin = frame.above[:, index, :, 3] if parent < 0 else places[:, parent]
        still = frame.above[:, index, :, :3]  # what the parent is in the base pose
        inverse = np.linalg.pinv(above)
        changes[:, index] = inverse @ turned[:, index] @ still
        shifts[:, index] = np.einsum("fab,fb->fa", inverse, places[:, index] - origin)
    solved = np.array(joints.solved)
    local = _normalize(arrays["rotations"][:, solved])
    arrays["rotations"][:, solved] = keep_sign(multiply(to_wxyz(changes), local))
    moving = np.array(joints.free) | soft
    arrays["translations"][:, solved[moving]] = shifts[:, moving]
    return Pose(**{name: jnp.asarray(values, jnp.float32) for name, values in arrays.items()})
