"""Convex pieces that stand for a part in collisions.

Every connected piece of the surface that fills its convex hull is that hull. A hollow one, such as a cabinet without
its door, is cut into the slabs that its surface occupies in a coarse grid, and each slab is the hull of the surface in
it: the opening stays open. Slabs whose common hull adds next to nothing are joined again, as HACD does (Mamou & Ghorbel
2009), until there are few.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from dimo_jax.meshes.solids import label_components, weld

Piece = tuple[np.ndarray, np.ndarray]  # vertices [p,3] and triangles [f,3], closed, turned outwards
FULL = 0.85  # of its hull's volume, from which on a piece of the surface is taken for convex
GRIDS = (20, 10)  # cells along the longest side; the coarser one where the finer gives too many slabs
MANY_SLABS = 40
MANY_PLANES, LARGE_FACE = 10, 0.03  # at most so many faces a direction, of at least that share of the box's side
MANY_COMPONENTS = 64  # of which the smaller ones go with the nearest of the others
WASTE, WASTE_IN_ALL = 0.02, 0.1  # of the volume of all pieces, which joining two, and all joining, may add
MAX_PIECES = 24
MANY_FACES, COARSE = 100_000, 0.004  # from which on vertices are first joined within that share of the extent
MANY_HOLLOW = 6  # the largest connected pieces, which alone are cut into slabs
_THICKNESS = 1e-3  # of the diagonal, that a flat piece is given


def hull_of(points: np.ndarray, *, thickness: float) -> Piece:
    """The convex hull of points [p,3]; flat ones are thickened to `thickness`."""
    center = points.mean(0)
    _, axes = np.linalg.eigh(np.cov((points - center).T) if len(points) > 1 else np.eye(3))
    local = (points - center) @ axes
    extent = np.ptp(local, axis=0)
    for axis in np.flatnonzero(extent < thickness):
        step = np.zeros(3)
        step[axis] = thickness / 2
        local = np.concatenate([local - step, local + step])
    points = local @ axes.T + center
    try:
        hull = ConvexHull(points)
    except QhullError:
        return _box(points, thickness)
    used, triangles = np.unique(hull.simplices, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    vertices = points[used]
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    inwards = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(1) < 0
    triangles[inwards] = triangles[inwards][:, ::-1]
    return vertices, triangles.astype(np.int32)


def _box(points: np.ndarray, thickness: float) -> Piece:
    low, high = points.min(0) - thickness / 2, points.max(0) + thickness / 2
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    return hull_of(low + corners * (high - low), thickness=0.0)


def volume_of(piece: Piece) -> float:
    """The volume of a closed surface."""
    vertices, triangles = piece
    return float(np.linalg.det(vertices[triangles] - vertices.mean(0)).sum() / 6)


def find_pieces(vertices: np.ndarray, triangles: np.ndarray, *, hull_only: bool = False) -> list[Piece]:
    """Convex pieces that cover a surface.

    Args:
      vertices: [P,3].
      triangles: [F,3].
      hull_only: one hull around all of it.

    Returns:
      At most `MAX_PIECES` closed convex surfaces; none where there is no triangle.
    """
    places, faces = weld(np.asarray(vertices, np.float64), triangles)
    if len(faces) > MANY_FACES:
        places, faces = weld(places, faces, tolerance=COARSE)
    if not len(faces):
        return []
    diagonal = float(np.linalg.norm(np.ptp(places[np.unique(faces)], axis=0)))
    thickness = _THICKNESS * diagonal
    if hull_only:
        return [hull_of(places[np.unique(faces)], thickness=thickness)]
    pieces: list[Piece] = []
    components = _split_components(places, faces)
    for rank, own in enumerate(components):
        whole = hull_of(places[np.unique(own)], thickness=thickness)
        if (
            rank >= MANY_HOLLOW
            or np.linalg.norm(np.ptp(whole[0], axis=0)) < 0.1 * diagonal
            or _fills(places, own, volume_of(whole))
        ):
            pieces.append(whole)
        else:
            pieces += _cut_into_slabs(places, own, thickness)
    return _join(pieces, thickness)


def _split_components(places: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    """The connected pieces of a surface, as triangles, the largest first; of very many, small ones join a large one."""
    labels = label_components(faces, len(places))
    groups = np.split(np.argsort(labels, kind="stable"), np.flatnonzero(np.diff(np.sort(labels))) + 1)
    corners = [places[faces[members]].reshape(-1, 3) for members in groups]
    order = np.argsort([-np.linalg.norm(np.ptp(each, axis=0)) for each in corners], kind="stable")
    if len(groups) > MANY_COMPONENTS:
        large, small = order[:MANY_COMPONENTS], order[MANY_COMPONENTS:]
        centers = np.stack([each.mean(0) for each in corners])
        home = large[np.linalg.norm(centers[small, None] - centers[large], axis=2).argmin(1)]
        return [faces[np.concatenate([groups[k], *(groups[s] for s in small[home == k])])] for k in large]
    return [faces[groups[k]] for k in order]


def _fills(places: np.ndarray, faces: np.ndarray, hull_volume: float) -> bool:
    """Whether the surface encloses most of its hull; a sheet of no volume counts by how flat its hull is."""
    corners = places[faces]
    volume = float(np.linalg.det(corners - corners.mean((0, 1))).sum() / 6)
    area = float(np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum())
    extent = float(np.linalg.norm(np.ptp(corners.reshape(-1, 3), axis=0)))
    return abs(volume) >= FULL * hull_volume or hull_volume <= 0.02 * extent * area / 4


def _cut_into_slabs(places: np.ndarray, faces: np.ndarray, thickness: float) -> list[Piece]:
    """Hulls of the surface in boxes of a grid's cells, the grid along the surface's own axes."""
    corners = places[faces]
    axes = _own_axes(corners)
    local = corners @ axes
    for grid in GRIDS:
        planes = [_choose_planes(local, axis, grid) for axis in range(3)]
        small = _cut_at_planes(local, planes)
        which = _number_slabs(small, planes)
        if which.max() <= MANY_SLABS:
            break
    left = which > MANY_SLABS  # crumbs, which go with the slab that is nearest
    if left.any() and not left.all():
        slabs = [small[which == slab].mean((0, 1)) for slab in range(1, MANY_SLABS + 1)]
        which[left] = 1 + np.linalg.norm(small[left].mean(1)[:, None] - np.stack(slabs), axis=2).argmin(1)
    return [
        hull_of(small[which == slab].reshape(-1, 3) @ axes.T, thickness=thickness) for slab in range(1, which.max() + 1)
    ]


def _choose_planes(corners: np.ndarray, axis: int, grid: int) -> np.ndarray:
    """Where the grid cuts triangles [F,3,3] across an axis [n]: at large flat faces, so that a board of any thickness
    is a layer of its own, and evenly between them; both ends included."""
    places, extent = corners[..., axis], np.ptp(corners.reshape(-1, 3), axis=0)
    cell = float(extent.max()) / grid
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = np.abs(normals[:, axis]) > 0.999 * np.linalg.norm(normals, axis=1)
    step = cell / 16
    steps, which = np.unique(np.rint(places[flat].mean(1) / step), return_inverse=True)
    areas = np.bincount(which.reshape(-1), np.abs(normals[flat, axis]) / 2, len(steps))
    large = np.sort(np.argsort(-areas)[:MANY_PLANES])
    large = large[areas[large] > LARGE_FACE * np.prod(np.delete(extent, axis))]
    exact = [float(places[flat][which.reshape(-1) == each].mean()) for each in large]
    low, high = float(places.min()), float(places.max())
    ends = [low, *(x for x in exact if low + step < x < high - step), high]
    between = [
        np.linspace(a, b, max(1, int(np.ceil((b - a) / cell - 0.01))) + 1)[:-1] for a, b in itertools.pairwise(ends)
    ]
    return np.r_[np.concatenate(between), high] if high > low else np.array([low - step, low + step])


def _cut_at_planes(corners: np.ndarray, planes: list[np.ndarray]) -> np.ndarray:
    """Triangles [F,3,3] cut where they cross planes of a grid; the pieces of each lie in one cell."""
    for axis, places in enumerate(planes):
        tolerance = 1e-6 * (places[-1] - places[0])
        for place in places[1:-1]:
            for _ in range(2):  # a cut leaves pieces that cross at one more edge at most
                sides = corners[..., axis] - place
                signs = np.where(np.abs(sides) <= tolerance, 0, np.sign(sides))
                crossing = signs * np.roll(signs, -1, axis=1) < 0  # edge from corner i to i+1
                cut = crossing.any(axis=1)
                if not cut.any():
                    break
                turn = (crossing[cut].argmax(1)[:, None] + np.arange(3)) % 3
                a, b, c = np.moveaxis(np.take_along_axis(corners[cut], turn[:, :, None], axis=1), 1, 0)
                share = (place - a[:, axis]) / (b[:, axis] - a[:, axis])
                middle = a + share[:, None] * (b - a)
                middle[:, axis] = place
                halves = [np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)]
                corners = np.concatenate([corners[~cut], *halves])
    return corners


def _number_slabs(corners: np.ndarray, planes: list[np.ndarray]) -> np.ndarray:
    """Which box of grid cells each small triangle [F,3,3] lies in -> [F], from 1."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    cells = []
    for axis, places in enumerate(planes):
        # A face that lies in a plane belongs to the cell behind it, which is inside.
        inside = corners[:, :, axis].mean(1) - normals[:, axis] * 1e-4 * (places[-1] - places[0])
        cells.append(np.clip(np.searchsorted(places, inside, side="right") - 1, 0, len(places) - 2))
    shape = tuple(len(places) - 1 for places in planes)
    flat = np.ravel_multi_index(tuple(cells), shape)
    occupied = np.zeros(shape, bool)
    occupied.reshape(-1)[flat] = True
    return _cover_with_boxes(occupied, MANY_SLABS).reshape(-1)[flat]


def _own_axes(corners: np.ndarray) -> np.ndarray:
    """Columns [3,3]: the commonest normal of the faces [F,3,3], by area, the commonest across it, and the third."""
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    kept = areas > 1e-12 * areas.max()
    normals, areas = normals[kept] / areas[kept, None], areas[kept]
    tried = np.argsort(-areas)[:200]
    votes = (areas * (np.abs(normals[tried] @ normals.T) > 0.999)).sum(1)
    first = normals[tried[votes.argmax()]]
    across = np.abs(normals[tried] @ first) < 0.05
    second = normals[tried[across][votes[across].argmax()]] if across.any() else np.eye(3)[np.abs(first).argmin()]
    second = second - first * (first @ second)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def _cover_with_boxes(occupied: np.ndarray, most: int) -> np.ndarray:
    """Numbers occupied cells [X,Y,Z] by disjoint boxes full of them, each time the largest that grows from a cell.

    After `most` boxes, what is left has the number `most + 1`, or 0 where nothing is.
    """
    free, numbers = occupied.copy(), np.zeros(occupied.shape, np.int64)
    for number in range(1, most + 1):
        seeds = np.argwhere(free)
        if not len(seeds):
            break
        best: tuple[slice, ...] = ()
        size = 0
        for seed in seeds[np.linspace(0, len(seeds) - 1, min(len(seeds), 8)).astype(int)]:
            for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
                box = _grow(free, seed, order)
                volume = int(np.prod([side.stop - side.start for side in box]))
                if volume > size:
                    best, size = box, volume
        numbers[best] = number
        free[best] = False
    numbers[free] = most + 1
    return numbers


def _grow(free: np.ndarray, seed: np.ndarray, order: tuple[int, ...]) -> tuple[slice, ...]:
    """The box of free cells that grows from a cell to both sides along one axis after the other."""
    sides = [slice(int(place), int(place) + 1) for place in seed]
    for axis in order:
        for step in (-1, 1):
            while True:
                side = sides[axis]
                edge = side.start - 1 if step < 0 else side.stop
                if not 0 <= edge < free.shape[axis]:
                    break
                layer = list(sides)
                layer[axis] = slice(edge, edge + 1)
                if not free[tuple(layer)].all():
                    break
                sides[axis] = slice(edge, side.stop) if step < 0 else slice(side.start, edge + 1)
    return tuple(sides)


def _join(pieces: list[Piece], thickness: float) -> list[Piece]:
    """Joins the two pieces whose common hull wastes least, while it wastes little or there are too many."""
    volumes = [volume_of(piece) for piece in pieces]
    most, left = WASTE * sum(volumes), WASTE_IN_ALL * sum(volumes)
    waste = _Waste(pieces, volumes, thickness)
    while len(pieces) > 1:
        (first, second), least = waste.least()
        if len(pieces) <= MAX_PIECES and least > min(most, left):
            break
        left -= max(least, 0.0)
        waste.join(first, second)
    return waste.pieces


class _Waste:
    """What joining each two pieces would add to their volume, kept up to date."""

    def __init__(self, pieces: list[Piece], volumes: list[float], thickness: float) -> None:
        self.pieces, self._volumes, self._thickness = pieces, volumes, thickness
        count = len(pieces)
        self._table = np.full((count, count), np.inf)
        # Of very many pieces each is compared with its nearest alone: hulls of far ones waste most.
        centers = np.stack([vertices.mean(0) for vertices, _ in pieces])
        apart = np.linalg.norm(centers[:, None] - centers, axis=2)
        np.fill_diagonal(apart, np.inf)  # not by its place in the order, for another may have the same centre
        nearest = np.argsort(apart, axis=1)[:, : min(8, count - 1)]
        for i in range(count):
            for j in nearest[i].tolist():
                low, high = min(i, j), max(i, j)
                if np.isinf(self._table[low, high]):
                    self._table[low, high] = self._measure(low, high)

    def _measure(self, i: int, j: int) -> float:
        both = hull_of(np.concatenate([self.pieces[i][0], self.pieces[j][0]]), thickness=self._thickness)
        return volume_of(both) - self._volumes[i] - self._volumes[j]

    def least(self) -> tuple[tuple[int, int], float]:
        """The two pieces to join next, and what it wastes."""
        place = int(self._table.argmin())
        first, second = divmod(place, len(self.pieces))
        return (first, second), float(self._table[first, second])

    def join(self, i: int, j: int) -> None:
        """Puts the hull of pieces i < j in the place of i, and takes j out."""
        both = hull_of(np.concatenate([self.pieces[i][0], self.pieces[j][0]]), thickness=self._thickness)
        near = np.isfinite(np.minimum(self._table, self._table.T))[[i, j]].any(0)
        self.pieces[i], self._volumes[i] = both, volume_of(both)
        self._table = np.delete(np.delete(self._table, j, 0), j, 1)
        near = np.delete(near, j)
        del self.pieces[j], self._volumes[j]
        for other in np.flatnonzero(near).tolist():
            if other != i:
                low, high = min(i, other), max(i, other)
                self._table[low, high] = self._measure(low, high)
        if not np.isfinite(self._table).any() and len(self.pieces) > 1:
            self._table[0, 1] = self._measure(0, 1)
