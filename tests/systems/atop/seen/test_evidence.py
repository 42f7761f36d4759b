"""Slopes of what clouds and pictures cost, against finite differences."""

import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.geometry.joint import REVOLUTE, make_joint, move_points, transform
from dimo_jax.meshes.objects import join_objects, move_object
from dimo_jax.meshes.renderer import render_mesh
from dimo_jax.systems.atop.seen.clouds import make_clouds, surface_of
from dimo_jax.systems.atop.seen.course import exp_twists
from dimo_jax.systems.atop.seen.differences import Differences
from dimo_jax.systems.atop.seen.evidence import move_pivots
from dimo_jax.systems.atop.seen.layers import draw_mesh, split_cameras
from dimo_jax.systems.atop.seen.paper import make_chamfer
from dimo_jax.systems.atop.seen.pictures import make_pictures
from dimo_jax.systems.atop.seen.refine import refine_poses
from tests.support.boxes_with_parts import make_chest, make_cuboid, make_lidded_box

FRAMES = np.array([0, 1])


def differences(evidence, poses, size):
    """Central differences [F,6] of the cost by twists."""
    slopes = np.zeros((len(poses), 6))
    for i, twist in enumerate(size * np.eye(6)):
        around = move_pivots(evidence, poses)
        sides = [exp_twists(np.tile(sign * twist, (len(poses), 1)), around) @ poses for sign in (1, -1)]
        costs = [evidence.measure(side, FRAMES) for side in sides]
        slopes[:, i] = (costs[0] - costs[1]) / (2 * size)
    return slopes


def some_poses(joint):
    return transform(joint, np.array([0.05, 0.3])) @ exp_twists(np.full(6, 0.01), np.zeros(3))


@pytest.mark.parametrize(("noise", "step", "share"), [(0.01, 3e-5, 0.02), (0.05, 2e-3, 0.1)])
def test_slopes_of_clouds(noise, step, share):
    _, part, joint = make_lidded_box()
    clouds = [move_points(joint, value, surface_of(part, 300, seed=i).points) for i, value in enumerate((0.0, 0.4))]
    evidence, poses = make_clouds(surface_of(part, 4096), clouds, noise=noise), some_poses(joint)
    slopes = evidence.linearize(poses, FRAMES)
    expected = differences(evidence, poses, step)
    close = np.abs(slopes.gradient - expected) < share * np.abs(expected).max()
    assert close.sum() >= 9  # of 12: where a point changes its nearest disc, the cost has a small step
    np.testing.assert_allclose(slopes.cost, evidence.measure(poses, FRAMES))
    assert (np.linalg.eigvalsh(slopes.curvature) > -1e-6 * np.abs(slopes.curvature).max()).all()


def test_slopes_of_chamfer_distances():
    _, part, joint = make_chest()
    clouds = [move_points(joint, value, surface_of(part, 90, seed=i).points) for i, value in enumerate((0.0, 0.4))]
    evidence, poses = make_chamfer(surface_of(part, 90).points, clouds), some_poses(joint)
    expected = differences(evidence, poses, 1e-6)
    np.testing.assert_allclose(evidence.linearize(poses, FRAMES).gradient, expected, atol=1e-4 * np.abs(expected).max())


def test_noise_of_clouds_is_found():
    _, part, _ = make_chest()
    rng = np.random.default_rng(0)
    points = surface_of(part, 1000, seed=3).points
    evidence = make_clouds(surface_of(part, 4096), [points + 0.02 * rng.normal(size=points.shape)], noise=0.05)
    for _ in range(6):
        evidence = evidence.blur(evidence.estimate_noise(np.eye(4)[None]))
    assert evidence.noise == pytest.approx(0.02, rel=0.1)


def test_few_discs_of_a_noisy_cloud_do_not_turn_the_part():
    # As many drawn points were a shape of their own: every frame was turned alike, and a slide taken for a far hinge.
    _, part, _ = make_lidded_box()
    rng, frames = np.random.default_rng(0), np.arange(8)
    noise = 0.2 * surface_of(part, 8192).radius
    clouds = [surface_of(part, 2048, seed=5 + t).points for t in frames]
    evidence = make_clouds(
        surface_of(part, 8192), [cloud + noise * rng.normal(size=cloud.shape) for cloud in clouds], noise=noise
    )
    truth = np.tile(np.eye(4), (len(frames), 1, 1))
    poses, _ = refine_poses(evidence, truth, frames, steps=8)
    gain = evidence.measure(truth, frames).sum() - evidence.measure(poses, frames).sum()
    assert gain < 45  # half of six degrees of freedom in each of eight frames is 24, with a deviation of 5


def test_slopes_of_pictures_point_along_finite_differences():
    body, part, joint = make_lidded_box()
    cameras = orbit([45, 225], 20, radius=2.4, fov_deg=34, height=64, width=64, target=(0, 0.3, 0))
    frames = np.zeros((2, 2, 64, 64, 4), np.uint8)
    for t, value in enumerate((0.05, 0.3)):
        whole = join_objects([body, move_object(part, transform(joint, value))])
        for v, view in enumerate(split_cameras(cameras)):
            frames[v, t] = render_mesh(whole.vertices, whole.mesh, view)
    pivot = part.vertices.mean(0)
    pictures = make_pictures(frames, cameras, lambda view: draw_mesh(body, part, view), pivot, side=64, noise=0.1)
    poses = transform(joint, np.array([0.05, 0.3]) + 0.03)
    slopes, expected = pictures.linearize(poses, FRAMES), differences(pictures, poses, 5e-3)
    for found, wanted in zip(slopes.gradient, expected):
        assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.95
    exact = pictures.measure(transform(joint, np.array([0.05, 0.3])), FRAMES)
    assert (exact < 0.05 * slopes.cost).all()


def test_slopes_by_differences_hold_where_a_part_dives_into_the_body():
    # A peg in a plate: where they meet, the outline stays on the plate while the peg's surface goes down.
    body = make_cuboid([-0.6, -0.4, -0.6], [0.6, 0, 0.6], color=(0.2, 0.4, 0.8))
    part = make_cuboid([-0.25, -0.3, -0.2], [0.25, 0.15, 0.2], color=(0.9, 0.5, 0.2))
    joint = make_joint(REVOLUTE, [0, 0, 1], [0.5, 0, 0], (0.0, 0.5))
    cameras = orbit([45, 225], 30, radius=2.8, fov_deg=34, height=64, width=64, target=(0, 0, 0))
    frames = np.zeros((2, 2, 64, 64, 4), np.uint8)
    for t, value in enumerate((0.1, 0.2)):
        whole = join_objects([body, move_object(part, transform(joint, value))])
        for v, view in enumerate(split_cameras(cameras)):
            frames[v, t] = render_mesh(whole.vertices, whole.mesh, view)
    pivot = part.vertices.mean(0)
    pictures = make_pictures(frames, cameras, lambda view: draw_mesh(body, part, view), pivot, side=64, noise=0.1)
    exact = Differences(pictures, 0.3)
    poses = transform(joint, np.array([0.1, 0.2]) + 0.05) @ exp_twists(np.full(6, 0.02), pivot)
    slopes, quick = exact.linearize(poses, FRAMES), pictures.linearize(poses, FRAMES)
    expected = differences(pictures, poses, 2e-2)
    np.testing.assert_allclose(slopes.cost, quick.cost)
    scale = np.linalg.norm(expected, axis=1)
    near = np.linalg.norm(slopes.gradient - expected, axis=1) / scale
    far = np.linalg.norm(quick.gradient - expected, axis=1) / scale
    assert (near < 0.1).all()
    assert (far > 2 * near).all()
