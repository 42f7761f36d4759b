"""How good drawn videos and pose maps of a rig are: where its joints come to lie, and how the pictures move.

Of VBench (Huang et al. 2024), which the paper reports, three figures are taken without the networks that it uses, so
they are to be compared with each other alone, not with the paper's:

- `subject`: cosine of the figure's colour histograms in the condition and in each frame, in the place of DINO's
  features;
- `smoothness`: 1 - the mean absolute difference of every second frame from the mean of its neighbours (of 1), in the
  place of a network that interpolates;
- `dynamic`: share of the videos that move: the mean of the largest 5 % of the flow's lengths is over 6 pixels of 256 in
  at least a quarter of the pairs of frames, by OpenCV's flow in the place of RAFT's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.metrics.motion import measure_flow
from dimo_jax.rigs.drawn_maps import recover_drawn
from dimo_jax.rigs.recovery import Shown

WHITE = 250  # a pixel all of whose channels are above belongs to the background
_BINS = 8  # of the histogram, each channel
_FASTEST, _MOVES, _OFTEN = 0.05, 6 / 256, 0.25  # of the flow, as VBench has them


def joint_error(points: np.ndarray, truth: np.ndarray, diagonal: float) -> float:
    """MPJPE: mean distance of points [T,K,3] from the true ones, in percent of the diagonal."""
    return 100 * float(np.linalg.norm(points - truth, axis=-1).mean()) / diagonal


def warped_error(points: np.ndarray, truth: np.ndarray, diagonal: float) -> float:
    """MPJPE where each may wait for the other: the least mean over all monotonous pairings of their frames.

    It forgives another speed and a beginning that is a little off, which a sentence does not tell, and no other pose.
    A pair by which both go on counts twice (Sakoe and Chiba 1978), so that all pairings weigh the same.
    """
    costs = np.linalg.norm(points[:, None] - truth[None], axis=-1).mean(axis=-1)
    total = np.full((len(points) + 1, len(truth) + 1), np.inf)
    total[0, 0] = 0
    for i, row in enumerate(costs, 1):
        for j, cost in enumerate(row, 1):
            total[i, j] = min(total[i - 1, j - 1] + 2 * cost, total[i - 1, j] + cost, total[i, j - 1] + cost)
    return 100 * float(total[-1, -1]) / (len(points) + len(truth)) / diagonal


def compare_subject(videos: np.ndarray, stills: np.ndarray) -> float:
    """`subject` of videos [V,T,H,W,3] and their conditions [V,H,W,3], uint8 over white; NaN where a still is empty."""
    values = []
    for video, still in zip(videos, stills):
        wanted = _histogram(still)
        values += [float(wanted @ _histogram(frame)) for frame in video]
    return float(np.mean(values))


def _histogram(picture: np.ndarray) -> np.ndarray:
    """Unit vector [bins^3] of the colours of what is not white, softly binned; zeros where all is white."""
    colors = picture.reshape(-1, 3)[(picture < WHITE).any(axis=-1).reshape(-1)].astype(np.float64)
    places = colors / 255 * (_BINS - 1)
    low = np.minimum(np.floor(places).astype(int), _BINS - 2)
    share, found = places - low, np.zeros(_BINS**3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, share, 1 - share).prod(axis=-1)
        found += np.bincount((low + corner) @ (_BINS**2, _BINS, 1), weight, _BINS**3)
    length = np.linalg.norm(found)
    return found / length if length > 0 else found


def measure_smoothness(videos: np.ndarray) -> float:
    """`smoothness` of videos [V,T,H,W,3] uint8, T at least 3."""
    frames = videos.astype(np.float32) / 255
    middle = 0.5 * (frames[:, :-2:2] + frames[:, 2::2])
    return 1 - float(np.abs(frames[:, 1:-1:2] - middle).mean())


def is_dynamic(video: np.ndarray) -> bool:
    """Whether a video [T,H,W,3] uint8 moves, see `dynamic` above.

    Raises:
      UserError: as `measure_flow`.
    """
    lengths = np.linalg.norm(measure_flow(video), axis=-1).reshape(len(video) - 1, -1)
    count = max(1, int(lengths.shape[1] * _FASTEST))
    fastest = np.sort(lengths, axis=1)[:, -count:].mean(axis=1)
    return bool((fastest > _MOVES * min(video.shape[1:3])).mean() >= _OFTEN)


def judge_videos(
    videos: np.ndarray, stills: np.ndarray, truth: np.ndarray, cameras: Camera, markers: Shown
) -> dict[str, Any]:
    """All figures of one drawn sample but FVD, which needs many.

    Args:
      videos: [V,2,T,H,W,3] uint8, pictures and pose maps.
      stills: [V,2,H,W,3] uint8, the condition.
      truth: [T,K,3] of the markers, in the world of the cameras.
      cameras: V.
      markers: K, in that world.

    Returns:
      `mpjpe` and `warped` (percent of the diagonal), `seen` (share of the markers that
      two views show well), `subject`,
      `smoothness`, `dynamic`.
    """
    lifted = recover_drawn(videos[:, 1], cameras, markers)
    return judge_points(lifted.points, truth, markers.diagonal) | {
        "seen": float((lifted.confidence >= 0.5).mean()),
        "subject": compare_subject(videos[:, 0], stills[:, 0]),
        "smoothness": measure_smoothness(videos[:, 0]),
        "dynamic": float(np.mean([is_dynamic(video) for video in videos[:, 0]])),
    }


def judge_points(points: np.ndarray, truth: np.ndarray, diagonal: float) -> dict[str, float]:
    """`mpjpe` and `warped` of points [T,K,3], as `judge_videos`."""
    return {"mpjpe": joint_error(points, truth, diagonal), "warped": warped_error(points, truth, diagonal)}
