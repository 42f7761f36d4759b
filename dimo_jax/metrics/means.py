"""Means that one undefined value does not spoil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean over what is finite, None where nothing is, and how many values it leaves out."""

    value: float | None
    undefined: int


def mean_defined(values: Any) -> Mean:
    """The mean of the finite values of an array of any shape.

    A picture without an object has no PSNR of it (NaN), equal pictures an infinite one, and neither has a place in a
    mean nor in JSON.
    """
    flat = np.asarray(values, np.float64).ravel()
    known = flat[np.isfinite(flat)]
    return Mean(float(known.mean()) if len(known) else None, len(flat) - len(known))


def summarize(values: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Of each name its mean, and as `<name>_undefined` how many of its values count in none."""
    found: dict[str, float | int | None] = {}
    for name, each in values.items():
        found[name], found[f"{name}_undefined"] = mean_defined(each)
    return found


def pool(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One summary of several: means of their figures, sums of what counts (`num_...`, `..._undefined`), lists joined.

    Args:
      rows: at least one, all of the same names; a figure that is None is in no mean.
    """
    pooled: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(first, list):
            pooled[name] = [each for value in values for each in value]
        elif name.startswith("num_") or name.endswith("_undefined"):
            pooled[name] = sum(values)
        else:
            pooled[name] = mean_defined([value for value in values if value is not None]).value
    return pooled
