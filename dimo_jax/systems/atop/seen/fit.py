"""From evidence to a joint: follow the part, fit both types, refine all parameters together, choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.systems.atop.seen.choose import Scale, snap, weigh
from dimo_jax.systems.atop.seen.clouds import Clouds
from dimo_jax.systems.atop.seen.course import Course, orient, slide_to, to_poses
from dimo_jax.systems.atop.seen.differences import Differences
from dimo_jax.systems.atop.seen.evidence import Evidence
from dimo_jax.systems.atop.seen.pictures import Pictures, with_noise
from dimo_jax.systems.atop.seen.refine import Fit, refine_course, refine_poses
from dimo_jax.systems.atop.seen.scan import scan_lines
from dimo_jax.systems.atop.seen.track import Tracked, fit_screw, summarize, track_poses, value_on

BEST = 3  # starts of a type that are refined against the data
NEAR = 10.0  # nats: starts that fit about as well as the best one are refined too
CLEAR = 300.0  # nats by which one type has to fit better for the other not to be looked at again
SMALL = 96  # pixels of a side up to which pictures are mostly outlines, where quick slopes err most
MISFIT, REPAIR = 4.0, 20  # times what noise explains, from where slow and right slopes are used; steps by them
RETRIED, CLOSE, RETRIES = np.deg2rad(35.0), np.deg2rad(0.5), 3  # from which directions a fit is tried again
FOLLOWED, REFINED = 150, 300  # points a frame while following the part, and while refining


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
      An answer of either type that may be, the more probable first.
    """
    thin = clouds.blur(max(_first_noise(clouds), clouds.noise))
    poses = track_poses(thin.thin(FOLLOWED))
    thin = thin.thin(REFINED)
    for _ in range(2):
        thin = _settle(thin, poses)
        poses, _ = refine_poses(thin, poses, np.arange(thin.num_frames), steps=5)
    tracked, whole = summarize(thin, poses), replace(clouds, noise=thin.noise)
    return choose_course(thin, whole, tracked, lines, directions, size=size, snapping=snapping)


def _first_noise(clouds: Clouds) -> float:
    """Root mean square distance of the first frame, which is near rest, from the part, as along one axis."""
    wide = clouds.blur(0.3 * clouds.surface.radius)
    distances = wide.nearest_distances(0)
    return float(np.sqrt((distances**2).mean()))


def _settle(clouds: Clouds, poses: np.ndarray) -> Clouds:
    for _ in range(4):
        clouds = clouds.blur(max(clouds.estimate_noise(poses), 2e-3 * clouds.surface.radius))
    return clouds


def fit_pictures(
    levels: Sequence[Pictures],
    lines: Sequence[Course],
    directions: np.ndarray,
    points: np.ndarray,
    *,
    size: float,
    snapping: bool = True,
) -> list[Answer]:
    """The joint that videos show.

    Args:
      levels: the same videos, small ones first; the part is followed in the first, and the result is of the last.
      points: [P,3] of the part at rest.
      lines, directions, size, snapping: see `fit_clouds`.

    Returns:
      See `fit_clouds`.
    """
    sliding = [Course(PRISMATIC, axis, levels[0].pivot, np.zeros(levels[0].num_frames)) for axis in directions]
    courses = scan_lines(levels[0], [*lines, *sliding], points, size=size)
    poses = track_poses(levels[0], steps=8, hints=np.stack([to_poses(course) for course in courses]))
    frames = np.arange(levels[0].num_frames)
    for level in levels[1:]:
        level = with_noise(level, level.estimate_noise(poses))
        poses, _ = refine_poses(level, poses, frames, steps=4)
    fine = with_noise(levels[-1], levels[-1].estimate_noise(poses))
    reach = np.linalg.norm(points - fine.pivot, axis=1).max()
    exact = Differences(fine, float(reach))
    tracked = summarize(fine, poses)  # choosing among starts by its curvature: every look at pictures is slow
    every = [*lines, *sliding]
    misfit = 0.0 if fine.images.shape[2] <= SMALL else MISFIT
    return choose_course(
        tracked, fine, tracked, every, directions, size=size, snapping=snapping, exact=exact, misfit=misfit
    )


def choose_course(
    coarse: Evidence,
    fine: Evidence,
    tracked: Tracked,
    lines: Sequence[Course],
    directions: np.ndarray,
    *,
    size: float,
    snapping: bool,
    exact: Evidence | None = None,
    misfit: float = MISFIT,
) -> list[Answer]:
    """From tracked poses to an answer of either type, the more probable first.

    Args:
      coarse: evidence that is fast, for choosing among starts.
      fine: the same with all data, for what is returned.
      tracked: free rigid poses that minimize `coarse`.
      lines, directions, size, snapping: see `fit_clouds`.
      exact: the same as `fine` with slopes that are slow and right, for what ends in a misfit.
      misfit: times what noise explains, from where `exact` is used.
    """
    fits = [_retry(coarse, fit, directions) for fit in _fit_types(coarse, tracked, lines, size=size)]
    free, frames = float(tracked.cost.sum()), tracked.num_frames
    temper = _temper(fits, free, frames)
    if len(fits) == 2 and abs(fits[0].cost - fits[1].cost) > CLEAR * temper:
        fits = [min(fits, key=lambda fit: fit.cost)]  # no need to look closer at what does not fit at all
    fits = [refine_course(fine, slide_to(fit.course, coarse.pivot), steps=3) for fit in fits]
    if exact is not None and _temper(fits, free, frames) > misfit:
        fine = exact
        fits = [refine_course(exact, fit.course, steps=REPAIR) for fit in fits]
        temper = _temper(fits, free, frames)
    scale, answers = Scale(size, fine.pivot, temper), []
    for fit in fits:
        probability = weigh(fit, scale)
        if snapping:
            fit, probability = snap(fine, fit, directions, lines, scale)
        answers.append(Answer(orient(slide_to(fit.course, fine.pivot)), probability, fit.cost))
    return sorted(answers, key=lambda answer: -answer.log_probability)


def _fit_types(evidence: Evidence, tracked: Tracked, lines: Sequence[Course], *, size: float) -> list[Fit]:
    """The best fit of either type from what the poses suggest and from the candidates."""
    points = tracked.pivot + 0.3 * size * np.concatenate([np.eye(3), -np.eye(3)])
    starts = [*fit_screw(tracked, points), *(value_on(line, tracked, points) for line in lines)]
    free, fits = float(tracked.cost.sum()), []
    for kind in (PRISMATIC, REVOLUTE):
        quick = [refine_course(tracked, start, steps=12) for start in starts if start.type == kind]
        quick.sort(key=lambda fit: fit.cost)
        far = quick[0].cost + max(NEAR, 0.1 * abs(quick[0].cost - free))
        chosen = [refine_course(evidence, fit.course, steps=12) for fit in quick[:BEST] if fit.cost < far]
        fits.append(min(chosen, key=lambda fit: fit.cost))
    return fits


def _retry(evidence: Evidence, fit: Fit, directions: np.ndarray) -> Fit:
    """The best fit that is reached from axes along likely directions near that of a fit, or the fit itself.

    Parts that are nearly round have several minima, some degrees apart.
    """
    if fit.course.type == PRISMATIC:
        return fit
    alike = directions @ fit.course.axis
    near = np.flatnonzero((np.abs(alike) > np.cos(RETRIED)) & (np.abs(alike) < np.cos(CLOSE)))
    for index in near[np.argsort(-np.abs(alike[near]))][:RETRIES]:
        axis = directions[index] * np.sign(alike[index])
        turned = replace(slide_to(fit.course, evidence.pivot), axis=axis)
        found = refine_course(evidence, turned, steps=10)
        fit = found if found.cost < fit.cost else fit
    return fit


def _temper(fits: Sequence[Fit], free: float, num_frames: int) -> float:
    """How much farther single rigid poses are from the best course than noise explains: 1 where it is all noise.

    Drift and bending move whole frames away from any joint; their points do not err independently.
    """
    best = min(fits, key=lambda fit: fit.cost)
    expected = 0.5 * (6 * num_frames - num_frames - best.course.num_shared)
    return float(max((best.cost - free) / expected, 1.0))
