"""The paper's two ways from point clouds to a joint (Sec. 4.3.2, Table 4): candidates of the part's box, and direct
optimization, both under the Chamfer distance. Baselines of `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.meshes.boxes import Box
from dimo_jax.systems.atop.seen.course import Course, find_tangents, orient, slide_to, step, to_poses
from dimo_jax.systems.atop.seen.evidence import Slopes, move_pivots

TRIED = 13  # values a candidate and frame, around the frame before
REACH = 0.7  # radians that a frame may turn further than the one before; times half the part's size where it slides
RATE = 0.05  # of Adam: radians, or as a share of the part's size


@dataclass(frozen=True, eq=False)
class Chamfer:
    """Mean squared distances of points on the part to clouds and back; see `evidence.Evidence`."""

    rest: np.ndarray  # [P,3] points of the part at rest
    points: tuple[np.ndarray, ...]  # T of [n,3]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.points)

    @property
    def pivot(self) -> np.ndarray:
        """Mean [3] of the points at rest."""
        return np.asarray(self.rest.mean(axis=0))

    @property
    def radius(self) -> float:
        """Root mean square distance of the points at rest from their mean."""
        return float(np.sqrt(((self.rest - self.pivot) ** 2).sum(1).mean()))

    @cached_property
    def _trees(self) -> tuple[cKDTree, list[cKDTree]]:
        return cKDTree(self.rest), [cKDTree(points) for points in self.points]

    def measure(self, poses: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """See `Evidence`."""
        return np.array([self._pair(pose, int(frame))[0] for pose, frame in zip(poses, frames)])

    def linearize(self, poses: np.ndarray, frames: np.ndarray) -> Slopes:
        """See `Evidence`; the curvature is that of fixed pairs."""
        gradient, curvature = np.zeros((len(frames), 6)), np.zeros((len(frames), 6, 6))
        cost, pivots = np.zeros(len(frames)), move_pivots(self, poses)
        for i, (pose, frame) in enumerate(zip(poses, frames)):
            cost[i], moved, targets, weights = self._pair(pose, int(frame))
            arms = moved - pivots[i]
            levers = np.concatenate(
                [np.cross(arms[:, None], np.eye(3)), np.tile(np.eye(3), (len(arms), 1, 1))], axis=-1
            )
            rows = 2 * weights[:, None, None] * levers
            gradient[i] = np.einsum("ni,nij->j", moved - targets, rows)
            curvature[i] = np.einsum("nia,nib->ab", levers, rows)
        return Slopes(cost, gradient, curvature)

    def _pair(self, pose: np.ndarray, frame: int) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """The distance, moved points [N,3], what they are nearest to [N,3] and their weights [N], both ways."""
        cloud, (rest_tree, trees) = self.points[frame], self._trees
        moved = self.rest @ pose[:3, :3].T + pose[:3, 3]
        there, nearest = trees[frame].query(moved)
        back, own = rest_tree.query((cloud - pose[:3, 3]) @ pose[:3, :3])
        cost = float((there**2).mean() + (back**2).mean())
        weights = np.concatenate([np.full(len(moved), 1 / len(moved)), np.full(len(cloud), 1 / len(cloud))])
        return cost, np.concatenate([moved, moved[own]]), np.concatenate([cloud[nearest], cloud]), weights


def propose_lines(box: Box, num_frames: int) -> list[Course]:
    """The paper's 7 x 6 candidates of both types, with values of zero.

    Its six signed directions are three lines here, whose values have a sign; the seven origins of a direction lie on
    five lines; where a part slides has no place.
    """
    rest, lines = np.zeros(num_frames), []
    for i, axis in enumerate(box.axes):
        lines.append(Course(PRISMATIC, axis, box.center, rest))
        lines.append(Course(REVOLUTE, axis, box.center, rest))
        for j in sorted({0, 1, 2} - {i}):
            arm = box.half[j] * box.axes[j]
            lines += [Course(REVOLUTE, axis, box.center + arm, rest), Course(REVOLUTE, axis, box.center - arm, rest)]
    return lines


def make_chamfer(rest: np.ndarray, points: Sequence[np.ndarray], *, count: int = 160, seed: int = 0) -> Chamfer:
    """Chamfer distances over at most `count` points of each set, drawn at random."""
    rng = np.random.default_rng(seed)

    def draw(cloud: np.ndarray) -> np.ndarray:
        return np.asarray(cloud)[rng.permutation(len(cloud))[:count]]

    return Chamfer(draw(rest), tuple(draw(each) for each in points))


def search_candidates(chamfer: Chamfer, lines: Sequence[Course]) -> list[Course]:
    """The paper's algorithm: of all candidates with their best values, the one nearest to the clouds.

    Returns:
      The best course of either type, the nearer first.
    """
    found = [_follow(chamfer, line) for line in lines]
    best = [min((each for each in found if each[1].type == kind), key=lambda each: each[0]) for kind in
            (REVOLUTE, PRISMATIC)]  # fmt: skip
    return [orient(course) for _, course in sorted(best, key=lambda each: each[0])]


def _follow(chamfer: Chamfer, line: Course) -> tuple[float, Course]:
    """Values of a candidate, frame after frame: some around the frame before are tried, then a parabola's lowest."""
    reach = REACH if line.type == REVOLUTE else REACH * chamfer.radius
    offsets = np.linspace(-reach, reach, TRIED)
    values, total, value = [], 0.0, 0.0
    for frame in range(chamfer.num_frames):
        costs = _measure(chamfer, line, value + offsets, frame)
        low = int(np.clip(np.argmin(costs), 1, TRIED - 2))
        before, here, after = costs[low - 1 : low + 2]
        bend = before - 2 * here + after
        shift = float(np.clip(0.5 * (before - after) / bend, -1, 1)) if bend > 0 else 0.0
        tried = value + offsets[low] + np.array([0.0, shift * (offsets[1] - offsets[0])])
        again = _measure(chamfer, line, tried, frame)
        value = float(tried[np.argmin(again)])
        total += float(again.min())
        values.append(value)
    return total, replace(line, values=np.array(values))


def _measure(chamfer: Chamfer, line: Course, values: np.ndarray, frame: int) -> np.ndarray:
    return chamfer.measure(to_poses(replace(line, values=values)), np.full(len(values), frame))


def optimize_directly(chamfer: Chamfer, axes: np.ndarray, *, steps: int = 100) -> list[Course]:
    """The ablation: Adam over axis, place and values, from the part's centre and each of given axes [A,3].

    Returns:
      The best course of either type, the nearer first.
    """
    found = []
    for kind in (REVOLUTE, PRISMATIC):
        unit = 1.0 if kind == REVOLUTE else chamfer.radius
        ramp = np.linspace(0.0, 0.3, chamfer.num_frames) * unit
        starts = [Course(kind, axis, chamfer.pivot, ramp) for axis in axes]
        ended = [_descend(chamfer, start, unit, steps) for start in starts]
        found.append(min(ended, key=lambda each: each[0]))
    return [orient(slide_to(course, chamfer.pivot)) for _, course in sorted(found, key=lambda each: each[0])]


def _descend(chamfer: Chamfer, course: Course, unit: float, steps: int) -> tuple[float, Course]:
    """Adam with a falling rate from one start; the cost and course of its end."""
    frames, count = np.arange(chamfer.num_frames), course.num_shared
    scale = np.concatenate([np.ones(2), np.full(count - 2, chamfer.radius), np.full(len(frames), unit)])
    mean, square = np.zeros(len(scale)), np.zeros(len(scale))
    for number in range(1, steps + 1):
        poses = to_poses(course)
        shared, own = find_tangents(course, move_pivots(chamfer, poses))
        slopes = chamfer.linearize(poses, frames).gradient
        turned = np.einsum("fai,fa->i", shared, slopes)
        gradient = scale * np.concatenate([turned, (own * slopes).sum(-1)])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        move = (mean / (1 - 0.9**number)) / (np.sqrt(square / (1 - 0.99**number)) + 1e-15)
        move = -RATE * 0.5 * (1 + np.cos(np.pi * number / steps)) * scale * move
        course = step(course, move[:count], move[count:])
    return float(chamfer.measure(to_poses(course), frames).sum()), course
