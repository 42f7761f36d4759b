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


def draw_evenly_from(sizes: Sequence[Sequence[int]], count: int, *, seed: int = 0) -> np.ndarray:
    """As `draw_evenly`, from several grids that need not be of one size, such as objects of several views and frames.

    Args:
      sizes: of each grid's axes; as many axes for all, at least one.
      count, seed: see there.

    Returns:
      [n,1+axes] int64: the grid's index, then its cell's. Each grid is drawn from as often as any other that has so
      many cells, but for one; the cells of all grids of one size together are as even as those of one grid.
    """
    quotas = _deal([math.prod(each) for each in sizes], count, seed=seed)
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, each in enumerate(sizes):
        alike.setdefault(tuple(each), []).append(index)
    parts = []
    for size, members in alike.items():
        wanted = int(quotas[members].sum())
        if wanted:
            cells = draw_evenly((len(members), *size), wanted, seed=seed)
            cells[:, 0] = np.asarray(members)[cells[:, 0]]
            parts.append(cells)
    cells = np.concatenate(parts)
    return cells[np.lexsort(cells.T[::-1])]


def _deal(limits: Sequence[int], count: int, *, seed: int) -> np.ndarray:
    """How many of `count` (0: all) fall to each of those that take at most `limits`, as evenly as these allow."""
    most = np.asarray(limits, np.int64)
    if not 0 < count < most.sum():
        return most
    dealt, left = np.zeros_like(most), count
    while left:
        hungry = np.flatnonzero(dealt < most)
        if left < len(hungry):
            dealt[np.random.default_rng(seed).permutation(hungry)[:left]] += 1
            break
        share = min(left // len(hungry), int((most - dealt)[hungry].min()))
        dealt[hungry] += share
        left -= share * len(hungry)
    return dealt


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
