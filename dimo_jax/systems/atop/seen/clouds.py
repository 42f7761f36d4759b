"""Evidence from point clouds: unordered points on the moved part, one set a frame.

A cloud is explained as noisy points of the part's surface: a mixture of flat discs, one at each of some thousand
surface points, blurred by the noise. Where noise is small beside the shape this is point-to-plane distance, where it is
not, it still is the likelihood, and edges count as well: points that leave a flat surface sideways cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.spatial import cKDTree

from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.meshes.sampling import sample_surface, triangle_areas
from dimo_jax.systems.atop.seen.course import cross_matrices
from dimo_jax.systems.atop.seen.evidence import Slopes, move_pivots

MAX_DISCS = 4096
GATHERED, ROUNDS = 4, 2  # points that a disc stands for at least where each is the mean of a cell, and Lloyd's rounds
FEWEST, GROUPS = 128, 64  # discs under which they are chosen with care, and how many there are then
NEIGHBORS = 16  # discs that explain a point: those within 2.2 standard deviations, when their spacing is 1.4 of them
FAR = 5.0  # standard deviations from which a point is taken for a stray one


@dataclass(frozen=True)
class Surface:
    """Even points of the part at rest with normals and what area they stand for together."""

    points: np.ndarray  # [M,3] any order, so that a beginning is even as well
    normals: np.ndarray  # [M,3] unit
    area: float

    @property
    def center(self) -> np.ndarray:
        """Mean [3] of the points."""
        return np.asarray(self.points.mean(axis=0))

    @property
    def radius(self) -> float:
        """Root mean square distance of the points from their mean."""
        return float(np.sqrt(((self.points - self.center) ** 2).sum(1).mean()))


def surface_of(thing: ObjectMesh, count: int, *, seed: int = 0) -> Surface:
    """Points drawn from a mesh.

    Args:
      thing: what the points lie on.
      count: how many.
      seed: of the drawing and the order.

    Raises:
      ValueError: the mesh has no area.
    """
    areas, _ = triangle_areas(thing.corners)
    if not areas.sum() > 0:
        raise ValueError("the surface has no area")
    drawn = sample_surface(thing.corners, count, seed=seed)
    order = np.random.default_rng(seed).permutation(count)
    return Surface(drawn.points[order], drawn.normals[order], float(areas.sum()))


@dataclass(frozen=True)
class _Discs:
    """The mixture at one noise."""

    points: np.ndarray
    normals: np.ndarray
    log_shares: np.ndarray  # [M] of the surface, up to a constant
    tree: cKDTree
    around: np.ndarray  # [M,K] which discs explain a point that is nearest to a disc
    spread: float  # variance of a disc in its plane, noise apart


@dataclass(frozen=True)
class _Match:
    """Which discs explain which points, at rest. Vectors are lists of their components."""

    owner: np.ndarray  # [N] index of the pose
    seen: np.ndarray  # [N,3]
    turns: np.ndarray  # [N,3,3] of the poses
    likelihoods: np.ndarray  # [N] logarithms
    shares: np.ndarray  # [N,K] probability of each disc
    offsets: list[np.ndarray]  # 3 of [N,K], from the discs
    normals: list[np.ndarray]  # 3 of [N,K]
    across: np.ndarray  # [N,K] offsets along the normals


@dataclass(frozen=True)
class Clouds:
    """Point clouds of a part in T frames; see `evidence.Evidence`."""

    surface: Surface
    points: tuple[np.ndarray, ...]  # T of [n,3]
    noise: float  # standard deviation of a point along each axis
    temper: float = 1.0  # how many points that err together count as one

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.points)

    @property
    def pivot(self) -> np.ndarray:
        """The middle of the part at rest [3]."""
        return self.surface.center

    @cached_property
    def _discs(self) -> _Discs:
        wanted = 0.5 * self.surface.area / self.noise**2
        if wanted < FEWEST:
            return _group_discs(self.surface)
        count = int(min(wanted, MAX_DISCS, len(self.surface.points)))
        if count < len(self.surface.points) / GATHERED:
            return _gather_discs(self.surface, count)
        points = self.surface.points[:count].astype(np.float32)
        normals = self.surface.normals[:count].astype(np.float32)
        tree = cKDTree(points)
        around = tree.query(points, k=min(NEIGHBORS, count))[1]
        return _Discs(points, normals, np.zeros(count, np.float32), tree, around, 0.2 * self.surface.area / count)

    def thin(self, count: int) -> Clouds:
        """The same with at most `count` points a frame."""
        return replace(self, points=tuple(points[:count] for points in self.points))

    def blur(self, noise: float) -> Clouds:
        """The same with another noise."""
        return replace(self, noise=noise)

    def measure(self, poses: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """See `Evidence`."""
        return self._explain(poses, frames, slopes=False).cost

    def linearize(self, poses: np.ndarray, frames: np.ndarray) -> Slopes:
        """See `Evidence`."""
        return self._explain(poses, frames, slopes=True)

    def estimate_noise(self, poses: np.ndarray) -> float:
        """The noise that explains all frames best at these poses [T,4,4] (one step of expectation-maximization)."""
        match = self._match(poses, np.arange(self.num_frames))
        kept = match.shares.sum(1) > 0.5
        return float(np.sqrt((match.shares * match.across**2).sum(1)[kept].mean()))

    def nearest_distances(self, frame: int) -> np.ndarray:
        """How far the points of a frame are from the surface at rest [n]."""
        return np.asarray(self._discs.tree.query(self.points[frame])[0])

    def _precisions(self) -> tuple[float, float]:
        """Inverse variances of a disc across and along its plane; Python's floats leave arrays in float32."""
        return float(1 / self.noise**2), float(1 / (self.noise**2 + self._discs.spread))

    def _match(self, poses: np.ndarray, frames: np.ndarray) -> _Match:
        discs = self._discs
        owner = np.repeat(np.arange(len(frames)), [len(self.points[frame]) for frame in frames])
        seen = np.concatenate([self.points[frame] for frame in frames])
        turns, shifts = poses[owner, :3, :3], poses[owner, :3, 3]
        at_rest = ((seen - shifts)[:, None] @ turns)[:, 0]
        near = discs.around[discs.tree.query(at_rest)[1]]
        at_rest = at_rest.astype(np.float32)
        offsets = [at_rest[:, i, None] - discs.points[:, i][near] for i in range(3)]
        normals = [discs.normals[:, i][near] for i in range(3)]
        across = offsets[0] * normals[0] + offsets[1] * normals[1] + offsets[2] * normals[2]
        squares = offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2
        sharp, flat = self._precisions()
        exponents = -0.5 * flat * squares - 0.5 * (sharp - flat) * across**2
        exponents += discs.log_shares[near]
        stray = -0.5 * FAR**2
        top = np.maximum(exponents.max(1), stray)
        shares = np.exp(exponents - top[:, None])
        total = shares.sum(1) + np.exp(stray - top)
        return _Match(
            owner,
            seen,
            turns,
            (top + np.log(total)).astype(np.float64),
            shares / total[:, None],
            offsets,
            normals,
            across,
        )

    def _explain(self, poses: np.ndarray, frames: np.ndarray, *, slopes: bool) -> Slopes:
        match, count = self._match(poses, frames), len(frames)
        cost = -np.bincount(match.owner, match.likelihoods, count) / self.temper
        if not slopes:
            return Slopes(cost, np.zeros((count, 6)), np.zeros((count, 6, 6)))
        sharp, flat = self._precisions()
        pulls = [flat * d + (sharp - flat) * match.across * n for d, n in zip(match.offsets, match.normals)]
        shared = [match.shares * pull for pull in pulls]
        weighted = [(sharp - flat) * match.shares * n for n in match.normals]
        pull = np.stack([each.sum(1) for each in shared], axis=-1).astype(np.float64)
        stiff = pull[:, :, None] * pull[:, None] + (flat * match.shares.sum(1))[:, None, None] * np.eye(3)
        for i in range(3):
            for j in range(i, 3):
                stiff[:, i, j] += (weighted[i] * match.normals[j] - shared[i] * pulls[j]).sum(1)
                stiff[:, j, i] = stiff[:, i, j]
        # A twist moves the point at rest by -R^T (turn x arm + shift).
        arms = match.seen - move_pivots(self, poses)[match.owner]
        back = match.turns.swapaxes(-1, -2)
        levers = np.concatenate([back @ cross_matrices(arms), -back], axis=-1)  # [N,3,6]
        edges = np.searchsorted(match.owner, np.arange(count))
        gradient = np.add.reduceat((pull[:, None] @ levers)[:, 0], edges)
        curvature = np.add.reduceat(levers.swapaxes(-1, -2) @ (stiff @ levers), edges) / self.temper
        values, vectors = np.linalg.eigh(curvature)
        curvature = (vectors * np.maximum(values, 0)[:, None]) @ vectors.swapaxes(-1, -2)
        return Slopes(cost, gradient / self.temper, curvature)


def _gather_discs(surface: Surface, count: int) -> _Discs:
    """Discs that stand for cells of the surface, each by its share: as many drawn points would be a shape of their own,
    turned by degrees against the true one where noise leaves few of them. Cells lie on one side of a thin part.
    """
    sample = np.concatenate([surface.points, np.sqrt(surface.area / count) * surface.normals], axis=-1)
    centers = sample[:count]
    for _ in range(ROUNDS):
        cells = cKDTree(centers).query(sample)[1]
        counts = np.bincount(cells, minlength=len(centers))
        sums = np.stack([np.bincount(cells, column, len(centers)) for column in sample.T], axis=-1)
        centers, counts = sums[counts > 0] / counts[counts > 0, None], counts[counts > 0]
    lengths = np.linalg.norm(centers[:, 3:], axis=-1, keepdims=True)
    normals = (centers[:, 3:] / np.maximum(lengths, 1e-12)).astype(np.float32)
    points, shares = centers[:, :3].astype(np.float32), np.log(counts / counts.mean()).astype(np.float32)
    tree = cKDTree(points)
    inner = (tree.query(surface.points)[0] ** 2).mean() / 2  # the variance of a cell along each side of its plane
    around = tree.query(points, k=min(NEIGHBORS, len(points)))[1]
    return _Discs(points, normals, shares, tree, around, float(inner))


def _group_discs(surface: Surface) -> _Discs:
    """Few discs for a part that is small beside the noise: means of cells of the surface, for drawn points would be a
    shape of their own. All of them explain every point."""
    sample = surface.points[: FEWEST * 16]
    centers, cells = kmeans2(sample, GROUPS, minit="points", rng=np.random.default_rng(0))
    counts = np.bincount(cells, minlength=GROUPS)
    kept = np.flatnonzero(counts)
    normals = np.stack([np.bincount(cells, surface.normals[: len(sample), i], GROUPS) for i in range(3)], axis=-1)[kept]
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    units = np.where(lengths > 0, normals / np.maximum(lengths, 1e-12), [0.0, 0.0, 1.0])
    inner = ((sample - centers[cells]) ** 2).sum(-1).mean() / 2  # the variance of a cell along each side of its plane
    points, shares = centers[kept].astype(np.float32), np.log(counts[kept] / counts.mean())
    around = np.tile(np.arange(len(kept)), (len(kept), 1))
    return _Discs(points, units.astype(np.float32), shares.astype(np.float32), cKDTree(points), around, float(inner))


def make_clouds(surface: Surface, points: Sequence[np.ndarray], *, noise: float, seed: int = 0) -> Clouds:
    """Clouds in a random order each, so that `Clouds.thin` takes an even part.

    Args:
      surface: of the part at rest.
      points: T of [n,3].
      noise: a first guess, standard deviation along each axis.
      seed: of the order.
    """
    rng = np.random.default_rng(seed)
    return Clouds(surface, tuple(np.asarray(each, np.float64)[rng.permutation(len(each))] for each in points), noise)
