"""One suite for every rasterizer backend: values and gradients against the dense float64 oracle, and composition.

Where the contract jumps (alpha at 1/255 and 0.99, transmittance at 1e-4) float32 may fall on the other side. The oracle
names those pixels; they are counted, their share is bounded, and they get no weight in the gradients' test. All other
pixels must agree tightly.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scenes

from dimo_jax.core.types import Camera, Gaussians, Splats
from dimo_jax.render import render
from dimo_jax.render.project import project
from dimo_jax.render.rasterize import api

pytestmark = pytest.mark.usefixtures("quick_compile")
IMAGES = ("rgb", "alpha", "depth", "normal")
VALUE_TOLERANCE = 3e-5  # relative to the largest value of the image, at least 1
GRADIENT_TOLERANCE = 2e-4  # relative to the largest gradient of the array
JUMP_BUDGET = 0.001  # share of pixels


@pytest.fixture(params=["xla", "native", "pallas"])
def backend(request):
    reason = api.why_unavailable(request.param)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def to_arguments(scene: oracle.Scene) -> tuple[Gaussians, Camera, jax.Array]:
    camera = Camera(
        world_to_camera=jnp.asarray(scene.world_to_camera),
        focal=jnp.asarray(scene.focal),
        center=jnp.asarray(scene.center),
        height=scene.height,
        width=scene.width,
    )
    gaussians = Gaussians(**{name: jnp.asarray(value) for name, value in scene.gaussians.items()})
    return gaussians, camera, jnp.asarray(scene.background)


@functools.partial(jax.jit, static_argnames=("implementation", "dilation"))
def render_jit(gaussians, camera, background, *, implementation, dilation=0.3):
    return render(gaussians, camera, background, implementation=implementation, dilation=dilation)


def compute_loss(gaussians, camera, background, cotangents, implementation, dilation=0.3):
    images = render(gaussians, camera, background, implementation=implementation, dilation=dilation)
    return sum(jnp.sum(getattr(images, name) * cotangents[name]) for name in IMAGES)


@functools.partial(jax.jit, static_argnums=(4, 5))
def differentiate_jit(gaussians, camera, background, cotangents, implementation, dilation=0.3):
    differentiate = jax.grad(compute_loss, argnums=(0, 1, 2))
    return differentiate(gaussians, camera, background, cotangents, implementation, dilation)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def assert_images_match(images, expected, at_jump):
    for name in IMAGES:
        value, reference = np.asarray(getattr(images, name)), expected[name]
        assert np.isfinite(value).all(), name
        scale = max(1.0, np.abs(reference).max())
        error = np.abs(value - reference) / scale
        error = error.reshape(*at_jump.shape, -1).max(-1)
        assert error[~at_jump].max(initial=0) < VALUE_TOLERANCE, name
        # A jump adds or leaves out one contribution of at most 1/255 (a stop: what 1e-4 / (1 - 0.99) lets through).
        assert error[at_jump].max(initial=0) < 0.0101, name


def assert_gradients_match(gradients, expected):
    d_gaussians, d_camera, d_background = gradients
    pairs = {name: getattr(d_gaussians, name) for name in oracle.FIELDS}
    pairs |= {name: getattr(d_camera, name) for name in ("world_to_camera", "focal", "center")}
    pairs["background"] = d_background
    for name, gradient in pairs.items():
        gradient = np.asarray(gradient)
        assert np.isfinite(gradient).all(), name
        scale = np.abs(expected[name]).max(initial=1e-6)
        np.testing.assert_allclose(
            gradient / scale, expected[name] / scale, rtol=0, atol=GRADIENT_TOLERANCE, err_msg=name
        )


def assert_matches_oracle(scene, backend, seed, *, budget=JUMP_BUDGET):
    arguments = to_arguments(scene)
    expected, at_jump = oracle.render(scene)
    assert at_jump.mean() <= budget
    images = render_jit(*arguments, implementation=backend, dilation=scene.dilation)
    assert int(images.overflow) == 0
    assert_images_match(images, expected, at_jump)
    cotangents = scenes.make_cotangents(seed, scene.height, scene.width)
    for value in cotangents.values():
        value[at_jump] = 0
    gradients = differentiate_jit(*arguments, cotangents, backend, scene.dilation)
    expected = oracle.differentiate(scene, cotangents)
    assert_gradients_match(gradients, expected)
    return gradients


# Four shapes with and without whole tiles, each with six scenes: one program per shape.
@pytest.mark.parametrize(("height", "width", "degree"), [(40, 56, 1), (17, 33, 0), (48, 32, 3), (5, 70, 2)])
def test_random_scenes(backend, height, width, degree):
    for seed in range(6):
        scene = scenes.make_scene(seed + 10 * degree, height=height, width=width, degree=degree, opaque=seed >= 4)
        # Six hundred pixels cannot hold a share of 0.001; one pixel is allowed.
        assert_matches_oracle(scene, backend, seed, budget=max(JUMP_BUDGET, 1.01 / (height * width)))


DEGENERATE = {
    "nan mean": dict(means=np.nan),
    "infinite mean": dict(means=np.inf),
    "far away": dict(means=1e30),
    "nan scale": dict(log_scales=[np.nan, -3, -3]),
    "infinite scale": dict(log_scales=np.inf),
    "overflowing scale": dict(log_scales=80.0),
    "nan rotation": dict(quats=[1, np.nan, 0, 0]),
    "infinite rotation": dict(quats=[np.inf, 0, 0, 0]),
    "nan opacity": dict(logit_opacities=np.nan),
    "dead": dict(logit_opacities=-np.inf),
    "faint": dict(logit_opacities=-6.0),
    "nan colour": dict(sh=np.nan),
    "infinite colour": dict(sh=-np.inf),
    "off screen": dict(means=[300.0, 0, 0]),
}
DRAWN = {
    "no scale": dict(log_scales=-np.inf),
    "tiny scale": dict(log_scales=-100.0),
    "flat": dict(log_scales=[-1.5, -np.inf, -2]),
    "needle": dict(log_scales=[0.5, -8, -8], quats=[0.9, 0.3, 0.2, 0.6]),
    "large": dict(log_scales=3.0, logit_opacities=-2.0),
    "huge": dict(log_scales=18.0, logit_opacities=-3.0),
    "no rotation": dict(quats=0.0, log_scales=[-2, -2.5, -3]),
    "opaque": dict(logit_opacities=np.inf),
    "tiny quaternion": dict(quats=[1e-15, 2e-15, 0, 1e-15], log_scales=[-2, -2.5, -3]),
}


def test_degenerate_gaussians_are_left_out(backend):
    num_plain = 60 - 2 - len(DEGENERATE)
    scene = scenes.make_scene(1, num=num_plain)
    for fields in DEGENERATE.values():
        scene = scenes.append(scene, **fields)
    camera_center = -scene.world_to_camera[:3, :3].T @ scene.world_to_camera[:3, 3]
    behind = camera_center + scene.world_to_camera[:3, :3].T @ [0, 0, -1.0]
    for mean in (camera_center, behind):
        scene = scenes.append(scene, means=mean)
    gradients = assert_matches_oracle(scene, backend, 1)
    for name in oracle.FIELDS:
        assert not np.asarray(getattr(gradients[0], name))[num_plain:].any(), name


@pytest.mark.parametrize("name", DRAWN)
def test_extreme_gaussians_are_drawn(backend, name):
    others = scenes.make_scene(2, num=59)
    scene = scenes.append(others, **DRAWN[name])
    assert_matches_oracle(scene, backend, 2)
    dead = scenes.append(others, logit_opacities=-np.inf)
    difference = oracle.render(scene)[0]["alpha"] - oracle.render(dead)[0]["alpha"]
    assert np.abs(difference).max() > 1e-3, "the case must show"


def test_no_gaussians(backend):
    arguments = to_arguments(scenes.make_scene(0, num=0))
    images = render_jit(*arguments, implementation=backend)
    np.testing.assert_array_equal(images.rgb, np.broadcast_to(arguments[2], images.rgb.shape))
    assert not np.asarray(images.alpha).any()
    assert not np.asarray(images.depth).any()
    assert int(images.overflow) == 0
    cotangents = scenes.make_cotangents(0, 40, 56)
    _, d_camera, d_background = differentiate_jit(*arguments, cotangents, backend)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(d_camera))
    np.testing.assert_allclose(d_background, cotangents["rgb"].sum((0, 1)), rtol=1e-4)


def test_all_gaussians_behind(backend):
    scene = scenes.make_scene(0)
    scene.gaussians["means"] -= (scene.world_to_camera[2, :3] * 100).astype(np.float32)
    gradients = assert_matches_oracle(scene, backend, 0)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients[:2]))


def test_thousands_in_one_pixel(backend):
    rng = np.random.default_rng(0)
    scene = scenes.make_scene(0, height=17, width=33, num=3000, degree=0)
    line = np.stack([np.full(3000, 0.01), np.full(3000, 0.02), rng.uniform(1.5, 2.5, size=3000)], -1)
    line[:, :2] *= line[:, 2:]
    rotation, translation = scene.world_to_camera[:3, :3], scene.world_to_camera[:3, 3]
    scene.gaussians["means"] = ((line - translation) @ rotation).astype(np.float32)
    scene.gaussians["log_scales"] = np.full((3000, 3), -8, np.float32)
    # Faint enough that the pixel stops only after about 1,500 of them.
    scene.gaussians["logit_opacities"] = rng.uniform(-5.3, -4.8, size=3000).astype(np.float32)
    assert_matches_oracle(scene, backend, 0, budget=0.02)


def test_equal_depths_draw_in_order_of_index(backend):
    scene = scenes.make_scene(3, num=57)
    for color in (-1.5, 1.5, 0.0):
        scene = scenes.append(scene, sh=color, logit_opacities=1.5)
    expected, at_jump = oracle.render(scene)
    assert_images_match(render_jit(*to_arguments(scene), implementation=backend), expected, at_jump)


@pytest.mark.parametrize("dilation", [0.1, 1.0])
def test_other_dilations(backend, dilation):
    scene = dataclasses.replace(scenes.make_scene(8), dilation=dilation)
    scene.gaussians["log_scales"] -= 1.5  # so thin that it counts
    assert_matches_oracle(scene, backend, 8)
    narrow, usual = (oracle.render(dataclasses.replace(scene, dilation=each))[0]["alpha"] for each in (dilation, 0.3))
    assert np.abs(narrow - usual).max() > 0.05, "the case must show"


def test_scalar_focal(backend):
    scene = scenes.make_scene(4)
    scene.focal = np.float32(50.0)
    assert_matches_oracle(scene, backend, 4)


def make_batch(num_scenes: int = 3):
    """Gaussians and cameras of several scenes of one size, and weights of the images."""
    arguments = [to_arguments(scenes.make_scene(seed)) for seed in range(num_scenes)]
    return arguments, scenes.make_cotangents(9, 40, 56)


@pytest.mark.parametrize("over", ["cameras", "gaussians", "both"])
def test_vmap_equals_loop(backend, over):
    arguments, _ = make_batch()
    axes = (None if over == "cameras" else 0, None if over == "gaussians" else 0, None)
    chosen = [
        (a[0 if axes[0] is None else i], b[0 if axes[1] is None else i])
        for i, (a, b) in enumerate([([x[0] for x in arguments], [x[1] for x in arguments])] * 3)
    ]
    call = functools.partial(render, implementation=backend)
    stacked = tuple(stack(column) if axis == 0 else column[0] for axis, column in zip(axes, zip(*chosen)))
    batched = jax.jit(jax.vmap(call, in_axes=axes))(*stacked, arguments[0][2])
    for i, (gaussians, camera) in enumerate(chosen):
        single = render_jit(gaussians, camera, arguments[0][2], implementation=backend)
        for name in IMAGES:
            np.testing.assert_allclose(getattr(batched, name)[i], getattr(single, name), atol=1e-5, err_msg=name)


def test_vmap_of_grad_and_grad_of_nested_vmap_equal_loop(backend):
    arguments, cotangents = make_batch()
    gaussians, cameras = stack([a[0] for a in arguments]), stack([a[1] for a in arguments])
    background = arguments[0][2]

    def differentiate(gaussians, camera):
        return jax.grad(compute_loss, argnums=(0, 1))(gaussians, camera, background, cotangents, backend)

    singles = stack([differentiate_jit(*a[:2], background, cotangents, backend)[:2] for a in arguments])
    batched = jax.jit(jax.vmap(differentiate))(gaussians, cameras)

    def compute_total(gaussians, cameras):
        loss = functools.partial(compute_loss, cotangents=cotangents, implementation=backend)
        over_cameras = jax.vmap(lambda g, c: loss(g, c, background), in_axes=(None, 0))
        return jnp.sum(jax.vmap(over_cameras)(gaussians, jax.tree.map(lambda x: x[:, None], cameras)))

    nested = jax.jit(jax.grad(compute_total, argnums=(0, 1)))(gaussians, cameras)
    for result in (batched, nested):
        for value, expected in zip(jax.tree.leaves(result), jax.tree.leaves(singles)):
            np.testing.assert_allclose(value, expected, atol=1e-5 * np.abs(expected).max())


def test_repeats_are_bitwise_equal(backend):
    arguments = to_arguments(scenes.make_scene(5, opaque=True))
    cotangents = scenes.make_cotangents(5, 40, 56)
    runs = [
        (render_jit(*arguments, implementation=backend), differentiate_jit(*arguments, cotangents, backend))
        for _ in range(3)
    ]
    for run in runs[1:]:
        for value, expected in zip(jax.tree.leaves(run), jax.tree.leaves(runs[0])):
            np.testing.assert_array_equal(value, expected)


def test_eager_equals_jit(backend):
    arguments = to_arguments(scenes.make_scene(6))
    eager = render(*arguments, implementation=backend)
    compiled = render_jit(*arguments, implementation=backend)
    assert int(eager.overflow) == 0
    for name in IMAGES:
        np.testing.assert_allclose(getattr(eager, name), getattr(compiled, name), atol=1e-5)


def test_overflow_is_counted(backend):
    """What does not fit is counted, the nearest Gaussians are drawn, and a measured capacity fits."""
    gaussians, camera, background = to_arguments(scenes.make_scene(7))
    splats = project(gaussians, camera)
    size = dict(height=camera.height, width=camera.width)
    full = render_jit(gaussians, camera, background, implementation=backend)
    fitting = api.measure_capacity(splats, **size, implementation=backend)
    assert int(render(gaussians, camera, background, implementation=backend, capacity=fitting).overflow) == 0
    small = render(gaussians, camera, background, implementation=backend, capacity=20)
    for leaf in jax.tree.leaves(small):
        assert np.isfinite(np.asarray(leaf)).all()
    if int(small.overflow) == 0:  # a backend without static buffers draws everything
        np.testing.assert_allclose(small.rgb, full.rgb, atol=1e-6)
        return
    missing = int(small.overflow)
    assert int(render(gaussians, camera, background, implementation=backend, capacity=19).overflow) == missing + 1
    exact = render(gaussians, camera, background, implementation=backend, capacity=20 + missing)
    assert int(exact.overflow) == 0
    np.testing.assert_allclose(exact.rgb, full.rgb, atol=1e-6)
    assert np.abs(small.rgb - full.rgb).max() > 1e-2


def test_splats_alone(backend):
    """A caller may bring its own splats; depths and extents carry no gradient."""
    gaussians, camera, _ = to_arguments(scenes.make_scene(8))
    splats = project(gaussians, camera)

    def loss(splats: Splats) -> jax.Array:
        features, transmittance, _ = api.rasterize(splats, height=40, width=56, implementation=backend)
        return jnp.sum(features**2) + jnp.sum(transmittance)

    d_splats = jax.jit(jax.grad(loss))(splats)
    assert not np.asarray(d_splats.depths).any()
    assert not np.asarray(d_splats.extents).any()
    assert np.asarray(d_splats.means2d).any()
