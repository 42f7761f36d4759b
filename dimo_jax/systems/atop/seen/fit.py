"""From evidence to a joint: follow the part, fit both types, refine all parameters together, choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.systems.atop.seen.choose import Scale, snap, weigh
from dimo_jax.systems.atop.seen.clouds import Clouds
from dimo_jax.systems.atop.seen.course import Course, orient, slide_to, to_poses
from dimo_jax.systems.atop.seen.evidence import Evidence, move_pivots
from dimo_jax.systems.atop.seen.refine import Fit, refine_course, refine_poses
from dimo_jax.systems.atop.seen.track import Tracked, fit_screw, summarize, track_poses, value_on

BEST = 3  # starts of a type that are refined against the data
NEAR = 10.0  # nats: starts that fit about as well as the best one are refined too
FOLLOWED, REFINED = 200, 400  # points a frame while following the part, and while refining


@dataclass(frozen=True)
class Answer:
    """A course with what it came from."""

    course: Course
    log_probability: float  # up to a constant of the data
    cost: float


def fit_clouds(
    clouds: Clouds, lines: Sequence[Course], directions: np.ndarray, *, size: float, snapping: bool = True
) -> list[Answer]:
    """The joint that point clouds show.

    Args:
      clouds: T frames; its noise is a first guess.
      lines: candidates, values are not looked at.
      directions: [D,3] along which axes are likely.
      size: diagonal of the object.
      snapping: whether to prefer `lines` and `directions`.

    Returns:
      An answer of either type, the more probable first.
    """
    thin = clouds.blur(max(_first_noise(clouds), clouds.noise))
    poses = track_poses(thin.thin(FOLLOWED))
    thin = thin.thin(REFINED)
    for _ in range(3):
        thin = _settle(thin, poses)
        poses, free_cost = refine_poses(thin, poses, np.arange(thin.num_frames), steps=6)
    whole = replace(clouds, noise=thin.noise)
    return choose_course(thin, whole, poses, lines, directions, size=size, snapping=snapping)


def _first_noise(clouds: Clouds) -> float:
    """Root mean square distance of the first frame, which is near rest, from the part, as along one axis."""
    wide = clouds.blur(0.3 * clouds.surface.radius)
    distances = wide.nearest_distances(0)
    return float(np.sqrt((distances**2).mean()))


def _settle(clouds: Clouds, poses: np.ndarray) -> Clouds:
    for _ in range(4):
        clouds = clouds.blur(max(clouds.estimate_noise(poses), 2e-3 * clouds.surface.radius))
    return clouds


def choose_course(
    coarse: Evidence,
    fine: Evidence,
    poses: np.ndarray,
    lines: Sequence[Course],
    directions: np.ndarray,
    *,
    size: float,
    snapping: bool,
) -> list[Answer]:
    """From tracked poses [T,4,4] to an answer of either type, the more probable first.

    Args:
      coarse: evidence that is fast, for choosing among starts.
      fine: the same with all data, for what is returned.
      poses: free rigid poses that fit the evidence.
      lines, directions, size, snapping: see `fit_clouds`.
    """
    tracked = summarize(coarse, poses)
    points = coarse.pivot + 0.3 * size * np.concatenate([np.eye(3), -np.eye(3)])
    starts = [*fit_screw(tracked, points), *(value_on(line, tracked, points) for line in lines)]
    ideal = float(tracked.cost.sum())
    fits = []
    for kind in (PRISMATIC, REVOLUTE):
        quick = [refine_course(tracked, start, steps=12) for start in starts if start.type == kind]
        quick.sort(key=lambda fit: fit.cost)
        quick = [fit for fit in quick[:BEST] if fit.cost < quick[0].cost + max(NEAR, 0.1 * abs(quick[0].cost - ideal))]
        chosen = [refine_course(coarse, fit.course, steps=12) for fit in quick]
        if chosen:
            best = min(chosen, key=lambda fit: fit.cost)
            centered = slide_to(best.course, coarse.pivot)
            fits.append(refine_course(fine, centered, steps=5))
    scale = Scale(size, fine.pivot, _temper(fine, fits))
    answers = []
    for fit in fits:
        probability = weigh(fit, scale)
        if snapping:
            fit, probability = snap(fine, fit, directions, lines, scale)
        answers.append(Answer(orient(slide_to(fit.course, fine.pivot)), probability, fit.cost))
    return sorted(answers, key=lambda answer: -answer.log_probability)


def _temper(evidence: Evidence, fits: Sequence[Fit]) -> float:
    """How much farther single rigid poses are from the best course than noise explains: 1 where it is all noise."""
    best = min(fits, key=lambda fit: fit.cost)
    frames = np.arange(evidence.num_frames)
    _, free = refine_poses(evidence, to_poses(best.course), frames, steps=3)
    surplus = best.cost - free.sum()
    expected = 0.5 * (6 * len(frames) - len(frames) - best.course.num_shared)
    return float(max(surplus / expected, 1.0))
