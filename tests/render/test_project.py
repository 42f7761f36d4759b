"""Projection alone: extents, what is left out, and the shape of its gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scenes

import dimo_jax.render
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera, Gaussians
from dimo_jax.render.project import project_in_xla
from dimo_jax.render.rasterize import api


@pytest.fixture(params=["xla", "native"])
def project(request):
    reason = api.why_unavailable(request.param)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return functools.partial(dimo_jax.render.project, implementation=request.param)


def make_one(**fields: object) -> Gaussians:
    """One round Gaussian of scale 0.1 at the origin, with opacity 0.9."""
    values = {
        "means": [0.0, 0, 0],
        "log_scales": np.full(3, np.log(0.1)),
        "quats": [1.0, 0, 0, 0],
        "logit_opacities": np.log(9.0),
        "sh": np.zeros((1, 3)),
    } | fields
    return Gaussians(**{name: jnp.asarray(value, jnp.float32)[None] for name, value in values.items()})


def make_camera(*, size: int = 64, distance: float = 2.0) -> Camera:
    world_to_camera = jnp.eye(4).at[2, 3].set(distance)
    return Camera(world_to_camera, jnp.full(2, 100.0), jnp.full(2, size / 2), height=size, width=size)


def test_a_round_gaussian_on_the_axis(project):
    splats = project(make_one(), make_camera())
    variance = (100 * 0.1 / 2) ** 2 + 0.3
    np.testing.assert_allclose(splats.means2d[0], [32, 32])
    np.testing.assert_allclose(splats.conics[0], [1 / variance, 0, 1 / variance], rtol=1e-6)
    np.testing.assert_allclose(splats.opacities[0], 0.9, rtol=1e-6)
    np.testing.assert_allclose(splats.depths[0], 2.0)
    np.testing.assert_allclose(splats.features[0], [0.5, 0.5, 0.5, 2, 1, 0, 0], atol=1e-6)


def test_alpha_reaches_its_minimum_at_the_extents(project):
    gaussians = make_one(log_scales=[-1.5, -3, -4], quats=[0.9, 0.1, 0.3, 0.6], means=[0.1, -0.1, 0])
    splats = project(gaussians, make_camera(size=512))
    a, b, c = np.asarray(splats.conics[0], np.float64)
    angle = np.linspace(0, 2 * np.pi, 100_001)
    direction = np.stack([np.cos(angle), np.sin(angle)])
    quadratic = a * direction[0] ** 2 + 2 * b * direction[0] * direction[1] + c * direction[1] ** 2
    ellipse = direction * np.sqrt(2 * np.log(255 * float(splats.opacities[0])) / quadratic)
    np.testing.assert_allclose(splats.extents[0], ellipse.max(axis=1), rtol=1e-5)


@pytest.mark.parametrize(("mean", "drawn"), [([0, 0, -1.98], True), ([0, 0, -1.995], False), ([0, 0, -3], False)])
def test_near_plane(project, mean, drawn):
    assert bool(project(make_one(means=mean, log_scales=[-9.0] * 3), make_camera()).opacities[0] > 0) == drawn


@pytest.mark.parametrize(("x", "drawn"), [(0.63, True), (0.66, True), (0.70, False), (-0.70, False)])
def test_extents_decide_what_is_on_screen(project, x, drawn):
    """The picture ends at 0.64; the Gaussian reaches about 0.04 further."""
    splats = project(make_one(means=[x, 0, 0], log_scales=[-4.5] * 3), make_camera())
    assert bool(splats.extents[0, 0] > 0) == drawn
    assert bool(splats.opacities[0] > 0) == drawn


def test_colour_below_zero_is_black_and_the_normal_faces_the_camera(project):
    gaussians = make_one(sh=[[-3.0, 0, 3]], log_scales=[-2, -2, -5], quats=[0.0, 1, 0.2, 0])
    features = project(gaussians, make_camera()).features[0]
    assert features[0] == 0
    np.testing.assert_allclose(features[2], 0.5 + 0.28209479 * 3, rtol=1e-6)
    assert features[6] < 0
    np.testing.assert_allclose(np.linalg.norm(features[4:]), 1, rtol=1e-6)


def test_a_bad_gaussian_gets_no_gradient_and_spoils_no_other(project):
    good = scenes.make_scene(0, num=8)
    bad = good
    for fields in (dict(means=np.nan), dict(sh=np.inf), dict(quats=np.nan), dict(log_scales=np.inf), dict(means=1e25)):
        bad = scenes.append(bad, **fields)
    camera = Camera(*map(jnp.asarray, (good.world_to_camera, good.focal, good.center)), height=40, width=56)

    def loss(gaussians: Gaussians, camera: Camera) -> jax.Array:
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(project(gaussians, camera)))

    differentiate = jax.jit(jax.grad(loss, argnums=(0, 1)))
    d_good, d_camera = differentiate(Gaussians(**jax.tree.map(jnp.asarray, good.gaussians)), camera)
    d_bad, d_camera_bad = differentiate(Gaussians(**jax.tree.map(jnp.asarray, bad.gaussians)), camera)
    for value, expected in zip(jax.tree.leaves(d_bad), jax.tree.leaves(d_good)):
        np.testing.assert_allclose(value[:8], expected, rtol=1e-4, atol=1e-5)
        assert not np.asarray(value[8:]).any()
    for value, expected in zip(jax.tree.leaves(d_camera_bad), jax.tree.leaves(d_camera)):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_depths_and_extents_carry_no_gradient(project):
    def loss(gaussians: Gaussians) -> jax.Array:
        splats = project(gaussians, make_camera())
        return jnp.sum(splats.depths) + jnp.sum(splats.extents)

    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(jax.grad(loss)(make_one())))


def test_none_takes_the_projection_of_the_fastest_backend(monkeypatch):
    called = []
    backend = api.load_backend(api.choose_backend())
    own = lambda *arguments: called.append(arguments[1]) or project_in_xla(*arguments)  # noqa: E731
    monkeypatch.setattr(backend, "project", own, raising=False)
    dimo_jax.render.project(make_one(), make_camera())
    assert len(called) == 1
    dimo_jax.render.render(make_one(), make_camera(), jnp.zeros(3))
    assert len(called) == 2


def test_an_unknown_backend_is_an_error():
    with pytest.raises(UserError, match="found 'metal', expected one of xla, native, pallas"):
        dimo_jax.render.project(make_one(), make_camera(), implementation="metal")


def test_float64_stays_float64(project):
    with jax.enable_x64(True):
        inputs = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (make_one(), make_camera()))
        splats = project(*inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(splats)} == {np.dtype(np.float64)}
    np.testing.assert_allclose(splats.opacities, 0.9, rtol=1e-7)  # the logit was rounded to float32
