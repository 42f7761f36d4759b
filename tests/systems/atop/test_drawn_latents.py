"""Latents drawn from Gaussians, and moves that a known score leads to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.data.cabinet import make_cabinet
from dimo_jax.diffusion.noise import plan_alphas
from dimo_jax.meshes.objects import split_object
from dimo_jax.meshes.parts import find_part
from dimo_jax.render import metaballs
from dimo_jax.systems.atop.generator.latents import (
    FreeMoves,
    RigidMoves,
    distill,
    draw_latents,
    draw_video,
    fit_features,
    free_moves,
    part_clouds,
    place_scene,
    rigid_moves,
)
from dimo_jax.systems.atop.seen.splats import composite

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


def test_a_look_is_fitted_to_the_latents_of_the_rest_state(scene, cameras):
    truth = scene.replace(background=jnp.array([0.5, -0.5, 0.2, 1.0]))
    latents = draw_video(truth, rigid_moves(1), cameras)[:, 0]
    found = fit_features(scene.replace(features=jnp.zeros_like(scene.features)), latents, cameras, steps=120)
    np.testing.assert_allclose(found.background, truth.background, atol=0.1)  # corners, in which a little shows
    again = draw_video(found, rigid_moves(1), cameras)[:, 0]
    assert float(jnp.mean((again - latents) ** 2)) < 0.02 * float(jnp.var(latents))


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
