"""Depth and normal smoothness against loops in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.losses import surface

depth_smoothness = jax.jit(surface.depth_smoothness, static_argnames=("edge_strength", "min_alpha"))
normal_smoothness = jax.jit(surface.normal_smoothness, static_argnames=("radius", "guide_sigma", "min_alpha"))
depth_gradients = jax.jit(jax.value_and_grad(surface.depth_smoothness, argnums=(0, 1, 2)))
normal_gradients = jax.jit(jax.value_and_grad(surface.normal_smoothness, argnums=(0, 1, 2)))

SIZE = (7, 9)


def make_scene(seed=0):
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(0.2, 1.0, size=SIZE)
    depth = alpha * rng.uniform(1.5, 2.5, size=SIZE)
    normal = rng.normal(size=(*SIZE, 3))
    normal *= (alpha * rng.uniform(0.3, 1.0, size=SIZE) / np.linalg.norm(normal, axis=-1))[..., None]
    return depth, normal, alpha, rng.uniform(size=(*SIZE, 3))


def in_float32(*arrays):
    return tuple(jnp.float32(x) for x in arrays)


def reference_depth(depth, alpha, image, strength, min_alpha):
    total = 0.0
    for i, j in np.ndindex(*SIZE):
        for k, l in ((i, j + 1), (i + 1, j)):
            if k < SIZE[0] and l < SIZE[1] and alpha[i, j] > min_alpha and alpha[k, l] > min_alpha:
                change = abs(depth[i, j] / alpha[i, j] - depth[k, l] / alpha[k, l])
                total += change * np.exp(-strength * np.abs(image[i, j] - image[k, l]).mean())
    return total / np.prod(SIZE)


def reference_normal(normal, alpha, guide, radius, sigma, min_alpha):
    """Over all ordered pairs of the whole window, unlike the half window of the implementation."""
    total = shares = 0.0
    for y, x in itertools.product(range(-radius, radius + 1), repeat=2):
        if (y, x) == (0, 0):
            continue
        share = np.exp(-(y * y + x * x) / (2 * radius**2))
        shares += share
        for i, j in np.ndindex(*SIZE):
            k, l = i + y, j + x
            if not (0 <= k < SIZE[0] and 0 <= l < SIZE[1]) or min(alpha[i, j], alpha[k, l]) <= min_alpha:
                continue
            n, m = (v / np.linalg.norm(v) for v in (normal[i, j], normal[k, l]))
            closeness = np.exp(-np.sum((guide[i, j] - guide[k, l]) ** 2) / (2 * sigma**2))
            total += share * closeness * np.sum((n - m) ** 2)
    return total / shares / np.prod(SIZE)


@pytest.mark.parametrize(("strength", "min_alpha"), [(0.0, 0.5), (1.0, 0.5), (5.0, 0.1)])
def test_depth_matches_loop(strength, min_alpha):
    depth, _, alpha, image = make_scene()
    found = depth_smoothness(*in_float32(depth, alpha, image), edge_strength=strength, min_alpha=min_alpha)
    np.testing.assert_allclose(found, reference_depth(depth, alpha, image, strength, min_alpha), rtol=1e-5)


@pytest.mark.parametrize(("radius", "sigma", "min_alpha"), [(1, 0.1, 0.5), (2, 0.5, 0.3), (1, 100.0, 0.1)])
def test_normal_matches_loop(radius, sigma, min_alpha):
    _, normal, alpha, image = make_scene()
    options = dict(radius=radius, guide_sigma=sigma, min_alpha=min_alpha)
    found = normal_smoothness(*in_float32(normal, alpha, image), **options)
    np.testing.assert_allclose(found, reference_normal(normal, alpha, image, radius, sigma, min_alpha), rtol=1e-4)


def test_smooth_surfaces_cost_nothing():
    alpha = jnp.full(SIZE, 0.8)
    image = jnp.float32(make_scene()[3])
    assert depth_smoothness(alpha * 2.0, alpha, image) < 1e-6
    normal = alpha[..., None] * jnp.array([0.0, 0.6, 0.8])
    assert normal_smoothness(normal, alpha, image) < 1e-6


def test_a_step_costs_less_on_an_image_edge():
    columns = jnp.arange(SIZE[1])
    step = jnp.broadcast_to(jnp.where(columns < 4, 0.0, 1.0), SIZE)
    alpha = jnp.ones(SIZE)
    edge, flat = jnp.repeat(step[..., None], 3, axis=-1), jnp.zeros((*SIZE, 3))
    ratio = depth_smoothness(step + 1, alpha, edge) / depth_smoothness(step + 1, alpha, flat)
    np.testing.assert_allclose(ratio, np.exp(-1.0), rtol=1e-5)
    normal = jnp.stack([step, 1 - step, jnp.zeros(SIZE)], axis=-1)
    assert normal_smoothness(normal, alpha, edge) < 1e-6 < normal_smoothness(normal, alpha, flat)


def test_nothing_outside_the_object_counts():
    depth, normal, alpha, image = make_scene()
    outside = alpha <= 0.5
    assert outside.sum() > 5
    other_depth, other_normal = np.where(outside, 99.0, depth), np.where(outside[..., None], 9.0, normal)
    a, b = (depth_smoothness(*in_float32(x, alpha, image)) for x in (depth, other_depth))
    assert a == b
    a, b = (normal_smoothness(*in_float32(x, alpha, image)) for x in (normal, other_normal))
    assert a == b


def test_gradients_match_numerical_ones():
    depth, normal, alpha, image = make_scene(1)
    rng = np.random.default_rng(2)
    arguments = dict(depth=depth, normal=normal, alpha=alpha)

    def numerical(reference, name, direction, step=1e-6):
        ends = [reference(**{**arguments, name: arguments[name] + sign * step * direction}) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    d32, n32, a32, i32 = in_float32(depth, normal, alpha, image)
    for_depth = depth_gradients(d32, a32, i32)[1][:2]
    for_normal = normal_gradients(n32, a32, i32)[1][:2]

    def slow_depth(depth, alpha, **_):
        return reference_depth(depth, alpha, image, 1.0, 0.5)

    def slow_normal(normal, alpha, **_):
        return reference_normal(normal, alpha, image, 1, 0.1, 0.5)

    for reference, names, gradients in (
        (slow_depth, ("depth", "alpha"), for_depth),
        (slow_normal, ("normal", "alpha"), for_normal),
    ):
        for name, gradient in zip(names, gradients):
            direction = rng.normal(size=gradient.shape)
            expected = numerical(reference, name, direction)
            np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1e-30, 0.5, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0])
def test_gradients_are_finite_at_degenerate_inputs(alpha, scale):
    alphas = jnp.full(SIZE, alpha)
    _, normal, _, image = in_float32(*make_scene())
    for guide in (image, jnp.zeros((*SIZE, 1))):
        value, gradients = normal_gradients(scale * normal, alphas, guide)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(x)) for x in gradients)
        assert all(np.max(np.abs(x)) < 1e3 for x in gradients)
    value, gradients = depth_gradients(scale * alphas, alphas, image)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(x)) for x in gradients)
    if alpha <= 0.5:
        assert value == 0.0


def test_image_and_guide_carry_no_gradient():
    depth, normal, alpha, image = in_float32(*make_scene())
    assert np.all(depth_gradients(depth, alpha, image)[1][2] == 0.0)
    assert np.all(normal_gradients(normal, alpha, image)[1][2] == 0.0)


def test_leading_axes_are_kept():
    scenes = [in_float32(*make_scene(seed)) for seed in range(4)]
    depth, normal, alpha, image = (jnp.stack(x).reshape(2, 2, *x[0].shape) for x in zip(*scenes))
    depths, normals = depth_smoothness(depth, alpha, image), normal_smoothness(normal, alpha, image)
    assert depths.shape == normals.shape == (2, 2)
    np.testing.assert_allclose(depths[1, 0], depth_smoothness(depth[1, 0], alpha[1, 0], image[1, 0]), rtol=1e-5)
    np.testing.assert_allclose(normals[1, 0], normal_smoothness(normal[1, 0], alpha[1, 0], image[1, 0]), rtol=1e-5)


def test_single_pixel_image_is_smooth():
    pixel = jnp.ones((1, 1, 3))
    assert depth_smoothness(pixel[..., 0], pixel[..., 0], pixel) == 0.0
    assert normal_smoothness(pixel, pixel[..., 0], pixel, radius=3) == 0.0


def test_options_out_of_range():
    depth, normal, alpha, image = in_float32(*make_scene())
    with pytest.raises(UserError, match=r"depth_smoothness min_alpha: found 0\.0, expected a number above 0"):
        depth_smoothness(depth, alpha, image, min_alpha=0.0)
    with pytest.raises(UserError, match="edge_strength: found -1, expected >= 0"):
        depth_smoothness(depth, alpha, image, edge_strength=-1)
    with pytest.raises(UserError, match="found radius=0"):
        normal_smoothness(normal, alpha, image, radius=0)
    with pytest.raises(UserError, match=r"guide_sigma=0\.0"):
        normal_smoothness(normal, alpha, image, guide_sigma=0.0)
