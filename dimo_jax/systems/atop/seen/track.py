"""Free rigid poses of the part, frame after frame, and courses that fit them: where the search for a joint begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.systems.atop.seen.course import Course
from dimo_jax.systems.atop.seen.evidence import Evidence, Slopes, move_pivots
from dimo_jax.systems.atop.seen.refine import refine_poses

HINT, HINT_SHARE = 1.0, 0.05  # nats, and of the spread of costs, by which a hint has to be better than going on


def track_poses(evidence: Evidence, *, steps: int = 9, hints: np.ndarray | None = None) -> np.ndarray:
    """Follows the part from rest through all frames -> poses [T,4,4].

    Every frame starts at the pose before it, at where the step before that leads, or at a hint, whichever fits best.

    Args:
      evidence: T frames, the first of them near rest.
      steps: of Gauss-Newton a frame.
      hints: [H,T,4,4] where the part may be; the first frame begins at rest.
    """
    poses = [np.eye(4)]
    before = np.eye(4)
    for frame in range(evidence.num_frames):
        here = poses[-1]
        guesses = np.stack([here] if frame < 2 else [here, here @ np.linalg.inv(before) @ here])
        own = len(guesses)
        if hints is not None and frame:
            guesses = np.concatenate([guesses, hints[:, frame]])
        cost = evidence.measure(guesses, np.full(len(guesses), frame)) if len(guesses) > 1 else np.zeros(1)
        far = np.arange(len(guesses)) >= own  # a hint that is hardly better may be an arm of a valve farther
        start = guesses[np.argmin(cost + far * (HINT + HINT_SHARE * np.ptp(cost)))]
        before = here
        poses.append(refine_poses(evidence, start[None], np.array([frame]), steps=steps)[0][0])
    return np.stack(poses[1:])


@dataclass(frozen=True)
class Tracked:
    """Costs that are quadratic around known poses: evidence that costs nothing to look at; see `evidence.Evidence`."""

    poses: np.ndarray  # [T,4,4]
    cost: np.ndarray  # [T] at these poses
    gradient: np.ndarray  # [T,6] by twists around the moved pivot
    curvature: np.ndarray  # [T,6,6]
    pivot: np.ndarray  # [3]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.poses)

    def measure(self, poses: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """See `Evidence`."""
        return self.linearize(poses, frames).cost

    def linearize(self, poses: np.ndarray, frames: np.ndarray) -> Slopes:
        """See `Evidence`; the cost is quadratic in the twist from the pose that was found."""
        turn = Rotation.from_matrix(poses[:, :3, :3] @ self.poses[frames, :3, :3].swapaxes(-1, -2)).as_rotvec()
        shift = move_pivots(self, poses) - move_pivots(self, self.poses[frames])
        twists = np.concatenate([turn, shift], axis=-1)
        bent = np.einsum("fab,fb->fa", self.curvature[frames], twists)
        cost = self.cost[frames] + ((self.gradient[frames] + 0.5 * bent) * twists).sum(-1)
        return Slopes(cost, self.gradient[frames] + bent, self.curvature[frames])


def summarize(evidence: Evidence, poses: np.ndarray) -> Tracked:
    """What an evidence says around poses [T,4,4]."""
    slopes = evidence.linearize(poses, np.arange(evidence.num_frames))
    weak = 1e-6 * np.einsum("fii->fi", slopes.curvature).max(axis=0)
    return Tracked(poses, slopes.cost, slopes.gradient, slopes.curvature + np.diag(weak), evidence.pivot)


def fit_screw(tracked: Tracked, points: np.ndarray) -> list[Course]:
    """One course of either type that poses suggest by themselves: the start of a refinement.

    The axis of a revolute one is the direction that all turns share, its place the least squares of (1 - R) o = t.

    Args:
      tracked: T frames.
      points: [P,3] of the part at rest, see `value_on`.
    """
    steps = move_pivots(tracked, tracked.poses) - tracked.pivot
    _, _, sides = np.linalg.svd(steps, full_matrices=False)
    slide = Course(PRISMATIC, sides[0], tracked.pivot, steps @ sides[0])
    turns = tracked.poses[:, :3, :3]
    gaps = (1, len(turns) // 2)  # a turn by more than half a revolution would count as one the other way round
    between = [Rotation.from_matrix(turns[gap:] @ turns[:-gap].swapaxes(-1, -2)).as_rotvec() for gap in gaps if gap]
    _, sizes, directions = np.linalg.svd(np.concatenate(between), full_matrices=False)
    if sizes[0] < 1e-6:
        return [slide]
    axis = directions[0]
    lag = np.eye(3) - turns
    side = np.eye(3) - np.outer(axis, axis)
    offsets = tracked.poses[:, :3, 3] - lag @ tracked.pivot  # (1 - R) o = t with o from the pivot
    arm = np.linalg.lstsq((lag @ side).reshape(-1, 3), offsets.reshape(-1), rcond=1e-4)[0]
    turned = Course(REVOLUTE, axis, tracked.pivot + side @ arm, np.zeros(len(turns)))
    return [slide, value_on(turned, tracked, points)]


def value_on(line: Course, tracked: Tracked, points: np.ndarray) -> Course:
    """A line with the values that bring points [P,3] of the part nearest to where tracked poses move them.

    Args:
      line: its values are not looked at.
      tracked: T frames.
      points: [P,3] at rest.
    """
    moved = points @ tracked.poses[:, :3, :3].swapaxes(-1, -2) + tracked.poses[:, None, :3, 3]
    if line.type == PRISMATIC:
        values = (moved - points).mean(1) @ line.axis
    else:
        arms, others = points - line.origin, moved - line.origin
        sine = np.einsum("i,tpi->t", line.axis, np.cross(arms, others))
        flat = arms - (arms @ line.axis)[:, None] * line.axis
        values = np.unwrap(np.arctan2(sine, np.einsum("pi,tpi->t", flat, others)))
    return Course(line.type, line.axis, line.origin, values)
