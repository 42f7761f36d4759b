"""A part and its body in one normalized frame, with what every candidate is judged by, computed once.

Lengths are in units of the diagonal of the object's smallest box, whatever way it is turned, so that tolerances mean
the same for a button and a wardrobe.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from dimo_jax.core.errors import UserError
from dimo_jax.meshes.boxes import Box, face_frame, principal_axes, smallest_box
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.meshes.parts import connected_pieces, weld_vertices
from dimo_jax.meshes.sampling import Samples, sample_surface, triangle_areas
from dimo_jax.meshes.sweeps import Obstacle

BODY_SAMPLES, PART_SAMPLES, PROBES = 8000, 1500, 220
CONTACT = 0.012  # how much farther than the nearest point still counts as contact
INWARD = 0.003  # how far the probes lie under the surface of the part
MOST_PIECES = 12


@dataclass(frozen=True)
class Setting:
    """All arrays are in the normalized frame: world = center + scale * local."""

    scale: float
    center: np.ndarray  # [3] world
    body: Samples
    part: Samples
    body_tree: cKDTree
    probes: np.ndarray  # [N,3] points just under the surface of the part
    obstacle: Obstacle
    two_sided: np.ndarray  # [F] bool, see `sweeps.blocked_shares`
    box: Box  # of the part, its smallest
    frame: np.ndarray  # [3,3] what most faces of the body are parallel to
    frame_share: float
    part_frame: np.ndarray  # [3,3] the same of the part
    part_share: float
    principal: np.ndarray  # [3,3] of the part, longest first
    gap: np.ndarray  # [N] distance of the part's samples from the body
    touching: np.ndarray  # [N] bool, those in contact
    part_pieces: tuple[Samples, ...]  # the largest first
    part_shares: tuple[float, ...]  # of the part's surface that these have
    body_pieces: tuple[Samples, ...]  # those near the part
    up: np.ndarray | None  # [3] unit

    @property
    def contact(self) -> np.ndarray:
        """Points [M,3] of the part that touch the body."""
        return self.part.points[self.touching]

    @property
    def contact_normal(self) -> np.ndarray:
        """Unit normal [3] of the body around the middle of the contact, up to sign."""
        middle = self.contact.mean(axis=0)
        gap = np.linalg.norm(self.body.points - middle, axis=1)
        near = self.body.normals[np.argsort(gap)[:150]]
        return np.linalg.eigh(near.T @ near)[1][:, -1]

    @property
    def tip(self) -> np.ndarray:
        """Middle [3] of the tenth of the part's surface that is farthest from the body: a lever's free end."""
        return self._tenth(-self._heights())

    @functools.cached_property
    def root(self) -> np.ndarray:
        """Middle [3] of the tenth of the part's surface that lies deepest in the body: where a lever is held."""
        return self._tenth(self._heights())

    def _heights(self) -> np.ndarray:
        """[N] how far the part's samples are outside of the body; what lies inside of it, which is no free end, < 0."""
        nearest = self.body_tree.query(self.part.points)[1]
        height = np.einsum("nd,nd->n", self.part.points - self.body.points[nearest], self.body.normals[nearest])
        return np.where(height < 0, -self.gap, self.gap)

    def _tenth(self, order: np.ndarray) -> np.ndarray:
        return np.asarray(self.part.points[np.argsort(order)[: len(order) // 10]].mean(axis=0))

    @property
    def part_center(self) -> np.ndarray:
        """Centroid [3] of the part's surface."""
        return self.part.points.mean(axis=0)


def make_setting(body: ObjectMesh, part: ObjectMesh, up: np.ndarray | None = None) -> Setting:
    """Prepares body and part.

    Raises:
      UserError: one of them has no area, or numbers that are not finite.
    """
    for what, thing in (("body", body), ("part", part)):
        if not len(thing.triangles) or triangle_areas(thing.corners)[0].sum() <= 0:
            raise UserError(f"{thing.path}: the {what} has no area, expected a surface")
        if not np.isfinite(thing.corners).all():
            raise UserError(f"{thing.path}: the {what} has NaN or infinite vertices, expected finite numbers")
    both = np.concatenate([body.corners, part.corners])
    tips = smallest_box(both.reshape(-1, 3))
    center, scale = tips.center, float(2 * np.linalg.norm(tips.half))
    body_corners, part_corners = ((thing.corners - center) / scale for thing in (body, part))
    body_samples = sample_surface(body_corners, BODY_SAMPLES, seed=1)
    samples = sample_surface(part_corners, PART_SAMPLES, seed=2)
    tree = cKDTree(body_samples.points)
    gap = surface_distance(tree, body_samples, samples.points)
    frame, share = _frame_of(body_corners)
    part_frame, part_share = _frame_of(part_corners)
    probes = sample_surface(part_corners, PROBES, seed=3)
    part_pieces = _pieces(part, part_corners, None)
    return Setting(
        scale=scale,
        center=center,
        body=body_samples,
        part=samples,
        body_tree=tree,
        probes=probes.points - INWARD * probes.normals,
        obstacle=Obstacle(body_corners),
        two_sided=_without_inside(body),
        box=smallest_box(part_corners.reshape(-1, 3)),
        frame=frame,
        frame_share=share,
        part_frame=part_frame,
        part_share=part_share,
        principal=principal_axes(samples.points),
        gap=gap,
        touching=gap <= gap.min() + CONTACT,
        part_pieces=tuple(piece for piece, _ in part_pieces),
        part_shares=tuple(share for _, share in part_pieces),
        body_pieces=tuple(piece for piece, _ in _pieces(body, body_corners, samples.points)),
        up=None if up is None else np.asarray(up, np.float64) / np.linalg.norm(up),
    )


def _frame_of(corners: np.ndarray) -> tuple[np.ndarray, float]:
    areas, normals = triangle_areas(corners)
    return face_frame(normals[areas > 0], areas[areas > 0] / areas.sum())


def surface_distance(tree: cKDTree, samples: Samples, points: np.ndarray) -> np.ndarray:
    """About how far points [N,3] are from a sampled surface: to the plane of the nearest sample, where it reaches."""
    _, nearest = tree.query(points)
    offset = points - samples.points[nearest]
    normal = samples.normals[nearest]
    height = np.abs(np.einsum("nd,nd->n", offset, normal))
    beside = np.sqrt(np.maximum((offset**2).sum(axis=1) - height**2, 0))
    return np.hypot(height, np.maximum(beside - 0.015, 0))


def _without_inside(thing: ObjectMesh) -> np.ndarray:
    """[F] bool: triangles of pieces that are not closed, where edges lack a triangle that runs along them opposed."""
    corners = weld_vertices(thing.vertices)[thing.triangles]
    pieces = connected_pieces(thing.vertices, thing.triangles)
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]).astype(np.int64)
    count = int(corners.max()) + 1
    forward, backward = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    owner = np.tile(pieces, 3)
    lonely = ~np.isin(forward, backward) & (edges[:, 0] != edges[:, 1])
    share = np.bincount(owner[lonely], minlength=pieces.max() + 1) / np.bincount(owner, minlength=pieces.max() + 1)
    return (share > 0.02)[pieces]


def _pieces(thing: ObjectMesh, corners: np.ndarray, near: np.ndarray | None) -> list[tuple[Samples, float]]:
    """Samples and shares of the surface of the larger connected pieces; with `near`, of those close to these points."""
    label = connected_pieces(thing.vertices, thing.triangles)
    tree = None if near is None else cKDTree(near)
    found: list[tuple[Samples, float]] = []
    whole = float(triangle_areas(corners)[0].sum())
    for index in range(min(int(label.max()) + 1, 60)):
        mine = corners[label == index]
        area = float(triangle_areas(mine)[0].sum())
        if area <= 1e-7:
            continue
        samples = sample_surface(mine, 400, seed=4)
        if tree is not None and tree.query(samples.points)[0].min() > 0.04:
            continue
        found.append((samples, area / whole))
        if len(found) == MOST_PIECES:
            break
    return found
