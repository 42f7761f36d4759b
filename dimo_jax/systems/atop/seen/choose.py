"""Which type, and whether the joint is one of the candidates: probabilities of courses that were fitted (Laplace).

A course with more freedom always fits a little better. What it costs to be free is the share of the possible that the
data leave: a joint that the shape of the part proposes needs no such luck, so it is taken while it fits nearly as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.geometry.joint import REVOLUTE
from dimo_jax.meshes.boxes import frame_around
from dimo_jax.systems.atop.seen.course import Course, slide_to, to_poses
from dimo_jax.systems.atop.seen.evidence import Evidence
from dimo_jax.systems.atop.seen.refine import Fit, refine_course
from dimo_jax.systems.atop.seen.track import summarize

FREE, ALONG, EXACT = np.log(0.2), np.log(0.4), np.log(0.4)  # prior: any axis, one along a direction, a candidate
WIDEST = np.deg2rad(20.0)  # a candidate farther away than this is another joint
TESTED = 6  # candidates that are fitted, of each kind
MEASURED = 2  # of those, how many are looked at in the data


@dataclass(frozen=True)
class Scale:
    """What is usual for an object."""

    size: float  # diagonal
    center: np.ndarray  # [3] of the part
    temper: float  # how many nats of misfit are as one, for errors that points share


def weigh(fit: Fit, scale: Scale) -> float:
    """Logarithm of the probability of the data under a course with free axis and place, up to a constant."""
    course = slide_to(fit.course, scale.center)
    prior = FREE - np.log(2 * np.pi)
    if course.type == REVOLUTE:
        prior += _place_prior(course, scale)
    return float(prior - fit.cost / scale.temper - _volume(fit.information / scale.temper))


def _place_prior(course: Course, scale: Scale) -> float:
    """Axes pass near the part: a normal distribution over the plane across the axis."""
    width = 0.5 * scale.size
    arm = slide_to(course, scale.center).origin - scale.center
    return float(-0.5 * arm @ arm / width**2 - np.log(2 * np.pi * width**2))


def _volume(information: np.ndarray) -> float:
    """Minus the logarithm of the posterior's volume."""
    values = np.linalg.eigvalsh(information)
    return float(0.5 * np.log(np.maximum(values, 1.0) / (2 * np.pi)).sum())


def snap(
    evidence: Evidence, fit: Fit, directions: np.ndarray, lines: Sequence[Course], scale: Scale
) -> tuple[Fit, float]:
    """The most probable of a fit, fits along given directions [D,3], and fits on candidate lines of its type.

    They are compared by the curvature at the fit; whichever wins is then measured.

    Returns:
      The fit that won and the logarithm of its probability.
    """
    local = summarize(evidence, to_poses(fit.course))
    free = (weigh(fit, scale), fit)
    options = []
    for axis in _nearest_directions(fit.course, directions):
        held = refine_course(local, _turn_to(fit.course, axis, scale), steps=6, hold_axis=True)
        prior = ALONG - np.log(len(directions))
        if fit.course.type == REVOLUTE:
            prior += _place_prior(held.course, scale)
        options.append((prior - _volume(held.information[2:, 2:] / scale.temper), held, False))
    for line in _nearest_lines(fit, lines, scale):
        held = refine_course(local, line, steps=6, hold_axis=True, hold_place=True)
        options.append((EXACT - np.log(len(lines)), held, True))
    options.sort(key=lambda option: option[1].cost / scale.temper - option[0])
    for prior, guess, on_line in options[:MEASURED]:
        if prior - guess.cost / scale.temper < free[0] - 1.0:
            break
        held = refine_course(evidence, guess.course, steps=2, hold_axis=True, hold_place=on_line)
        if prior - held.cost / scale.temper > free[0]:
            return held, float(prior - held.cost / scale.temper)
    return free[1], free[0]


def _nearest_directions(course: Course, directions: np.ndarray) -> np.ndarray:
    alike = directions @ course.axis
    order = np.argsort(-np.abs(alike))[:TESTED]
    order = order[np.abs(alike[order]) > np.cos(WIDEST)]
    return np.asarray(directions[order] * np.sign(alike[order])[:, None])


def _turn_to(course: Course, axis: np.ndarray, scale: Scale) -> Course:
    return replace(slide_to(course, scale.center), axis=axis)


def _nearest_lines(fit: Fit, lines: Sequence[Course], scale: Scale) -> list[Course]:
    """Candidates of the fit's type in order of how well they should fit by the fit's own curvature."""
    course = slide_to(fit.course, scale.center)
    first, second, _ = frame_around(course.axis)
    found = []
    for line in lines:
        alike = float(line.axis @ course.axis)
        if line.type != course.type or abs(alike) < np.cos(WIDEST):
            continue
        line = replace(slide_to(line, scale.center), axis=line.axis * np.sign(alike), values=course.values)
        turn = np.cross(course.axis, line.axis)
        change = [turn @ first, turn @ second]
        if course.type == REVOLUTE:
            arm = line.origin - course.origin
            change += [arm @ first, arm @ second]
        found.append((float(np.asarray(change) @ fit.information @ np.asarray(change)), line))
    found.sort(key=lambda pair: pair[0])
    return [line for _, line in found[:TESTED]]


def main_directions(corners: np.ndarray, *, count: int = 6, apart_deg: float = 4.0) -> np.ndarray:
    """Directions [<= count,3] of the largest flat areas of triangles [F,3,3], whichever way they face.

    Args:
      corners: [F,3,3].
      count: at most.
      apart_deg: normals nearer than this count as one direction, their mean.
    """
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=-1)
    kept = areas > 1e-12 * areas.max(initial=1e-300)
    units, areas = normals[kept] / areas[kept, None], areas[kept]
    found: list[np.ndarray] = []
    total = areas.sum()
    while len(found) < count and len(areas) and areas.sum() > 0.02 * total:
        around = units[np.argmax(areas)]
        alike = units @ around
        near = np.abs(alike) > np.cos(np.deg2rad(apart_deg))
        mean = (units[near] * (areas[near] * np.sign(alike[near]))[:, None]).sum(0)
        if areas[near].sum() < 0.02 * total:
            break
        found.append(mean / np.linalg.norm(mean))
        units, areas = units[~near], areas[~near]
    return np.asarray(found).reshape(-1, 3)
