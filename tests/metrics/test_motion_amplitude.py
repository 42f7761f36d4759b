"""Motion amplitude, diversity and 3D errors, on motions that are known."""

import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from dimo_jax.core.errors import UserError
from dimo_jax.metrics.motion import joint_error, measure_flow, motion_amplitude, trajectory_diversity, trajectory_error


def test_flow_of_a_moving_texture():
    texture = gaussian_filter(np.random.default_rng(0).uniform(0, 1, (96, 96)), 2)
    texture = (texture - texture.min()) / np.ptp(texture)
    frames = np.stack([shift(texture, (2 * t, 3 * t), order=3, mode="wrap") for t in range(3)])
    frames = np.repeat((255 * np.clip(frames, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)
    flow = measure_flow(frames)
    assert flow.shape == (2, 96, 96, 2)
    np.testing.assert_allclose(np.median(flow, axis=(1, 2)), [[3, 2], [3, 2]], atol=0.2)
    mask = np.zeros((3, 96, 96), bool)
    mask[:, 30:66, 30:66] = True
    np.testing.assert_allclose(motion_amplitude(flow, mask), np.sqrt(13), atol=0.3)


def test_amplitude_is_the_mean_of_the_largest_fifth_inside_the_mask():
    flow = np.zeros((2, 4, 5, 2), np.float32)
    flow[0, :2, :, 0] = -np.arange(10).reshape(2, 5)
    flow[:, 2:] = 100  # outside
    mask = np.zeros((3, 4, 5), bool)
    mask[:, :2] = True
    assert motion_amplitude(flow, mask) == (8.5 + 0) / 2
    assert np.isnan(motion_amplitude(flow, ~mask & False))


def test_flow_without_opencv_or_pixels_is_a_user_error(monkeypatch):
    with pytest.raises(UserError, match="found pictures of 8x12, expected at least 16 pixels a side"):
        measure_flow(np.zeros((2, 12, 8, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"opencv-python-headless not found \(pip install 'dimo_jax\[evaluate\]'\)"):
        measure_flow(np.zeros((2, 32, 32, 3), np.uint8))


def test_diversity_is_the_mean_over_pairs():
    a = np.random.default_rng(0).normal(size=(4, 5, 6, 3))
    pairs = [np.mean([np.diag(cdist(a[i, t], a[j, t])) for t in range(5)]) for i in range(4) for j in range(i)]
    np.testing.assert_allclose(trajectory_diversity(a), np.mean(pairs))
    assert trajectory_diversity(np.repeat(a[:1], 3, axis=0)) == 0
    with pytest.raises(ValueError, match="S >= 2"):
        trajectory_diversity(a[:1])


def test_trajectory_error_of_points_that_follow_and_that_stay():
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(1, 50, 3)) + np.linspace(0, 1, 5)[:, None, None] * np.array([0.3, 0, 0.4])
    inside = truth[:, :20] + 1e-4
    np.testing.assert_allclose(trajectory_error(inside, truth), (0, 0.5 * np.mean([0.25, 0.5, 0.75, 1])), atol=1e-9)
    still = np.repeat(inside[:1], 5, axis=0)
    error, of_still = trajectory_error(still, truth)
    np.testing.assert_allclose(error, of_still)


def test_joint_error_ignores_rigid_motion_and_sees_the_rest():
    rng = np.random.default_rng(0)
    rotations = Rotation.from_rotvec(rng.normal(size=(6, 3))).as_matrix()
    key_points, joints = rng.normal(size=(30, 3)), rng.normal(size=(4, 3))
    moved, moved_joints = (x @ rotations.transpose(0, 2, 1) + np.arange(6)[:, None, None] for x in (key_points, joints))
    assert joint_error(moved, moved_joints) < 1e-12
    growing = joints[:1] + np.array([[[0.1, 0, 0]], [[0.25, 0, 0]]])  # from 0.1 away to 0.25
    np.testing.assert_allclose(joint_error(growing, np.stack([joints[:1]] * 2), num_neighbors=1), 0.15)
