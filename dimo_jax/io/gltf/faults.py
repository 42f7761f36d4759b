"""What is no number in a glTF file: passed over where nothing needs it, refused by name, or repaired on request.

Of the values of a vertex that no triangle uses, of a node that moves nothing drawn, or of a normal, which is computed
anew, nothing depends on what they are. Elsewhere NaN and infinity are an error that names the place, and `--repair`
settles it in the way that the message says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import KDTree

from dimo_jax.io.gltf.document import Document

ROUNDING = 1e-3  # a weight that far below 0 is one
LOOSE = 0.05  # by which weights may miss a sum of 1 without a word


@dataclass(frozen=True)
class Faults:
    """Where a file's faults go: into an error, or with `repair` into `lines` about what was done."""

    document: Document
    repair: bool = False
    lines: list[str] = field(default_factory=list)

    def settle(self, where: str, bad: np.ndarray, what: str, values: np.ndarray, *, expected: str, remedy: str) -> None:
        """Raises for the first vertex that is `bad` [p], or notes the remedy that the caller applies.

        Args:
          where: the primitive, for people.
          bad: [p] bool.
          what: name of the values.
          values: [p,...] which the message shows.
          expected: what they should be.
          remedy: what `--repair` does, as a sentence about "it" or "they".
        """
        rows = np.flatnonzero(bad)
        if not len(rows):
            return
        if self.repair:
            self.lines.append(f"repaired: {where}: {what} of {len(rows)} of {len(bad)} vertices: {remedy}")
            return
        shown = " ".join(f"{value:g}" for value in np.ravel(values[rows[0]])[:16])
        also = f" ({len(rows)} of {len(bad)} vertices are so)" if len(rows) > 1 else ""
        raise self.document.fail(
            f"{where}: vertex {rows[0]} has the {what} {shown}, expected {expected}{also}; with --repair {remedy}"
        )


def find_used(triangles: np.ndarray, count: int) -> np.ndarray:
    """Which of `count` vertices any of the triangles [f,3] uses."""
    used = np.zeros(count, bool)
    used[triangles] = True
    return used


def clean_positions(
    faults: Faults, where: str, positions: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finite positions [p,3], and the triangles [f,3] that are left."""
    bad = ~np.isfinite(positions).all(axis=1)
    if not bad.any():
        return positions, triangles
    used = find_used(triangles, len(positions))
    remedy = "the triangles there are left out"
    faults.settle(where, bad & used, "position", positions, expected="finite numbers", remedy=remedy)
    known = positions[~bad & used]
    middle = known.mean(axis=0) if len(known) else np.zeros(3)
    return np.where(bad[:, None], middle, positions), triangles[~bad[triangles].any(axis=1)]


def clean_rows(
    faults: Faults, where: str, what: str, values: np.ndarray, used: np.ndarray, *, default: float, remedy: str
) -> np.ndarray:
    """Values [p,...] in which rows that are not finite are `default`; those of vertices in use are faults."""
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not bad.any():
        return values
    faults.settle(where, bad & used, what, values, expected="finite numbers", remedy=remedy)
    return np.where(bad.reshape(-1, *[1] * (values.ndim - 1)), default, values)


def find_wrong_weights(weights: np.ndarray) -> np.ndarray:
    """Which weights [p,S] are no weights: NaN, infinite, or negative by more than rounding."""
    wrong: np.ndarray = ~np.isfinite(weights) | (weights < -ROUNDING)
    return wrong


def clean_weights(
    faults: Faults, where: str, joints: np.ndarray, weights: np.ndarray, positions: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Joints [p,S] and weights [p,S] of 0 or more that sum to 1.

    A vertex without any weight follows its first joint; one whose weights are all at fault takes the joints and weights
    of the nearest vertex that has some.
    """
    bad = find_wrong_weights(weights)
    wrong = bad.any(axis=1)
    remedy = "the others are scaled to sum 1, and a vertex without any other takes those of the nearest vertex"
    faults.settle(where, wrong & used, "weights", weights, expected="finite weights of 0 or more", remedy=remedy)
    weights = np.where(bad, 0, np.maximum(weights, 0))
    total = weights.sum(axis=1)
    empty, off = total <= 0, np.abs(total - 1) > LOOSE
    lost = np.flatnonzero(empty & wrong)
    if len(lost) and not empty.all():
        known = np.flatnonzero(~empty)
        nearest = known[KDTree(positions[known]).query(positions[lost])[1]]
        joints, weights = joints.copy(), weights.copy()
        joints[lost], weights[lost] = joints[nearest], weights[nearest]
    weights[weights.sum(axis=1) <= 0, 0] = 1
    for rows, done in (
        (empty & ~wrong & used, "have no weight at all and follow their first joint"),
        (off & ~empty & ~wrong & used, "have weights that do not sum to 1 and are scaled"),
    ):
        if rows.any():
            faults.lines.append(f"{where}: {int(rows.sum())} of {len(rows)} vertices {done}")
    return joints, weights / weights.sum(axis=1, keepdims=True)
