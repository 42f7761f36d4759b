"""Damped Gauss-Newton (Levenberg-Marquardt) over poses of single frames, and over a joint with all its values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.systems.atop.seen.course import Course, exp_twists, find_tangents, step, to_poses
from dimo_jax.systems.atop.seen.evidence import Evidence, move_pivots

FIRST_DAMPING = 1e-3
GAIN, LOSS = 0.2, 8.0  # what success and failure multiply the damping by


@dataclass(frozen=True)
class Fit:
    """A course, its cost, and how sure the shared parameters are."""

    course: Course
    cost: float  # sum over frames
    information: np.ndarray  # [S,S] of the shared parameters of `course.step`, the values eliminated


def refine_poses(
    evidence: Evidence, poses: np.ndarray, frames: np.ndarray, *, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Free rigid poses [F,4,4] of single frames, each moved to a minimum of its own cost.

    Returns:
      Poses [F,4,4] and their costs [F].
    """
    damping = np.full(len(frames), FIRST_DAMPING)
    slopes = evidence.linearize(poses, frames)
    cost = slopes.cost
    for _ in range(steps):
        curvature = slopes.curvature
        diagonal = np.einsum("fii->fi", curvature)
        added = damping[:, None] * (diagonal + 1e-3 * _even(diagonal)) + 1e-12
        moves = -np.linalg.solve(curvature + added[:, :, None] * np.eye(6), slopes.gradient[..., None])[..., 0]
        tried = exp_twists(moves, move_pivots(evidence, poses)) @ poses
        found = evidence.linearize(tried, frames)
        better = found.cost < cost
        gained = np.where(better, cost - found.cost, 0.0)
        poses = np.where(better[:, None, None], tried, poses)
        cost = np.where(better, found.cost, cost)
        slopes = type(slopes)(
            cost,
            np.where(better[:, None], found.gradient, slopes.gradient),
            np.where(better[:, None, None], found.curvature, slopes.curvature),
        )
        damping = np.clip(damping * np.where(better, GAIN, LOSS), 1e-9, 1e6)
        if (gained < 0.1).all() and (better | (damping > 1.0)).all():
            break
    return poses, cost


def _even(diagonal: np.ndarray) -> np.ndarray:
    """The mean of the turns' and of the shifts' entries of diagonals [F,6], in their places."""
    return np.repeat(diagonal.reshape(-1, 2, 3).mean(-1), 3, axis=-1)


def refine_course(
    evidence: Evidence, course: Course, *, steps: int, hold_axis: bool = False, hold_place: bool = False
) -> Fit:
    """Axis, place and the value of every frame together, moved to a minimum of the cost of all frames.

    Args:
      evidence: T frames.
      course: where to begin.
      steps: at most; ends before that where nothing is gained.
      hold_axis, hold_place: what of the shared parameters stays.
    """
    frames = np.arange(evidence.num_frames)
    free = np.ones(course.num_shared, bool)
    free[:2], free[2:] = not hold_axis, not hold_place
    damping, system = FIRST_DAMPING, _assemble(evidence, course, frames)
    for _ in range(steps):
        shared, values = _solve(system, free, damping)
        tried = step(course, shared, values)
        found = _assemble(evidence, tried, frames)
        if found.cost < system.cost:
            gained = system.cost - found.cost
            course, system, damping = tried, found, max(damping * GAIN, 1e-9)
            if gained < 1e-2:
                break
        else:
            damping *= LOSS
            if damping > 1e5:
                break
    return Fit(course, system.cost, _eliminate(system))


@dataclass(frozen=True)
class _System:
    """Normal equations of a course: shared parameters, values and what couples them."""

    cost: float
    shared: np.ndarray  # [S,S]
    own: np.ndarray  # [T]
    coupling: np.ndarray  # [S,T]
    shared_gradient: np.ndarray  # [S]
    own_gradient: np.ndarray  # [T]


def _assemble(evidence: Evidence, course: Course, frames: np.ndarray) -> _System:
    poses = to_poses(course)
    slopes = evidence.linearize(poses, frames)
    shared, own = find_tangents(course, move_pivots(evidence, poses))
    bent = slopes.curvature @ shared
    return _System(
        float(slopes.cost.sum()),
        np.einsum("fai,faj->ij", shared, bent),
        np.einsum("fa,fab,fb->f", own, slopes.curvature, own),
        np.einsum("fa,fai->if", own, bent),
        np.einsum("fai,fa->i", shared, slopes.gradient),
        np.einsum("fa,fa->f", own, slopes.gradient),
    )


def _solve(system: _System, free: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray]:
    own = system.own * (1 + damping) + 1e-3 * damping * system.own.mean() + 1e-12
    bent = system.coupling[free] / own
    matrix = system.shared[np.ix_(free, free)]
    matrix = matrix + damping * np.diag(np.diag(matrix)) - bent @ system.coupling[free].T
    right = -system.shared_gradient[free] + bent @ system.own_gradient
    shared = np.zeros(len(free))
    if free.any():
        scale = np.sqrt(np.diag(system.shared)[free] + 1e-12)  # turns and shifts have different units
        matrix = matrix / scale[:, None] / scale + 1e-9 * np.eye(len(scale))
        shared[free] = np.linalg.lstsq(matrix, right / scale, rcond=1e-12)[0] / scale
    return shared, (-system.own_gradient - system.coupling.T @ shared) / own


def _eliminate(system: _System) -> np.ndarray:
    own = system.own + 1e-12
    return np.asarray(system.shared - (system.coupling / own) @ system.coupling.T)
