"""The whole model: canonical at the start, one pass equals the parts, dead slots stay dead."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import KeyPoints, Params
from dimo_jax.geometry import quaternion
from dimo_jax.render import render
from dimo_jax.render.rasterize import native as render_native
from dimo_jax.skinning import blending, native
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo.decoder import SplitDense, encode, motion_decoder
from dimo_jax.training import gaussians, latents

CONFIG = dict(
    decoder=dict(fn="dimo_jax.systems.dimo.decoder:motion_decoder", width=16, depth=3, skip=1, head_width=16),
    latent=dict(fn="dimo_jax.training.latents:reparameterize"),
    skinning=dict(fn="dimo_jax.skinning.weights:rbf_weights"),
    graph=dict(fn="dimo_jax.systems.dimo.graph:trajectory_neighbors", num_neighbors=4),
    deform=dict(fn="dimo_jax.skinning.blending:linear_blend"),
)


def make_model(*, trained, **changes):
    components = dimo.build_components(CONFIG | changes)
    keys = jax.random.split(jax.random.key(0), 4)
    codes = latents.init_latents(keys[0], num_motions=2, dim=5)
    key_points = KeyPoints(positions=gaussians.uniform_in_ball(keys[1], 12), log_radii=jnp.full(12, -2.0))
    canonical = gaussians.init_around_key_points(
        keys[2], key_points, jnp.zeros((12, 3)), jnp.full(12, 0.1), num_per_key_point=3
    )
    variables = components.decoder.init(keys[3], codes.mu[0], key_points.positions, jnp.zeros([]))
    if trained:
        leaves, tree = jax.tree.flatten(variables)
        noise = jax.random.split(jax.random.key(9), len(leaves))
        leaves = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, noise, strict=True)]
        variables = jax.tree.unflatten(tree, leaves)
    return components, Params(latents=codes, decoder=variables, key_points=key_points, gaussians=canonical)


@pytest.mark.parametrize("move", [dimo.move_by_key_points, dimo.move_points])
def test_training_starts_from_the_canonical_pose(move):
    components, params = make_model(trained=False)
    z = params.latents.mu[0]
    near = dimo.find_neighbors(components, params, z, jnp.asarray([0.0, 0.5]))
    moved = move(components, params, near, z, jnp.asarray(0.3))
    np.testing.assert_allclose(moved.gaussians.means, params.gaussians.means, atol=1e-6)
    np.testing.assert_allclose(jnp.abs(moved.gaussians.quats @ jnp.asarray([1.0, 0, 0, 0])), 1.0, atol=1e-6)


def test_a_motion_depends_on_code_and_time_but_not_on_the_frames_asked_for():
    components, params = make_model(trained=True)
    animate = jax.jit(lambda z, t: dimo.animate(components, params, z, t, jnp.linspace(0, 1, 4)))
    z = params.latents.mu[0]
    some, few = animate(z, jnp.asarray([0.1, 0.4, 0.8])), animate(z, jnp.asarray([0.4]))
    np.testing.assert_allclose(some[0].means[1], few[0].means[0], atol=1e-6)
    np.testing.assert_allclose(some[1][1], few[1][0], atol=1e-6)
    assert float(jnp.max(jnp.abs(some[0].means[0] - some[0].means[2]))) > 1e-3
    other = animate(params.latents.mu[1], jnp.asarray([0.4]))
    assert float(jnp.max(jnp.abs(other[0].means - few[0].means))) > 1e-4


def test_trajectories_are_positions_plus_translations():
    components, params = make_model(trained=True)
    z, times = params.latents.mu[1], jnp.asarray([0.2, 0.7])
    positions = params.key_points.positions
    trajectories, rotations = dimo.decode_trajectories(components, params, z, positions, times)
    for i in range(2):
        translation, rotation = dimo.decode(components, params, z, positions, times[i])
        np.testing.assert_allclose(trajectories[i], positions + translation, atol=1e-6)
        np.testing.assert_allclose(rotations[i], rotation, atol=1e-6)


def test_reparameterization_has_the_stated_mean_and_deviation():
    mu, log_sigma = jnp.asarray([1.0, -2.0]), jnp.log(jnp.asarray([0.5, 0.1]))
    keys = jax.random.split(jax.random.key(3), 20_000)
    draws = jax.vmap(lambda key: latents.reparameterize(mu, log_sigma, key))(keys)
    np.testing.assert_allclose(draws.mean(0), mu, atol=0.02)
    np.testing.assert_allclose(draws.std(0), jnp.exp(log_sigma), rtol=0.03)
    np.testing.assert_array_equal(latents.plain_code(mu, log_sigma, keys[0]), mu)


def test_split_layer_is_a_dense_layer_over_the_concatenation():
    keys = jax.random.split(jax.random.key(5), 4)
    point, frame, hidden = (jax.random.normal(k, s) for k, s in zip(keys, [(7, 5), (3,), (7, 4)], strict=False))
    split, dense = SplitDense(6, dtype=jnp.float32), nn.Dense(6)
    variables = split.init(keys[3], point, frame, hidden)
    variables["params"]["bias"] += 0.3
    together = jnp.concatenate([point, jnp.broadcast_to(frame, (7, 3)), hidden], axis=-1)
    expected = dense.init(keys[3], together)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)
    np.testing.assert_allclose(
        split.apply(variables, point, frame, hidden), dense.apply(variables, together), rtol=1e-5, atol=1e-6
    )


def test_decoder_sizes_are_the_papers():
    decoder = motion_decoder()
    variables = decoder.init(jax.random.key(0), jnp.zeros(32), jnp.zeros((2, 3)), jnp.zeros([]))
    shapes = {name: layer["kernel"].shape for name, layer in variables["params"].items()}
    assert shapes["layer_0"] == (60 + 12 + 32, 256)
    assert shapes["layer_4"] == (104 + 256, 256)
    assert shapes["translation"] == (256, 3)
    assert shapes["rotation"] == (256, 4)
    assert sum(name.startswith("layer_") for name in shapes) == 8


def test_encoding_is_sines_and_cosines_of_doubling_frequency():
    x = np.asarray([[0.3, -0.7]], np.float32)
    code = np.asarray(encode(jnp.asarray(x), num_bands=3))[0]
    angles = np.concatenate([x[0, c] * np.pi * 2.0 ** np.arange(3) for c in range(2)])
    np.testing.assert_allclose(code, np.concatenate([np.sin(angles), np.cos(angles)]), atol=1e-5)


@pytest.mark.parametrize("backend", ["xla", "native"])
def test_dead_slots_reach_no_pixel(backend):
    if backend == "native" and render_native.why_unavailable():
        pytest.skip(render_native.why_unavailable())
    _, params = make_model(trained=False)
    canonical = params.gaussians.replace(logit_opacities=jnp.full(36, 2.0))
    alive = np.arange(36) % 2 == 0
    camera = jax.tree.map(lambda x: jnp.asarray(x)[0], orbit([20.0], 5, radius=2.0, fov_deg=33.9, height=20, width=20))
    see = lambda gaussians: render(gaussians, camera, jnp.ones(3), implementation=backend)  # noqa: E731
    masked, without = see(gaussians.mask_dead(canonical, alive)), see(jax.tree.map(lambda x: x[alive], canonical))
    assert float(without.alpha.max()) > 0.5
    assert float(jnp.max(jnp.abs(see(canonical).alpha - without.alpha))) > 0.1  # the dead would be seen
    for name in ("rgb", "alpha", "depth", "normal"):
        np.testing.assert_allclose(getattr(masked, name), getattr(without, name), atol=1e-6)


def test_shared_radius_is_the_mean_over_what_is_alive():
    log_scales = jnp.asarray([[0.0, 3.0, 0.0], [6.0, 0.0, 0.0], [100.0, 100.0, 100.0]])
    tied = gaussians.shared_radius(log_scales, jnp.asarray([True, True, False]))
    np.testing.assert_allclose(tied, 1.5, atol=1e-6)


def test_gaussians_start_inside_the_ball_of_their_key_point():
    _, params = make_model(trained=False)
    offsets = params.gaussians.means.reshape(12, 3, 3) - params.key_points.positions[:, None]
    assert float(jnp.max(jnp.linalg.norm(offsets, axis=-1))) <= 0.1 + 1e-6


def seen_from(code, components, params):
    """A picture [20,20,3] of a motion at a time, all of it in XLA."""
    near = dimo.find_neighbors(components, params, params.latents.mu[0], jnp.linspace(0, 1, 3))
    moved = dimo.move_by_key_points(components, params, near, code, jnp.asarray(0.4))
    camera = jax.tree.map(lambda x: jnp.asarray(x)[0], orbit([20.0], 5, radius=2.0, fov_deg=33.9, height=20, width=20))
    return render(moved.gaussians, camera, jnp.ones(3), implementation="xla", capacity=2_000).rgb


def test_in_xla_nothing_native_runs_and_forward_mode_agrees_with_reverse(monkeypatch):
    def refuse(*_):
        raise AssertionError("skinned in C++")

    monkeypatch.setattr(native, "is_available", lambda: True)
    monkeypatch.setattr(native, "blend_poses", refuse)
    with pytest.raises(AssertionError, match="skinned"):  # so it would be seen
        seen_from(jnp.zeros(5), *make_model(trained=True))
    components, params = make_model(trained=True, render=dict(implementation="xla"))
    picture = jax.jit(lambda code: seen_from(code, components, params))
    code = params.latents.mu[0]
    columns = jax.jit(jax.jacfwd(picture))(code)
    _, tangent = jax.jvp(picture, (code,), (jnp.arange(1.0, 6.0),))
    np.testing.assert_allclose(tangent, columns @ jnp.arange(1.0, 6.0), atol=1e-4 * float(jnp.abs(tangent).max()))
    cotangent = jax.random.normal(jax.random.key(0), tangent.shape)
    rows = jax.grad(lambda code: jnp.sum(picture(code) * cotangent))(code)
    assert float(jnp.max(jnp.abs(rows))) > 1e-3
    np.testing.assert_allclose(jnp.einsum("hwc,hwcd->d", cotangent, columns), rows, rtol=1e-3, atol=1e-4)


def test_skinning_can_be_chosen_by_itself(monkeypatch):
    monkeypatch.setattr(native, "is_available", lambda: True)
    monkeypatch.setattr(native, "blend_poses", lambda *_: ("native", "native"))
    arrays = [jnp.ones((3, size)) for size in (3, 4, 3, 3, 4)]
    for render_with, own, taken in (("xla", None, False), ("pallas", None, False), ("xla", "native", True),
                                    ("native", None, True), (None, "xla", False), (None, None, True)):  # fmt: skip
        config = CONFIG | dict(
            deform=CONFIG["deform"] | dict(implementation=own), render=dict(implementation=render_with)
        )
        moved = dimo.build_components(config).deform(*arrays, jnp.zeros((3, 2), jnp.int32), jnp.ones((3, 2)))
        assert isinstance(moved[0], str) == taken


@pytest.mark.parametrize("options", [dict(implementation="cuda"), dict(implementation="native", align=True)])
def test_skinning_that_cannot_run_is_refused(options, monkeypatch):
    monkeypatch.setattr(native, "is_available", lambda: True)
    arrays = [jnp.ones((3, size)) for size in (3, 4, 3, 3, 4)]
    with pytest.raises(UserError, match=r"config.deform.implementation: "):
        blending.linear_blend(*arrays, jnp.zeros((3, 2), jnp.int32), jnp.ones((3, 2)), **options)


@pytest.mark.parametrize("move", [dimo.move_by_key_points, dimo.move_points, dimo.move_without_key_points])
@pytest.mark.parametrize("degree", [1, 3])
def test_body_and_camera_that_turn_together_show_the_same_colours(move, degree, monkeypatch):
    components, params = make_model(trained=False)
    rng = np.random.default_rng(degree)
    shapes = dict(sh=(36, (degree + 1) ** 2, 3), quats=(36, 4))
    painted = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    canonical = params.gaussians.replace(**painted, logit_opacities=jnp.full(36, 2.0))
    params = params.replace(gaussians=canonical)
    turn, shift = jnp.asarray([0.3, -0.8, 0.4, 0.2]), jnp.asarray([0.1, -0.2, 0.3])

    def turned(components, params, z, points, time):
        return quaternion.rotate(turn[None], points) + shift - points, jnp.tile(turn, (len(points), 1))

    monkeypatch.setattr(dimo, "decode", turned)
    near = dimo.find_neighbors(components, params, jnp.zeros(5), jnp.asarray([0.5]))
    posed = move(components, params, near, jnp.zeros(5), jnp.asarray(0.5)).gaussians
    camera = jax.tree.map(lambda x: jnp.asarray(x)[0], orbit([20.0], 5, radius=2.0, fov_deg=33.9, height=20, width=20))
    rigid = jnp.eye(4).at[:3, :3].set(quaternion.to_matrix(turn)).at[:3, 3].set(shift)
    along = camera.replace(world_to_camera=camera.world_to_camera @ jnp.linalg.inv(rigid))
    for backend in ["xla"] + ["native"] * (render_native.why_unavailable() is None):
        before = render(canonical, camera, jnp.zeros(3), implementation=backend)
        after = render(posed, along, jnp.zeros(3), implementation=backend)
        np.testing.assert_allclose(after.rgb, before.rgb, atol=2e-4)
    unturned = render(posed.replace(sh=canonical.sh), along, jnp.zeros(3), implementation="xla")
    assert float(jnp.max(jnp.abs(unturned.rgb - before.rgb))) > 0.1  # so the picture depends on it
