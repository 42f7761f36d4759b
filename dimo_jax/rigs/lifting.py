"""From markers in several views to markers in space: all joints and all frames at once.

Least squares over the positions X of K markers at T times (AnimaX Sec. 3.3, step 2):

    sum of  w rho(|project(X) - x| / s)  +  rho((|X_k - X_parent| - L_k) / b)  +  rho(|X(t-1) - 2 X(t) + X(t+1)| / a)

with rho of Cauchy, so that a wrong sighting has little pull. Bones of real rigs stretch and joints jump, so lengths and
smoothness are soft and their pull is bounded: they decide only where fewer than two views see a marker, and smoothness
holds beside such gaps alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.cameras.triangulation import project_with_slopes, reprojection_errors, triangulate_by_pairs
from dimo_jax.core.types import Camera

NOISE = 0.5  # pixels of a picture of 480 rows: s above
AGREES = 3.0  # such pixels: beyond, a view contradicts the others
STRETCH = 0.02  # of the diagonal: b above
JUMP = 0.02  # of the diagonal, from frame to frame: a above
CLEAN_SHARE = 0.3  # of a disc that must be seen for a view to count as clean
# How far a marker is to be believed, by the number of clean views: two fix a point and cannot contradict each other.
CONFIDENCE = (0.05, 0.2, 0.75, 0.95, 1.0)
_NUM_STEPS, _NUM_SOLVE = 12, 60


@dataclass(frozen=True)
class Lifted:
    """K markers in space at T times."""

    points: np.ndarray  # [T,K,3] world
    confidence: np.ndarray  # [T,K] 0..1, by the number of clean views
    errors: np.ndarray  # [V,T,K] pixels between projection and sighting; NaN where there is none
    clean: np.ndarray  # [V,T,K] bool: sighted well, and in agreement with the point
    agreement: float  # share of the sightings, as they first were, that agree with the points; 0 where there is none


def lift(
    pixels: np.ndarray,
    weights: np.ndarray,
    cameras: Camera,
    *,
    parents: np.ndarray,
    rest: np.ndarray,
    diagonal: float,
    clean_weight: float = CLEAN_SHARE,
    slack: float = 1.0,
) -> Lifted:
    """Markers in space.

    Args:
      pixels: [V,T,K,2]; NaN where there is no sighting.
      weights: [V,T,K] 0..1, how well each is seen.
      cameras: V of them, stacked; the unit of their world is that of `rest`.
      parents: [K] the marker at the other end of a bone, -1 for none.
      rest: [K,3] positions at rest, for the bones' lengths.
      diagonal: of the model.
      clean_weight: from which weight on a view counts as clean.
      slack: times `NOISE` and `AGREES`, for pictures in which markers stand less exactly than in rendered ones.
    """
    scale = slack * cameras.height / 480
    weights = np.where(np.isfinite(pixels).all(axis=-1), weights, 0.0)
    points = triangulate_by_pairs(pixels, weights, cameras, tolerance=2 * AGREES * scale)
    points = fill_points(points, parents, rest)
    points = _refine(points, pixels, weights, cameras, parents, rest, diagonal, NOISE * scale)
    errors = np.where(weights > 0, reprojection_errors(points, pixels, cameras), np.nan)
    agrees = errors <= AGREES * scale  # false where NaN
    clean = (weights >= clean_weight) & agrees
    agreement = float(agrees.sum() / max((weights > 0).sum(), 1))
    counts = np.minimum(clean.sum(axis=0), len(CONFIDENCE) - 1)
    return Lifted(points, np.array(CONFIDENCE)[counts], errors, clean, agreement)


def fill_points(points: np.ndarray, parents: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Puts points [T,K,3] in the place of NaN: between the times around them, else where the marker above has them."""
    filled = points.copy()
    times = np.arange(len(points))
    center = np.nanmean(points - rest, axis=(0, 1)) if np.isfinite(points).any() else np.zeros(3)
    for index, parent in enumerate(parents):
        known = np.isfinite(filled[:, index]).all(axis=-1)
        if known.any():
            for axis in range(3):
                filled[:, index, axis] = np.interp(times, times[known], filled[known, index, axis])
        else:
            above = filled[:, parent] - rest[parent] if parent >= 0 else center
            filled[:, index] = rest[index] + above
    return filled


def _refine(
    points: np.ndarray,
    pixels: np.ndarray,
    weights: np.ndarray,
    cameras: Camera,
    parents: np.ndarray,
    rest: np.ndarray,
    diagonal: float,
    noise: float,
) -> np.ndarray:
    """Gauss-Newton with reweighting from points [T,K,3]."""
    bones = np.flatnonzero(parents >= 0)
    ends = np.zeros((len(bones), len(parents)))
    ends[np.arange(len(bones)), bones] = 1
    ends[np.arange(len(bones)), parents[bones]] -= 1
    lengths = np.linalg.norm(ends @ rest, axis=-1)
    unseen = (weights > 0).sum(axis=0) < 2
    beside = unseen[:-2] | unseen[1:-1] | unseen[2:]
    observed = np.where(weights[..., None] > 0, pixels, 0.0)
    for _ in range(_NUM_STEPS):
        seen, slopes = project_with_slopes(points, cameras)
        residual = observed - seen
        trust = weights * _trust(np.linalg.norm(residual, axis=-1), noise)
        spans = np.einsum("bk,tki->tbi", ends, points)
        distance = np.maximum(np.linalg.norm(spans, axis=-1), 1e-12)
        missing = lengths - distance
        system = _System(
            blocks=np.einsum("vtk,vtkai,vtkaj->tkij", trust, slopes, slopes),
            ends=ends,
            along=spans / distance[..., None],
            bones=_trust(missing, STRETCH * diagonal),
            times=beside * _trust(np.linalg.norm(_bend(points), axis=-1), JUMP * diagonal),
        )
        pull = np.einsum("vtk,vtkai,vtka->tki", trust, slopes, residual)
        pull += system.pull_bones(missing) - _unbend(system.times[..., None] * _bend(points), len(points))
        move = system.solve(pull)
        points = points + move
        if np.abs(move).max() < 1e-6 * diagonal:
            break
    return points


def _trust(size: np.ndarray, scale: float) -> np.ndarray:
    """Weight of a residual of some size in the next step: that of Cauchy's loss at twice the noise's scale."""
    return 1 / scale**2 / (1 + (size / (2 * scale)) ** 2)


def _bend(points: np.ndarray) -> np.ndarray:
    """Second differences in time of points [T,K,3] -> [T-2,K,3]."""
    return points[:-2] - 2 * points[1:-1] + points[2:]


def _unbend(second: np.ndarray, count: int) -> np.ndarray:
    """The transpose of `_bend`: [T-2,K,3], none where T is 1, -> [T,K,3]; T is `count`."""
    points = np.zeros((count, *second.shape[1:]))
    points[:-2] += second
    points[1:-1] -= 2 * second
    points[2:] += second
    return points


@dataclass(frozen=True)
class _System:
    """The normal equations of one step: a block a marker, the bones between, and times beside each other."""

    blocks: np.ndarray  # [T,K,3,3]
    ends: np.ndarray  # [B,K] 1 at a bone's end, -1 at its other
    along: np.ndarray  # [T,B,3] unit
    bones: np.ndarray  # [T,B] weights
    times: np.ndarray  # [T-2,K] weights

    def pull_bones(self, missing: np.ndarray) -> np.ndarray:
        """What bones that are too short by `missing` [T,B] pull at markers -> [T,K,3]."""
        return np.matmul(self.ends.T, (self.bones * missing)[..., None] * self.along)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """The matrix times x [T,K,3]."""
        spans = np.einsum("tbi,tbi->tb", self.along, np.matmul(self.ends, x))
        image = np.einsum("tkij,tkj->tki", self.blocks, x) + self.pull_bones(spans)
        return image + _unbend(self.times[..., None] * _bend(x), len(x))

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Conjugate gradients, preconditioned by the blocks."""
        outer = np.einsum("tb,tbi,tbj->tbij", self.bones, self.along, self.along).reshape(len(right), -1, 9)
        times = np.zeros(right.shape[:2])
        for start, share in enumerate((1, 4, 1)):
            times[start : start + len(self.times)] += share * self.times
        diagonal = self.blocks + np.matmul(self.ends.T**2, outer).reshape(self.blocks.shape)
        diagonal = diagonal + (times[..., None, None] + 1e-9 * diagonal.max()) * np.eye(3)
        inverse = np.linalg.inv(diagonal)
        x, residual = np.zeros_like(right), right
        ready = np.einsum("tkij,tkj->tki", inverse, residual)
        direction, size = ready, (residual * ready).sum()
        start_size = size
        for _ in range(_NUM_SOLVE):
            if size <= 1e-16 * start_size or size == 0:
                break
            image = self.apply(direction)
            step = size / max((direction * image).sum(), 1e-300)
            x, residual = x + step * direction, residual - step * image
            ready = np.einsum("tkij,tkj->tki", inverse, residual)
            size, last = (residual * ready).sum(), size
            direction = ready + size / last * direction
        return x
