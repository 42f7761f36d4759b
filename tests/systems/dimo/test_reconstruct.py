"""Fitting a code: a motion that the decoder can make is found again, and the step compiles once."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.io.images import to_uint8
from dimo_jax.render import render
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.reconstruct import FitOptions, FitState, _build_optimizer, build_fit_step, fit_code

TIMES = np.arange(4, dtype=np.float32) / 4
OPTIONS = FitOptions(num_steps=100, batch_frames=3, code_rate=0.1, background=(1.0, 1.0, 1.0), refresh_every=10)


@pytest.fixture(scope="module")
def model():
    """Components and parameters whose decoder moves things, and the pictures of one code's motion."""
    config = get_config("smoke")
    config.latent_init.dim = 4
    components = dimo.build_components(config)
    state = stages.begin_first(config, components, num_motions=2, num_frames=4, key=jax.random.key(0))
    state = stages.begin_second(state, jax.random.key(1), config=config, components=components, num_frames=4)
    leaves, tree = jax.tree.flatten(state.params.decoder)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [x + 0.15 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    shown = state.params.gaussians.replace(logit_opacities=jnp.full(64, 2.0))
    params = state.params.replace(decoder=jax.tree.unflatten(tree, noisy), gaussians=shown)
    cameras = orbit([0, 90, 200], 10, radius=2.0, fov_deg=33.9, height=24, width=24)
    z = jnp.asarray([0.8, -0.5, 0.3, 1.0])
    gaussians, _ = dimo.animate(components, params, z, TIMES, TIMES)
    images = np.zeros((3, 4, 24, 24, 4), np.uint8)
    for view in range(3):
        camera = jax.tree.map(lambda x, v=view: jnp.asarray(x)[v], cameras)
        for frame in range(4):
            drawn = render(jax.tree.map(lambda x, t=frame: x[t], gaussians), camera, jnp.zeros(3))
            alpha = np.asarray(drawn.alpha)[..., None]
            straight = np.where(alpha > 0, np.asarray(drawn.rgb) / np.maximum(alpha, 1e-6), 0)
            images[view, frame] = to_uint8(np.concatenate([straight, alpha], -1))
    return components, params, z, images, cameras


def fit(model, z, **changes):
    components, params, _, images, cameras = model
    options = dataclasses.replace(OPTIONS, **changes)
    how = dict(move=dimo.move_by_key_points, graph_times=TIMES, options=options)
    return fit_code(components, params, z, images, cameras, TIMES, **how)


def test_the_code_of_a_known_motion_is_approached_and_nothing_else_moves(model):
    fitted = fit(model, jnp.zeros(4))
    assert len(fitted.losses) == 100
    assert np.mean(fitted.losses[-5:]) < 0.3 * np.mean(fitted.losses[:3])
    for a, b in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(model[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_decoder_learns_only_where_asked_to(model):
    fitted = fit(model, model[2], num_steps=3, code_rate=0.0, decoder_rate=1e-3)
    np.testing.assert_array_equal(fitted.z, model[2])
    before, after = (jax.tree.leaves(p.decoder) for p in (model[1], fitted.params))
    assert max(float(jnp.abs(a - b).max()) for a, b in zip(before, after, strict=True)) > 1e-4
    np.testing.assert_array_equal(fitted.params.gaussians.means, model[1].gaussians.means)


def test_the_step_compiles_once(model):
    components, params, z, images, cameras = model
    optimizer = _build_optimizer(OPTIONS)
    take = build_fit_step(components, dimo.move_by_key_points, optimizer, OPTIONS, capacity=None)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(take, n=1))  # a second one raises
    state = FitState(variables={"z": z}, optimizer=optimizer.init({"z": z}))
    for frames in ([0, 1], [2, 3], [1, 3]):
        near = dimo.find_neighbors(components, params, state.variables["z"], TIMES)
        state, loss, _ = step(state, params, near, images[:, frames], cameras, TIMES[frames])
    assert float(loss) < 1e-3  # near the truth all along; what is left are the pictures' 8 bits and Adam's steps


def test_a_code_that_is_not_finite_is_reported(model):
    with pytest.raises(UserError, match="fitting: loss or code are no longer finite after 2 steps"):
        fit(model, jnp.full(4, jnp.nan), num_steps=2)
