"""Orbit cameras against analytic projections."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit, orbit_like, place_on_orbit, resize
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera


def project(camera: Camera, index: int, point: np.ndarray) -> tuple[np.ndarray, float]:
    """Pixel [2] and depth of a world point [3]."""
    local = camera.world_to_camera[index] @ np.append(point, 1.0)
    return local[:2] / local[2] * camera.focal[index] + camera.center[index], float(local[2])


def make(azimuth: float, elevation: float, **options) -> Camera:
    settings = {"radius": 2.0, "fov_deg": 33.9, "height": 128, "width": 96} | options
    return orbit([azimuth], [elevation], **settings)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "right", "up"),
    [
        (0, 0, (1, 0, 0), (0, 1, 0)),
        (90, 0, (0, 0, -1), (0, 1, 0)),
        (180, 0, (-1, 0, 0), (0, 1, 0)),
        (270, 0, (0, 0, 1), (0, 1, 0)),
        (0, 90, (1, 0, 0), (0, 0, -1)),
        (0, -90, (1, 0, 0), (0, 0, 1)),
    ],
)
def test_a_step_to_the_cameras_right_or_up_moves_the_pixel_by_focal_over_depth(azimuth, elevation, right, up):
    camera = make(azimuth, elevation)
    focal = 64 / np.tan(np.deg2rad(33.9) / 2)
    center, depth = project(camera, 0, np.zeros(3))
    np.testing.assert_allclose(center, [48, 64], atol=1e-4)
    np.testing.assert_allclose(depth, 2.0, atol=1e-6)
    pixel, depth = project(camera, 0, 0.1 * np.asarray(right, float))
    np.testing.assert_allclose(pixel, [48 + focal * 0.1 / 2, 64], atol=1e-3)
    np.testing.assert_allclose(depth, 2.0, atol=1e-6)
    pixel, _ = project(camera, 0, 0.1 * np.asarray(up, float))
    np.testing.assert_allclose(pixel, [48, 64 - focal * 0.1 / 2], atol=1e-3)


def test_azimuth_moves_towards_x_and_elevation_upwards():
    camera = make(30, 20, target=(0.3, -0.2, 0.5))
    pose = camera.world_to_camera[0]
    eye = -pose[:3, :3].T @ pose[:3, 3]
    e, a = np.deg2rad(20), np.deg2rad(30)
    expected = [np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)]
    np.testing.assert_allclose((eye - [0.3, -0.2, 0.5]) / 2, expected, atol=1e-6)


def test_rotations_are_proper_and_one_elevation_serves_all():
    camera = orbit(np.arange(0, 360, 17), 12.0, radius=3.0, fov_deg=50, height=20, width=20)
    rotations = camera.world_to_camera[:, :3, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (22, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0, atol=1e-6)


def test_the_field_of_view_spans_the_height():
    camera = make(0, 0)
    edge = 2 * np.tan(np.deg2rad(33.9) / 2)
    pixel, _ = project(camera, 0, np.asarray([0, edge, 0]))
    np.testing.assert_allclose(pixel, [48, 0], atol=1e-3)


def test_resize_keeps_the_relative_position_of_every_point():
    camera = make(40, 10)
    smaller = resize(camera, 32, 48)
    assert (smaller.height, smaller.width) == (32, 48)
    point = np.asarray([0.2, 0.3, -0.1])
    before, _ = project(camera, 0, point)
    after, _ = project(smaller, 0, point)
    np.testing.assert_allclose(after, before * [48 / 96, 32 / 128], atol=1e-4)


def test_orbit_like_a_camera_repeats_it_and_keeps_distance_and_lens():
    one = jax.tree.map(lambda x: x[0], orbit([52.0], [10.0], radius=2.5, fov_deg=40.0, height=48, width=64))
    azimuth, elevation, distance = place_on_orbit(one)
    assert (azimuth, elevation, distance) == pytest.approx((52.0, 10.0, 2.5), abs=1e-4)
    around = orbit_like(one, [azimuth, azimuth + 90], elevation)
    np.testing.assert_allclose(around.world_to_camera[0], one.world_to_camera, atol=1e-6)
    np.testing.assert_array_equal(around.focal, np.tile(one.focal, (2, 1)))
    eye = -around.world_to_camera[1, :3, :3].T @ around.world_to_camera[1, :3, 3]
    assert np.linalg.norm(eye) == pytest.approx(2.5, abs=1e-5)


def test_orbit_like_a_camera_that_looks_away_is_refused():
    away = orbit([0.0], [0.0], radius=-2.0, fov_deg=40.0, height=8, width=8)
    with pytest.raises(UserError, match="looks away"):
        place_on_orbit(jax.tree.map(lambda x: x[0], away))
