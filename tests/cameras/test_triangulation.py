"""Triangulation against OpenCV and against points that are known."""

import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.cameras.surround import surround
from dimo_jax.cameras.triangulation import (
    project,
    project_with_slopes,
    reprojection_errors,
    triangulate,
    triangulate_by_pairs,
)


@pytest.fixture(scope="module")
def cameras():
    return orbit([20, 110, 200, 290], [15, 0, 30, -10], radius=3, fov_deg=34, height=480, width=640)


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (7, 5, 3))


def test_projection_and_two_views_match_opencv(cameras, points):
    cv2 = pytest.importorskip("cv2")
    pixels, depths = project(points, cameras)
    assert (depths > 0).all()
    matrices = []
    for view in range(4):
        lens = np.diag([*cameras.focal[view], 1.0])
        lens[:2, 2] = cameras.center[view]
        pose = cameras.world_to_camera[view].astype(float)
        vector, _ = cv2.Rodrigues(pose[:3, :3])
        found, _ = cv2.projectPoints(points.reshape(-1, 3), vector, pose[:3, 3], lens, None)
        np.testing.assert_allclose(pixels[view].reshape(-1, 2), found[:, 0], atol=1e-4)
        matrices.append(lens @ pose[:3])
    flat = pixels.reshape(4, -1, 2)
    four = cv2.triangulatePoints(matrices[0], matrices[1], flat[0].T, flat[1].T)
    weights = np.zeros(pixels.shape[:-1])
    weights[:2] = 1
    np.testing.assert_allclose(triangulate(pixels, weights, cameras).reshape(-1, 3), (four[:3] / four[3]).T, atol=1e-6)


def test_hidden_views_are_ignored_and_one_view_is_no_point(cameras, points):
    pixels, _ = project(points, cameras)
    weights = np.ones(pixels.shape[:-1])
    weights[2], pixels[2] = 0, np.inf
    pixels[3, 1:] = np.nan  # of weight 1
    weights[1:, 0, 0] = 0
    found = triangulate(pixels, weights, cameras)
    assert np.isnan(found[0, 0]).all()
    found[0, 0] = points[0, 0]
    np.testing.assert_allclose(found, points, atol=1e-9)


def test_a_wrong_view_does_no_harm_to_the_best_pair(cameras, points):
    pixels, _ = project(points, cameras)
    pixels += np.random.default_rng(1).normal(0, 0.2, pixels.shape)
    wrong = pixels.copy()
    wrong[3, ::2] += 60
    weights = np.ones(pixels.shape[:-1])
    plain = np.linalg.norm(triangulate(wrong, weights, cameras) - points, axis=-1)
    robust = np.linalg.norm(triangulate_by_pairs(wrong, weights, cameras, tolerance=3) - points, axis=-1)
    assert plain[::2].min() > 0.03
    assert robust.max() < 0.004
    assert np.nanmedian(reprojection_errors(points, wrong, cameras)) < 1


def test_slopes_are_derivatives(cameras, points):
    _, slopes = project_with_slopes(points, cameras)
    for axis in range(3):
        shift = 1e-5 * np.eye(3)[axis]
        difference = (project(points + shift, cameras)[0] - project(points - shift, cameras)[0]) / 2e-5
        np.testing.assert_allclose(slopes[..., axis], difference, rtol=1e-5, atol=1e-3)


def test_points_behind_a_camera_have_no_pixels(cameras):
    pixels, depths = project(np.array([0.0, 0.0, 10.0]), cameras)
    assert (depths < 0).any()
    assert np.isnan(pixels[depths < 0]).all()
    assert np.isfinite(pixels[depths > 0]).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_surrounding_cameras_see_all_points_in_their_own_unit(scale):
    points = scale * (np.random.default_rng(2).normal(size=(50, 3)) * [1, 0.2, 0.5] + [5, -3, 2])
    cameras = surround(points, height=480, width=480, margin=0.03)
    pixels, _ = project(points, cameras)
    least, most = np.nanmin(pixels), np.nanmax(pixels)
    assert least >= 0.03 * 480 - 0.01
    assert most <= 0.97 * 480 + 0.01
    assert least < 0.035 * 480 or most > 0.965 * 480  # no nearer without leaving the picture
