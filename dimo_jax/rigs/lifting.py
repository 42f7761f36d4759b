"""From markers in several views to markers in space: all joints and all frames at once.

Least squares over the positions X of K markers at T times (AnimaX Sec. 3.3, step 2):

    sum of  w rho(|project(X) - x| / s)  +  ((|X_k - X_parent| - L_k) / b)^2  +  (|X(t-1) - 2 X(t) + X(t+1)| / a)^2

with rho of Cauchy, so that a wrong sighting has little pull. Bones of real rigs stretch and joints jump, so lengths and
smoothness are soft: they decide only where fewer than two views see a marker.
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


def lift(
    pixels: np.ndarray,
    weights: np.ndarray,
    cameras: Camera,
    *,
    parents: np.ndarray,
    rest: np.ndarray,
    diagonal: float,
    clean_weight: float = CLEAN_SHARE,
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
    """
    scale = cameras.height / 480
    weights = np.where(np.isfinite(pixels).all(axis=-1), weights, 0.0)
    points = triangulate_by_pairs(pixels, weights, cameras, tolerance=2 * AGREES * scale)
    points = _fill(points, parents, rest)
    points = _refine(points, pixels, weights, cameras, parents, rest, diagonal, NOISE * scale)
    errors = np.where(weights > 0, reprojection_errors(points, pixels, cameras), np.nan)
    clean = (weights >= clean_weight) & (np.nan_to_num(errors, nan=np.inf) <= AGREES * scale)
    counts = np.minimum(clean.sum(axis=0), len(CONFIDENCE) - 1)
    return Lifted(points, np.array(CONFIDENCE)[counts], errors, clean)


def _fill(points: np.ndarray, parents: np.ndarray, rest: np.ndarray) -> np.ndarray:
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
    bone_weight, time_weight = 1 / (STRETCH * diagonal) ** 2, 1 / (JUMP * diagonal) ** 2
    observed = np.where(weights[..., None] > 0, pixels, 0.0)
    for _ in range(_NUM_STEPS):
        seen, slopes = project_with_slopes(points, cameras)
        residual = observed - seen
        trust = weights / noise**2 / (1 + (residual**2).sum(axis=-1) / (2 * noise) ** 2)
        blocks = np.einsum("vtk,vtkai,vtkaj->tkij", trust, slopes, slopes)
        pull = np.einsum("vtk,vtkai,vtka->tki", trust, slopes, residual)
        spans = np.einsum("bk,tki->tbi", ends, points)
        distance = np.maximum(np.linalg.norm(spans, axis=-1, keepdims=True), 1e-12)
        along = spans / distance
        stretch = bone_weight * (lengths[:, None] - distance) * along
        pull += np.einsum("bk,tbi->tki", ends, stretch) - time_weight * _bend(points)
        system = _System(blocks, ends, along, bone_weight, time_weight)
        move = system.solve(pull)
        points = points + move
        if np.abs(move).max() < 1e-6 * diagonal:
            break
    return points


def _bend(points: np.ndarray) -> np.ndarray:
    """D'D of points [T,...], with D the second differences in time."""
    if len(points) < 3:
        return np.zeros_like(points)
    second = points[:-2] - 2 * points[1:-1] + points[2:]
    bent = np.zeros_like(points)
    bent[:-2] += second
    bent[1:-1] -= 2 * second
    bent[2:] += second
    return bent


@dataclass(frozen=True)
class _System:
    """The normal equations of one step: a block a marker, the bones between, and times beside each other."""

    blocks: np.ndarray  # [T,K,3,3]
    ends: np.ndarray  # [B,K] 1 at a bone's end, -1 at its other
    along: np.ndarray  # [T,B,3] unit
    bone_weight: float
    time_weight: float

    def apply(self, x: np.ndarray) -> np.ndarray:
        """The matrix times x [T,K,3]."""
        spans = np.einsum("tbi,tbi->tb", self.along, np.matmul(self.ends, x))
        bones = np.matmul(self.ends.T, spans[..., None] * self.along) * self.bone_weight
        return np.einsum("tkij,tkj->tki", self.blocks, x) + bones + self.time_weight * _bend(x)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Conjugate gradients, preconditioned by the blocks."""
        outer = np.einsum("tbi,tbj->tbij", self.along, self.along).reshape(len(right), -1, 9)
        own = np.matmul(self.ends.T**2, outer).reshape(self.blocks.shape)
        diagonal = self.blocks + self.bone_weight * own + 6 * self.time_weight * np.eye(3)
        inverse = np.linalg.inv(diagonal)
        x, residual = np.zeros_like(right), right
        ready = np.einsum("tkij,tkj->tki", inverse, residual)
        direction, size = ready, (residual * ready).sum()
        start = size
        for _ in range(_NUM_SOLVE):
            if size <= 1e-16 * start or size == 0:
                break
            image = self.apply(direction)
            step = size / (direction * image).sum()
            x, residual = x + step * direction, residual - step * image
            ready = np.einsum("tkij,tkj->tki", inverse, residual)
            size, last = (residual * ready).sum(), size
            direction = ready + size / last * direction
        return x
