"""Poses of a joint's course and how they change, against finite differences and SciPy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimo_jax.systems.atop.seen.course import Course, exp_twists, find_tangents, orient, slide_to, step, to_poses

AXIS = np.array([0.2, -0.9, 0.4]) / np.linalg.norm([0.2, -0.9, 0.4])


def make_course(kind):
    return Course(kind, AXIS, np.array([0.3, 0.1, -0.2]), np.array([0.0, 0.4, -1.3]))


def to_twists(after, before, pivots):
    """Twists around the pivots that lead from poses to poses."""
    change = after @ np.linalg.inv(before)
    shift = (change[:, :3, :3] @ pivots[..., None])[..., 0] + change[:, :3, 3] - pivots
    return np.concatenate([Rotation.from_matrix(change[:, :3, :3]).as_rotvec(), shift], axis=-1)


def test_twists_turn_around_their_pivot_and_then_shift():
    rng = np.random.default_rng(0)
    twists, pivots, points = rng.normal(size=(5, 6)), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    twists[0, :3] *= 1e-9
    turned = Rotation.from_rotvec(twists[:, :3]).apply(points - pivots) + pivots + twists[:, 3:]
    matrices = exp_twists(twists, pivots)
    moved = (matrices[:, :3, :3] @ points[..., None])[..., 0] + matrices[:, :3, 3]
    np.testing.assert_allclose(moved, turned, atol=1e-12)


@pytest.mark.parametrize("kind", ["revolute", "prismatic"])
def test_tangents_are_the_derivatives_of_poses(kind):
    course, small = make_course(kind), 1e-6
    poses = to_poses(course)
    pivots = poses[:, :3, :3] @ [0.5, 0.2, 0.1] + poses[:, :3, 3]
    shared, own = find_tangents(course, pivots)
    for i in range(course.num_shared):
        moved = to_poses(step(course, small * np.eye(course.num_shared)[i], np.zeros(3)))
        np.testing.assert_allclose(to_twists(moved, poses, pivots) / small, shared[:, :, i], atol=1e-5)
    moved = to_poses(step(course, np.zeros(course.num_shared), np.full(3, small)))
    np.testing.assert_allclose(to_twists(moved, poses, pivots) / small, own, atol=1e-5)


@pytest.mark.parametrize("kind", ["revolute", "prismatic"])
def test_turning_the_axis_over_or_sliding_along_it_changes_no_pose(kind):
    course = make_course(kind)
    turned = orient(course)
    assert turned.values[2] == pytest.approx(1.3)
    np.testing.assert_allclose(to_poses(turned), to_poses(course), atol=1e-12)
    moved = slide_to(course, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(to_poses(moved), to_poses(course), atol=1e-12)
    if kind == "revolute":
        assert (np.array([1.0, 2.0, 3.0]) - moved.origin) @ AXIS == pytest.approx(0.0, abs=1e-12)


def test_whole_turns_are_left_out():
    course = Course("revolute", AXIS, np.zeros(3), np.array([6.3, -0.2, -0.4 + 2 * np.pi]))
    np.testing.assert_allclose(orient(course).values, [2 * np.pi - 6.3, 0.2, 0.4], atol=1e-12)
    np.testing.assert_allclose(to_poses(orient(course)), to_poses(course), atol=1e-12)
