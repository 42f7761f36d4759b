"""Colours that are told apart after a video's compression, as far from each other as colours get."""

from __future__ import annotations

import functools

import numpy as np

BACKGROUND, LINE = (0, 0, 0), (72, 72, 72)
MAX_COLORS = 256
_STEPS = 16  # grid points along each side of the colour cube
_PASSES = 8
_NEIGHBORS = 8


def color_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances between colours [n,3] and [m,3] of 0..255 -> [n,m] float64."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    squares = (first**2).sum(-1)[:, None] + (second**2).sum(-1)[None] - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0))


@functools.cache
def _spread(count: int) -> tuple[tuple[int, int, int], ...]:
    levels = np.linspace(0, 255, _STEPS)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    fixed = np.array([BACKGROUND, LINE], np.float64)
    free = color_distances(grid, fixed).min(axis=1)
    chosen = np.zeros(count, int)
    apart = np.full((count, len(grid)), np.inf)  # of every chosen colour from all of the grid
    nearest = free.copy()
    for index in range(count):
        chosen[index] = nearest.argmax()
        apart[index] = color_distances(grid[chosen[index], None], grid)[0]
        nearest = np.minimum(nearest, apart[index])
    for index in np.tile(np.arange(count), _PASSES):  # each moves to where the others leave most room
        apart[index] = np.inf
        room = np.minimum(free, apart.min(axis=0))
        if room.max() > room[chosen[index]]:
            chosen[index] = room.argmax()
        apart[index] = color_distances(grid[chosen[index], None], grid)[0]
    return tuple((int(r), int(g), int(b)) for r, g, b in np.round(grid[chosen]))


def spread_colors(count: int) -> np.ndarray:
    """Colours [count,3] uint8 far from each other, from `BACKGROUND` and from `LINE`; the same for each count.

    Farthest points of a grid of the colour cube, each then moved to where the others leave most room.

    Raises:
      ValueError: `count` is not 1 to `MAX_COLORS`.
    """
    if not 1 <= count <= MAX_COLORS:
        raise ValueError(f"count is {count}, expected 1 to {MAX_COLORS}")
    return np.array(_spread(count), np.uint8)


def assign_colors(points: np.ndarray) -> np.ndarray:
    """A colour for each of some points [K,3], so that near points get colours that are far apart -> [K,3] uint8."""
    colors = spread_colors(len(points))
    apart = color_distances(colors, colors)
    near = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assigned = np.full(len(points), -1)
    unused = np.ones(len(points), bool)
    for index in range(len(points)):
        order = np.argsort(near[index], kind="stable")
        others = [assigned[other] for other in order[1 : 1 + _NEIGHBORS] if assigned[other] >= 0]
        room = apart[:, others].min(axis=1) if others else np.linalg.norm(colors.astype(float), axis=1)
        assigned[index] = int(np.where(unused, room, -1).argmax())
        unused[assigned[index]] = False
    return colors[assigned]
