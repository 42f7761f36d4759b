"""Which pictures a slow figure looks at, when it cannot look at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_SWAPS_PER_ROW = 20  # after which nothing of the order is left that the design began with


def draw_evenly(sizes: Sequence[int], count: int, *, seed: int = 0) -> np.ndarray:
    """Draws cells of a grid at random, so that along every axis each index is hit as often as any other.

    A stride through the flattened grid would do neither: one that divides the product of the last axes sees the same
    view and frame of every motion.

    Args:
      sizes: of the axes, such as motions, views and frames; each at least 1.
      count: cells to draw; 0, or more than there are, takes all.
      seed: of the draw. Equal arguments give equal cells.

    Returns:
      [n,len(sizes)] int64, different rows in lexicographic order. How often two indices of one axis occur differs by
      at most 1.
    """
    total = math.prod(sizes)
    wanted = count if 0 < count < total else total
    rng = np.random.default_rng(seed)
    cells = _walk(sizes, wanted)
    if wanted < total:
        for axis, size in enumerate(sizes):
            cells[:, axis] = rng.permutation(size)[cells[:, axis]]
        _shuffle(cells, rng)
    return cells[np.lexsort(cells.T[::-1])]


def _walk(sizes: Sequence[int], count: int) -> np.ndarray:
    """The first `count` cells of a path through the whole grid on which all axes advance in turn.

    Each axis counts on by one a cell, and skips one whenever it has come round together with the axes before it. So
    every cell is met once, and every beginning of the path hits the indices of each axis equally often, but for one.
    """
    steps, columns, before = np.arange(count), [], 1
    for size in sizes:
        together = math.lcm(before, size)
        before *= size
        columns.append((steps + steps % before // together) % size)
    return np.stack(columns, axis=1)


def _shuffle(cells: np.ndarray, rng: np.random.Generator) -> None:
    """Swaps single coordinates between rows, in place: how often an index occurs stays, what goes together does not."""
    taken = {tuple(row) for row in cells.tolist()}
    for axis in range(cells.shape[1]):
        for one, other in rng.integers(len(cells), size=(_SWAPS_PER_ROW * len(cells), 2)):
            before = tuple(cells[one].tolist()), tuple(cells[other].tolist())
            first, second = (list(row) for row in before)
            first[axis], second[axis] = second[axis], first[axis]
            after = tuple(first), tuple(second)
            if not taken.intersection(after):
                taken.difference_update(before)
                taken.update(after)
                cells[one], cells[other] = after
