"""Latents drawn from Gaussians, and moves that a known score leads to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.distill import to_latents
from dimo_jax.cameras.orbits import orbit, resize
from dimo_jax.data.cabinet import make_cabinet
from dimo_jax.diffusion.noise import plan_alphas
from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE, Joint, move_points
from dimo_jax.meshes.objects import bounds, join_objects, split_object
from dimo_jax.meshes.parts import find_part
from dimo_jax.render import metaballs
from dimo_jax.systems.atop.generator.courses import choose_starts, measure_losses, propose_courses, stack_moves
from dimo_jax.systems.atop.generator.latents import (
    FreeMoves,
    RigidMoves,
    distill,
    distill_each,
    draw_latents,
    draw_video,
    free_moves,
    joint_moves,
    part_clouds,
    place_scene,
    pose_moves,
    rigid_moves,
    to_course,
)
from dimo_jax.systems.atop.generator.look import fit_look, show_poses, spread_poses
from dimo_jax.systems.atop.seen.course import Course, to_poses
from dimo_jax.systems.atop.seen.splats import composite

pytestmark = pytest.mark.usefixtures("quick_compile")
COUNT, FRAMES, SIDE, SPREAD = 64, 2, 16, 0.05
BLENDS = {"splats": composite, "metaballs": metaballs.blend}


@pytest.fixture(scope="module")
def scene():
    """The cabinet with its drawer, each Gaussian of its own features."""
    cabinet = make_cabinet()
    body, part = split_object(cabinet, find_part(cabinet, "drawer"))
    found = place_scene(body, part, count=COUNT)
    return found.replace(features=jax.random.normal(jax.random.key(0), found.features.shape))


@pytest.fixture(scope="module")
def cameras():
    seen = orbit([45, 315], 10.0, radius=2.2, fov_deg=35.0, height=SIDE, width=SIDE, target=(0, 0.45, 0))
    return jax.tree.map(jnp.asarray, seen)


def score_of(mean):
    """The exact noise where latents are normal around `mean`."""
    alphas = jnp.asarray(plan_alphas(), jnp.float32)

    def predict(x, timestep):
        alpha = alphas[timestep]
        return jnp.sqrt(1 - alpha) * (x - jnp.sqrt(alpha) * mean) / (alpha * SPREAD**2 + 1 - alpha)

    return predict


@pytest.mark.parametrize("blend", BLENDS)
def test_pictures_hold_features_and_background(scene, cameras, blend):
    """One Gaussian that fills the picture, of given features, and none."""
    one = jax.tree.map(lambda x: x[:1], scene.gaussians)
    large = one.replace(
        means=jnp.array([[0.0, 0.45, 0.0]]), log_scales=jnp.full((1, 3), 2.0), logit_opacities=jnp.array([9.0])
    )
    features, background = jnp.array([[1.0, -2.0, 3.0, 0.5]]), jnp.array([0.1, 0.2, 0.3, 0.4])
    options = dict(size=scene.size, blend=BLENDS[blend])
    drawn = draw_latents(large, features, background, cameras[0], **options)
    assert drawn.shape == (SIDE, SIDE, 4)
    share = {"splats": 0.99, "metaballs": 1 - np.exp(-1)}[blend]  # alpha of a density of 1
    np.testing.assert_allclose(drawn[8, 8], share * features[0] + (1 - share) * background, atol=0.05)
    nothing = large.replace(logit_opacities=jnp.array([-jnp.inf]))
    found = draw_latents(nothing, features, background, cameras[0], **options)
    np.testing.assert_allclose(found, jnp.broadcast_to(background, found.shape), atol=1e-6)


def test_free_and_rigid_moves_that_say_the_same_draw_the_same(scene, cameras):
    shifts = jnp.array([[0.0, 0.0, 0.2]])
    rigid = RigidMoves(jnp.zeros((1, 3)), shifts)
    free = FreeMoves(jnp.broadcast_to(shifts[:, None], (1, COUNT, 3)))
    np.testing.assert_allclose(part_clouds(scene, rigid), part_clouds(scene, free), atol=1e-6)
    drawn = draw_video(scene, rigid, cameras)
    assert drawn.shape == (2, FRAMES, SIDE, SIDE, 4)
    np.testing.assert_allclose(drawn, draw_video(scene, free, cameras), atol=1e-5)
    still = draw_video(scene, rigid_moves(FRAMES), cameras)
    np.testing.assert_allclose(drawn[:, 0], still[:, 0], atol=1e-6)
    assert float(jnp.abs(drawn[:, 1] - still[:, 1]).max()) > 0.3
    turned = part_clouds(scene, RigidMoves(jnp.array([[0.0, jnp.pi / 2, 0.0]]), jnp.zeros((1, 3))))
    middle = turned[0].mean(axis=0)
    expected = (turned[0] - middle) @ jnp.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]) + middle
    np.testing.assert_allclose(turned[1], expected, atol=1e-5)


def test_a_look_is_fitted_to_latents_of_all_poses(scene, cameras):
    truth = scene.replace(background=jnp.array([0.5, -0.5, 0.2, 1.0]))
    poses = RigidMoves(jnp.zeros((2, 3)), jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.3]]))
    latents = draw_video(truth, poses, cameras)[:, 1:]
    grey = scene.replace(
        features=jnp.zeros_like(scene.features),
        gaussians=scene.gaussians.replace(log_scales=scene.gaussians.log_scales - 0.5),
    )
    found = fit_look(grey, latents, poses, cameras, steps=150)
    np.testing.assert_allclose(found.background, truth.background, atol=0.15)  # corners, in which a little shows
    again = draw_video(found, poses, cameras)[:, 1:]
    errors = jnp.mean((again - latents) ** 2, axis=(0, 2, 3, 4)) / jnp.var(latents)
    assert (errors < 0.06).all(), errors


def test_what_rest_hides_has_a_look_where_the_part_was_moved(cameras):
    """A drawer that is red inside and stands in a white body: pictures of it pulled out show the red."""
    cabinet = make_cabinet()
    body, part = split_object(cabinet, find_part(cabinet, "drawer"))
    poses = np.stack([np.eye(4)] * 2)
    poses[1, 2, 3] = 0.3
    shown = show_poses(body, part, poses, resize(cameras, 4 * SIDE, 4 * SIDE))
    latents = to_latents(shown, SIDE)
    empty = place_scene(body, part, count=COUNT)
    moves = pose_moves(empty, poses)
    errors = []
    for known in (1, 2):
        some = jax.tree.map(lambda each, known=known: each[:known], moves)
        found = fit_look(empty, latents[:, :known], some, cameras, steps=100)
        errors.append(float(jnp.mean((draw_video(found, moves, cameras)[:, 2] - latents[:, 1]) ** 2)))
    assert errors[1] < 0.7 * errors[0]


def test_poses_are_spread_both_ways_along_the_lines_of_the_box():
    cabinet = make_cabinet()
    body, part = split_object(cabinet, find_part(cabinet, "drawer"))
    poses = spread_poses(body, part)
    assert poses.shape == (37, 4, 4)
    np.testing.assert_array_equal(poses[0], np.eye(4))
    size = bounds(join_objects([body, part]).vertices)[2]
    far = np.linalg.norm(poses[:, :3, 3], axis=-1)[np.abs(poses[:, :3, :3] - np.eye(3)).max(axis=(1, 2)) < 1e-9][1:]
    np.testing.assert_allclose(far, 0.3 * size)
    assert len(far) == 6


@pytest.mark.parametrize("kind", [REVOLUTE, PRISMATIC])
def test_moves_along_a_joint_are_those_of_its_course(scene, kind):
    axis = np.array([0.6, 0.0, 0.8])
    course = Course(kind, axis, np.array([0.1, 0.5, -0.2]), np.array([0.0, 0.2, -0.5]))
    moves = joint_moves(scene, course)
    rest = np.asarray(scene.gaussians.means[-COUNT:], np.float64)
    expected = move_points(Joint(kind, axis, course.origin, (0, 0)), course.values, rest)
    np.testing.assert_allclose(part_clouds(scene, moves), expected, atol=1e-5)
    np.testing.assert_allclose(part_clouds(scene, pose_moves(scene, to_poses(course)[1:])), expected, atol=1e-5)
    # A tilted, slipped axis moves points as the course that is read from it.
    away = moves.replace(tilts=jnp.array([0.2, -0.1]), slips=jnp.array([0.05, 0.1]), values=jnp.array([0.3, 0.1]))
    found = to_course(scene, away)
    assert found.type == kind
    assert 5 < np.degrees(np.arccos(found.axis @ axis)) < 20
    expected = move_points(Joint(kind, found.axis, found.origin, (0, 0)), found.values, rest)
    np.testing.assert_allclose(part_clouds(scene, away), expected, atol=1e-5)


def test_a_joint_goes_to_the_one_of_a_known_prior_and_keeps_its_kind(scene, cameras):
    """From a hinge that is 6 degrees tilted, 5 % of the size off and half as far, both starts by one program."""
    size = float(scene.size)
    low = np.asarray(scene.gaussians.means[-COUNT:]).min(axis=0)
    truth = Course(REVOLUTE, np.array([0.0, 1.0, 0.0]), np.array([low[0], 0.0, low[2]]), np.array([0.0, 0.6]))
    predict = score_of(draw_video(scene, joint_moves(scene, truth), cameras))
    tilted = np.array([0.1, 1.0, 0.0]) / np.linalg.norm([0.1, 1.0, 0.0])
    start = Course(REVOLUTE, tilted, truth.origin + 0.05 * size, np.array([0.0, 0.3]))
    slide = Course(PRISMATIC, np.array([0.0, 0.0, 1.0]), truth.origin, np.array([0.0, 0.1]))
    starts = [joint_moves(scene, each) for each in (start, slide)]
    ended = distill_each(predict, jax.random.key(3), scene, starts, cameras, steps=150, rate=1.5e-2)
    found = [to_course(scene, each) for each in ended]
    assert [each.type for each in found] == [REVOLUTE, PRISMATIC]
    assert np.degrees(np.arccos(found[0].axis @ truth.axis)) < 4
    assert 0.4 < found[0].values[1] < 0.7  # turning less about a nearer place shows much the same
    expected = part_clouds(scene, joint_moves(scene, truth))[1]
    before, after, other = (
        float(jnp.linalg.norm(part_clouds(scene, each)[1] - expected, axis=-1).mean() / size)
        for each in (starts[0], *ended)
    )
    assert before > 0.05
    assert after < 0.4 * before
    assert other > 2 * after


def test_the_truth_has_the_least_loss_and_is_the_first_start(scene, cameras):
    center = np.asarray(scene.gaussians.means[-COUNT:], np.float64).mean(0)
    axes = np.eye(3)
    courses = [Course(PRISMATIC, axis, center, np.array([0.0, end])) for axis in axes for end in (-0.2, 0.1, 0.2)]
    courses += [Course(REVOLUTE, axis, center, np.array([0.0, 0.6])) for axis in axes]
    moves = stack_moves(scene, courses)
    true = jax.tree.map(lambda each: each[8], moves)  # +z by .2
    predict = score_of(draw_video(scene, true, cameras))
    losses = measure_losses(predict, jax.random.key(0), scene, moves, cameras, shares=(0.3, 0.6), draws=2)
    assert losses.shape == (12, 8)
    assert (losses.argmin(axis=0) == 8).all()
    starts = choose_starts(courses, np.asarray(losses).mean(1), np.asarray(scene.gaussians.means[-COUNT:]), 1.1)
    assert starts[0] is courses[8]
    assert sorted(each.type for each in starts) == [PRISMATIC] * 2 + [REVOLUTE] * 2


def test_proposed_courses_hold_the_true_one_of_the_drawer():
    cabinet = make_cabinet()
    body, part = split_object(cabinet, find_part(cabinet, "drawer"))
    courses = propose_courses(body, part, 3)
    size = bounds(join_objects([body, part]).vertices)[2]
    slides = [each for each in courses if each.type == PRISMATIC]
    assert len(slides) == 3 * 6  # three directions, as neither box nor contact has another
    assert any(each.axis @ [0, 0, 1] * each.values[-1] == pytest.approx(0.2 * size, rel=0.02) for each in slides)
    assert all(each.values[0] == 0 and each.values[1] == each.values[2] / 2 for each in courses)


def test_a_rigid_part_goes_where_a_known_prior_has_it(scene, cameras):
    truth = RigidMoves(jnp.array([[0.0, 0.3, 0.0]]), jnp.array([[0.0, 0.0, 0.1]]))
    predict = score_of(draw_video(scene, truth, cameras))
    start = rigid_moves(FRAMES)
    found = distill(predict, jax.random.key(1), scene, start, cameras, steps=100, rate=1.5e-2)

    def error(moves):
        gap = part_clouds(scene, moves)[1] - part_clouds(scene, truth)[1]
        return float(jnp.linalg.norm(gap, axis=-1).mean() / scene.size)

    assert error(start) > 0.09
    assert error(found) < 0.02


def test_metaballs_move_a_part_towards_it_too(scene, cameras):
    """A few steps: the slope of what they draw has the right sign."""
    truth = RigidMoves(jnp.zeros((1, 3)), jnp.array([[0.0, 0.0, 0.1]]))
    predict = score_of(draw_video(scene, truth, cameras, blend=metaballs.blend))
    start = rigid_moves(FRAMES)
    found = distill(predict, jax.random.key(1), scene, start, cameras, steps=8, rate=1e-2, blend=metaballs.blend)
    assert 0.03 < float(found.shifts[0, 2]) < 0.11


def test_free_points_go_nearer_to_where_a_known_prior_has_them(scene, cameras):
    truth = RigidMoves(jnp.zeros((1, 3)), jnp.array([[0.0, 0.0, 0.06]]))
    predict = score_of(draw_video(scene, truth, cameras))
    start = free_moves(scene, FRAMES)
    found = distill(predict, jax.random.key(2), scene, start, cameras, steps=120)
    goal = part_clouds(scene, truth)[1]
    gaps = [jnp.linalg.norm(part_clouds(scene, moves)[1] - goal, axis=-1) / scene.size for moves in (start, found)]
    assert float(jnp.median(gaps[1])) < 0.7 * float(jnp.median(gaps[0]))
