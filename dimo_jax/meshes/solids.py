"""Mass, centre and inertia of parts, as if cut from one material.

A closed surface has its own volume. One that is open, which most downloaded and all generated meshes are somewhere, has
that of the convex pieces that stand for it in collisions; a bare sheet is given a thickness. `Mass.source` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

VOLUME, PIECES, SHEET = "volume", "convex pieces", "sheet"
SHEET_THICKNESS = 0.005  # of the diagonal
# A body's volume over that of a cube of its diagonal, below which it is a sheet: if closed, and if of pieces, which are
# given a thickness themselves.
_THIN, _THIN_PIECES = 1e-7, 1e-3


@dataclass(frozen=True)
class Mass:
    """The mass properties of a rigid part."""

    mass: float  # kg, where the object's unit is the metre
    center: np.ndarray  # [3]
    inertia: np.ndarray  # [3,3] about the centre, in the object's axes
    source: str  # VOLUME, PIECES or SHEET

    def about(self, origin: np.ndarray, axis: np.ndarray) -> float:
        """Moment of inertia about the line through `origin` [3] along a unit `axis` [3]."""
        arm = self.center - origin
        return float(axis @ self.inertia @ axis + self.mass * (arm @ arm - (arm @ axis) ** 2))


def weld(vertices: np.ndarray, triangles: np.ndarray, *, tolerance: float = 1e-6) -> tuple[np.ndarray, np.ndarray]:
    """Joins vertices at one place (within `tolerance` of the extent), which textures and normals split.

    Returns:
      Places [Q,3], and triangles [F',3] of those that keep three different corners.
    """
    if not len(vertices):
        return vertices, triangles
    low = vertices.min(0)
    step = max(float((vertices.max(0) - low).max()) * tolerance, 1e-30)
    _, first, which = np.unique(
        np.rint((vertices - low) / step).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    joined = which.reshape(-1)[triangles]
    whole = (joined[:, 0] != joined[:, 1]) & (joined[:, 1] != joined[:, 2]) & (joined[:, 2] != joined[:, 0])
    return vertices[first], joined[whole]


def label_components(triangles: np.ndarray, num_vertices: int) -> np.ndarray:
    """Which connected piece of the (welded) surface each triangle [F,3] belongs to -> [F], from 0."""
    a, b = triangles[:, [0, 1]].reshape(-1), triangles[:, [1, 2]].reshape(-1)
    graph = coo_matrix((np.ones(len(a)), (a, b)), (num_vertices, num_vertices))
    labels = connected_components(graph, directed=False)[1][triangles[:, 0]] if len(triangles) else np.zeros(0, int)
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def is_closed(triangles: np.ndarray) -> bool:
    """Whether every directed edge of (welded) triangles [F,3] meets its opposite, as often as it comes itself."""
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    if not len(edges):
        return False
    base = int(edges.max()) + 1
    there, back = np.sort(edges[:, 0] * base + edges[:, 1]), np.sort(edges[:, 1] * base + edges[:, 0])
    return bool(np.array_equal(there, back))


def measure_mass(
    vertices: np.ndarray,
    triangles: np.ndarray,
    pieces: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    density: float,
) -> Mass:
    """Mass properties of a part.

    Args:
      vertices: [P,3], in metres.
      triangles: [F,3].
      pieces: convex pieces that cover it, as closed surfaces (vertices, triangles).
      density: kg per cubic metre.

    Raises:
      ValueError: the part has no surface at all.
    """
    places, faces = weld(np.asarray(vertices, np.float64), triangles)
    cube = float(np.linalg.norm(np.ptp(places, axis=0))) ** 3 if len(places) else 0.0
    # Of closed pieces one inside another with faces turned inwards is a cavity, which a signed sum takes away.
    if is_closed(faces):
        mass = _integrate([(places, faces)], density, VOLUME)
        if mass is not None and mass.mass > _THIN * cube * density:
            return mass
    mass = _integrate(pieces, density, PIECES)
    if mass is not None and mass.mass > _THIN_PIECES * cube * density:
        return mass
    return _measure_sheet(places, faces, density)


def _integrate(bodies: Sequence[tuple[np.ndarray, np.ndarray]], density: float, source: str) -> Mass | None:
    """Sums over the tetrahedra between triangles and a point near them; None where nothing is enclosed."""
    if not bodies:
        return None
    middle = np.concatenate([vertices for vertices, _ in bodies]).mean(0)
    corners = np.concatenate([vertices[triangles] for vertices, triangles in bodies]) - middle
    volumes = np.linalg.det(corners) / 6
    volume = float(volumes.sum())
    if not volume > 0:
        return None
    center = (volumes[:, None] * corners.sum(1)).sum(0) / 4 / volume
    sums = corners.sum(1)
    # Integral of x x^T over a tetrahedron with one corner at 0: V/20 (sum of c c^T + s s^T), s the sum of corners.
    second = np.einsum("f,fka,fkb->ab", volumes, corners, corners) + np.einsum("f,fa,fb->ab", volumes, sums, sums)
    second = second / 20 - volume * np.outer(center, center)
    return _to_mass(density * volume, middle + center, density * second, source)


def _measure_sheet(places: np.ndarray, faces: np.ndarray, density: float) -> Mass:
    """Triangles as plates of `SHEET_THICKNESS`."""
    corners = places[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    if not areas.sum() > 0:
        raise ValueError("a part has no surface, expected triangles with an area")
    thickness = SHEET_THICKNESS * float(np.linalg.norm(np.ptp(places, axis=0)))
    masses = density * thickness * areas
    center = (masses[:, None] * corners.mean(1)).sum(0) / masses.sum()
    corners = corners - center
    sums = corners.sum(1)
    second = np.einsum("f,fka,fkb->ab", masses, corners, corners) + np.einsum("f,fa,fb->ab", masses, sums, sums)
    second = second / 12 + masses.sum() * thickness**2 / 12 * np.eye(3)
    return _to_mass(float(masses.sum()), center, second, SHEET)


def _to_mass(mass: float, center: np.ndarray, second: np.ndarray, source: str) -> Mass:
    """Mass properties from second moments [3,3]; least ones as of a needle, so that every simulator takes them."""
    values, vectors = np.linalg.eigh((second + second.T) / 2)
    second = (vectors * np.maximum(values, 1e-6 * values.max())) @ vectors.T
    return Mass(mass, center, np.trace(second) * np.eye(3) - second, source)
