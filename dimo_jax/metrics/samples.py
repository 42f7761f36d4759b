"""How drawn motions lie among known ones: precision and recall of two sets by their mutual distances."""

from __future__ import annotations

import numpy as np


def precision_recall(
    across: np.ndarray, drawn: np.ndarray, known: np.ndarray, *, num_neighbors: int = 3
) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019), from distances alone.

    A set's manifold is the union of balls around its members that reach to the `num_neighbors`-th nearest other member.

    Args:
      across: [S,M] distances of drawn members to known ones.
      drawn: [S,S] distances among the drawn.
      known: [M,M] distances among the known.
      num_neighbors: at least 1, under S and M.

    Returns:
      The share of the drawn that lie on the known set's manifold (are they plausible?), and of the known that lie on
      the drawn set's (is everything covered?), both 0 to 1.

    Raises:
      ValueError: fewer members than neighbours.
    """
    how = dict(num_neighbors=num_neighbors)
    return coverage(across, known, **how), coverage(across.T, drawn, **how)


def coverage(across: np.ndarray, known: np.ndarray, *, num_neighbors: int = 3) -> float:
    """The share of some members that lie on the manifold of a set, as `precision_recall` has it.

    Args:
      across: [S,M] distances of the members to those of the set.
      known: [M,M] distances among the set.
      num_neighbors: at least 1, under M.

    Raises:
      ValueError: fewer members than neighbours.
    """
    if not 1 <= num_neighbors < len(known):
        raise ValueError(f"coverage: found {len(known)} and {num_neighbors} neighbours, expected fewer neighbours")
    reach = np.sort(known, axis=1)[:, num_neighbors]
    return float((across <= reach).any(axis=1).mean())
