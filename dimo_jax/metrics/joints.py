"""How near a found joint comes to the true one: the figures of ATOP (Sec. 5) and of Articulate-Anything."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dimo_jax.geometry.joint import REVOLUTE, Joint

MAX_ANGLE = 0.25  # radians, of a success
MAX_LINE = 0.05  # of the diagonal, likewise
EVEN = 0.2  # a range whose middle is within this share of its width from 0 has no direction


class JointErrors(NamedTuple):
    """One found joint against the true one."""

    type_right: bool
    angle: float  # degrees between the two axes as lines, 0..90
    line: float  # distance between the two lines, in diagonals; NaN unless both are revolute
    origin: float  # distance between the two origins, in diagonals (MPE); NaN unless both are revolute
    success: bool  # type right, angle and line within MAX_ANGLE and MAX_LINE
    direction: bool  # positive values mean the same way; also where the true range has no direction
    range: float  # |found width - true width| of the range over the true width; NaN where the type is wrong


def compare_joints(found: Joint, truth: Joint, center: np.ndarray, diagonal: float) -> JointErrors:
    """Judges a joint.

    The distance of two lines is the larger of the perpendicular distances of each line's point nearest to the part's
    centre from the other line, so that sliding along a hinge is no error and a tilt counts by what it moves.

    Args:
      found: what was found.
      truth: what is right.
      center: [3] centre of the part.
      diagonal: of the object's box, same unit.
    """
    right = found.type == truth.type
    cosine = float(found.axis @ truth.axis)
    angle = float(np.degrees(np.arccos(min(1.0, abs(cosine)))))
    line = origin = float("nan")
    if right and found.type == REVOLUTE:
        line = max(_off(found, truth, center), _off(truth, found, center)) / diagonal
        origin = float(np.linalg.norm(found.origin - truth.origin)) / diagonal
    success = right and np.radians(angle) <= MAX_ANGLE and not line > MAX_LINE
    low, high = truth.range
    even = abs(low + high) / 2 < EVEN * (high - low)
    width = abs(found.span - truth.span) / max(truth.span, 1e-12) if right else float("nan")
    return JointErrors(right, angle, line, origin, bool(success), bool(cosine > 0 or even), float(width))


def _off(one: Joint, other: Joint, center: np.ndarray) -> float:
    """Distance of the point of `one` that is nearest to `center` from the line `other`."""
    foot = one.origin + one.axis * ((center - one.origin) @ one.axis)
    away = foot - other.origin
    return float(np.linalg.norm(away - other.axis * (away @ other.axis)))


def summarize_joints(errors: list[JointErrors], confidences: list[float], seconds: list[float]) -> dict[str, Any]:
    """Figures over many: `count`, `type_accuracy`, `success` and others; None where nothing defines one.

    `mae_deg` is the mean angle where the type is right, `line_distance` and `mpe` means over revolute joints,
    `range_error` the median, `confident_half_success` the success of the half with the larger confidence.
    """
    count = len(errors)
    success = np.array([each.success for each in errors], float)
    way = np.array([each.success and each.direction for each in errors], float)
    half = np.argsort(-np.asarray(confidences), kind="stable")[: max(1, (count + 1) // 2)]
    ranges = np.array([each.range for each in errors])
    right = np.isfinite(ranges)
    return {
        "count": count,
        "type_accuracy": _mean([each.type_right for each in errors]),
        "success": _mean(success),
        "mae_deg": _mean([each.angle for each in errors if each.type_right]),
        "median_axis_deg": _median([each.angle for each in errors if each.type_right]),
        "line_distance": _mean([each.line for each in errors if np.isfinite(each.line)]),
        "mpe": _mean([each.origin for each in errors if np.isfinite(each.origin)]),
        "range_error": _median(ranges[right]),
        "range_within_25": _mean(ranges[right] <= 0.25),
        "direction_of_successes": _mean(way[success > 0]),
        "success_with_direction": _mean(way),
        "seconds_median": _median(seconds),
        "confident_half_success": _mean(success[half]),
        "mean_confidence": _mean(confidences),
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(np.asarray(values, float))) if len(values) else None


def _median(values: Any) -> float | None:
    return float(np.median(np.asarray(values, float))) if len(values) else None
