"""How much moves, how different motions are, and how far trajectories lie from true ones."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.geometry.neighbors import nearest

SMALLEST_SIDE = 16  # pixels, under which the optical flow has no pyramid to work on


def measure_flow(frames: np.ndarray) -> np.ndarray:
    """Optical flow from each frame to the next by OpenCV's DIS, preset "medium" (Kroeger et al. 2016), on grey values.

    Args:
      frames: [T,H,W,3] uint8 RGB.

    Returns:
      [T-1,H,W,2] float32 (x, y) in pixels a frame.

    Raises:
      UserError: pictures under 16 pixels a side, or `opencv-python-headless` is not installed.
    """
    cv2 = load_opencv()
    if min(frames.shape[1:3]) < SMALLEST_SIDE:
        size = f"{frames.shape[2]}x{frames.shape[1]}"
        raise UserError(f"optical flow: found pictures of {size}, expected at least {SMALLEST_SIDE} pixels a side")
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
    flows = [method.calc(a, b, None) for a, b in itertools.pairwise(grey)]
    return np.asarray(flows, np.float32).reshape(len(frames) - 1, *frames.shape[1:3], 2)


def load_opencv() -> Any:
    """OpenCV's module.

    Raises:
      UserError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "optical flow: package opencv-python-headless not found (pip install 'dimo_jax[evaluate]')"
        ) from error
    return cv2


def motion_amplitude(flow: np.ndarray, mask: np.ndarray, *, largest: float = 0.2) -> float:
    """Mean of the largest 20 % of the flow's lengths inside the object's mask, averaged over pairs of frames.

    Source: the paper's Table 4, "the average of the largest 20% optical flows within the instance mask". It names no
    unit; here it is pixels a frame, so that figures compare at one resolution and frame rate only. The paper's flow is
    a network's [57].

    Args:
      flow: [T-1,H,W,2] pixels a frame, from `measure_flow`.
      mask: [T-1,H,W] or [T,H,W] bool, the object in the frame that each flow starts from.
      largest: the share that counts, above 0 and at most 1.

    Returns:
      Pixels a frame; NaN where no mask holds a pixel.
    """
    if not 0 < largest <= 1:
        raise ValueError(f"motion_amplitude: found largest={largest}, expected above 0 and at most 1")
    means = []
    for lengths, inside in zip(np.linalg.norm(flow, axis=-1), mask):
        values = np.sort(lengths[inside])
        if len(values):
            means.append(values[-max(1, round(largest * len(values))) :].mean())
    return float(np.mean(means)) if means else float("nan")


def trajectory_diversity(trajectories: np.ndarray) -> float:
    """Mean distance between the trajectories of two motions, over all pairs: 0 where all motions are the same.

    The distance of two motions is that of corresponding points at the same time, averaged over points and frames.

    Args:
      trajectories: [S,T,K,3], S at least 2 motions of the same points.

    Returns:
      World units.

    Raises:
      ValueError: fewer than 2 motions.
    """
    if trajectories.ndim != 4 or len(trajectories) < 2:
        raise ValueError(f"trajectory_diversity: found {trajectories.shape}, expected [S,T,K,3] with S >= 2")
    pairs = [
        np.linalg.norm(trajectories[i + 1 :] - trajectories[i], axis=-1).mean(axis=(1, 2))
        for i in range(len(trajectories) - 1)
    ]
    return float(np.mean(np.concatenate(pairs)))


def trajectory_distances(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Distances between each of some motions and each of others, as `trajectory_diversity` has them.

    Args:
      first: [S,T,K,3] and
      last: [M,T,K,3] trajectories of the same points.

    Returns:
      [S,M] world units.
    """
    return np.stack([np.linalg.norm(last - each, axis=-1).mean(axis=(1, 2)) for each in first])


def pick_farthest(trajectories: np.ndarray, num: int) -> np.ndarray:
    """Indices [num] of motions far apart: the first of [S,T,K,3], then always the one farthest from those taken."""
    taken = [0]
    left = trajectory_distances(trajectories[:1], trajectories)[0]
    while len(taken) < num:
        taken.append(int(left.argmax()))
        left = np.minimum(left, trajectory_distances(trajectories[taken[-1:]], trajectories)[0])
    return np.asarray(taken)


def trajectory_error(points: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """How far points stray from the true surface points that they lie nearest to in the first frame.

    The displacement since the first frame is compared, |(x^t - x^0) - (s^t - s^0)|, so that a point under the surface
    is not charged its depth. It is still charged what that depth sweeps when the surface turns.

    Args:
      points: [T,N,3] trajectories of the model, such as the Gaussians' centres.
      truth: [T,P,3] trajectories of points fixed on the true surface.

    Returns:
      The mean error over points and frames after the first, and that of points that stay where they are (the mean
      length of the true displacements), both in world units. NaN for a single frame.
    """
    found, _ = nearest(jnp.asarray(points[0]), jnp.asarray(truth[0]), num_neighbors=1)
    matched = truth[:, np.asarray(found)[:, 0]]
    true = matched[1:] - matched[:1]
    error = np.linalg.norm((points[1:] - points[:1]) - true, axis=-1)
    if not error.size:
        return float("nan"), float("nan")
    return float(error.mean()), float(np.linalg.norm(true, axis=-1).mean())


def joint_error(key_points: np.ndarray, joints: np.ndarray, *, num_neighbors: int = 4) -> float:
    """How well key points keep their distance to the joints that they are near, as points of a rigid part would.

    The model knows no skeleton, so a joint has no counterpart to compare it with. But the key points nearest to a joint
    in the first frame belong to its bones, and their distance to it stays as it is wherever the limb goes:
    the mean of | |k^t - j^t| - |k^0 - j^0| | over joints, their nearest key points and the frames after the first.

    Args:
      key_points: [T,K,3] trajectories of the model's key points.
      joints: [T,Jn,3] true trajectories of joints.
      num_neighbors: key points per joint, 1..K.

    Returns:
      World units, 0 where every joint's key points move rigidly with it. NaN for a single frame.
    """
    between = np.linalg.norm(joints[0][:, None] - key_points[0][None], axis=-1)
    close = np.argsort(between, axis=1, kind="stable")[:, :num_neighbors]
    distances = np.linalg.norm(key_points[:, close] - joints[:, :, None], axis=-1)
    changes = np.abs(distances[1:] - distances[:1])
    return float(changes.mean()) if changes.size else float("nan")
