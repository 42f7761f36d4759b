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
    if not 1 <= num_neighbors < min(across.shape):
        raise ValueError(f"precision_recall: found {across.shape} and {num_neighbors} neighbours, expected fewer")
    reach_known, reach_drawn = (np.sort(each, axis=1)[:, num_neighbors] for each in (known, drawn))
    return float((across <= reach_known).any(axis=1).mean()), float((reach_drawn >= across.T).any(axis=1).mean())
