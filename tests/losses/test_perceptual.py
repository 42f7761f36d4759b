"""LPIPS against the authors' published values and a float64 NumPy form written here."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dimo_jax.third_party.lpips as lpips_weights
from dimo_jax.core.errors import UserError
from dimo_jax.losses.perceptual import _extract_features, _pool, load_lpips, lpips

SHARED = Path(__file__).resolve().parents[2] / "../shared/data/lpips"
distance = jax.jit(lpips, static_argnames=("network", "dtype"))
gradients = jax.jit(jax.value_and_grad(lpips, argnums=(0, 1, 2)), static_argnames="network")


def make_images(seed, *shape):
    """Smooth random images in 0..1."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(size=(*shape[:-3], shape[-3] // 8, shape[-2] // 8, 3))
    return jnp.asarray(np.repeat(np.repeat(coarse, 8, axis=-3), 8, axis=-2), jnp.float32)


def convolve(x, kernel, bias, stride, padding):
    """[H,W,C] by its definition, one sum per kernel tap."""
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    height, width = ((size - kernel.shape[0]) // stride + 1 for size in x.shape[:2])
    out = np.zeros((height, width, kernel.shape[3])) + bias
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out += x[i : i + stride * height : stride, j : j + stride * width : stride] @ kernel[i, j].astype(float)
    return np.maximum(out, 0.0)


def pool(x, window):
    """[H,W,C], windows at stride 2 that fit."""
    height, width = ((size - window) // 2 + 1 for size in x.shape[:2])
    return np.array(
        [[x[2 * i : 2 * i + window, 2 * j : 2 * j + window].max((0, 1)) for j in range(width)] for i in range(height)]
    )


def reference_features(image, network):
    weights = lpips_weights.load(network)
    x = (image * 2 - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    layers = list(zip(weights.kernels, weights.biases))
    taps = []
    if network == "alex":
        for i, (kernel, bias) in enumerate(layers):
            x = pool(x, 3) if i in (1, 2) else x
            x = convolve(x, kernel, bias, 4 if i == 0 else 1, 2 if i < 2 else 1)
            taps.append(x)
        return taps
    for i, (kernel, bias) in enumerate(layers):
        x = pool(x, 2) if i in (2, 4, 7, 10) else x
        x = convolve(x, kernel, bias, 1, 1)
        if i in (1, 3, 6, 9, 12):
            taps.append(x)
    return taps


def reference_lpips(a, b, network):
    total = 0.0
    pairs = zip(reference_features(a, network), reference_features(b, network))
    for head, (x, y) in zip(lpips_weights.load(network).heads, pairs):
        x, y = (f / (np.sqrt((f**2).sum(-1, keepdims=True)) + 1e-10) for f in (x, y))
        total += ((x - y) ** 2 @ head.astype(float)).mean()
    return total


@pytest.mark.skipif(not SHARED.is_dir(), reason="the LPIPS authors' example images (../shared/data/lpips) are absent")
def test_published_values_of_the_lpips_authors():
    read = [np.asarray(Image.open(SHARED / f"ex_{name}.png").convert("RGB")) / 255 for name in ("ref", "p0", "p1")]
    reference, p0, p1 = (jnp.asarray(image, jnp.float32) for image in read)
    values = distance(load_lpips("alex"), jnp.stack([p0, p1]), jnp.stack([reference, reference]), network="alex")
    np.testing.assert_allclose(values, [0.722, 0.138], atol=1e-3)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_matches_slow_float64(network):
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=(2, 45, 33, 3))
    value = distance(load_lpips(network), jnp.float32(a), jnp.float32(b), network=network)
    np.testing.assert_allclose(value, reference_lpips(a, b, network), rtol=2e-4)


@pytest.mark.parametrize(("network", "sizes"), [("alex", (15, 7, 3, 3, 3)), ("vgg", (64, 32, 16, 8, 4))])
def test_feature_sizes_are_those_of_torch(network, sizes):
    extract = functools.partial(_extract_features, network=network, dtype=jnp.float32)
    features = jax.eval_shape(extract, load_lpips(network), jnp.zeros((1, 64, 64, 3)))
    assert tuple(x.shape[1] for x in features) == sizes
    assert tuple(x.shape[2] for x in features) == sizes


@pytest.mark.parametrize("window", [2, 3])
def test_pooling_leaves_out_what_fills_no_window(window):
    x = np.random.default_rng(0).normal(size=(6, 9, 2)).astype(np.float32)
    np.testing.assert_array_equal(_pool(jnp.asarray(x)[None], window)[0], pool(x, window))


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_identical_symmetric_and_growing_with_noise(network):
    params, image = load_lpips(network), make_images(0, 64, 64, 3)
    noise = jax.random.normal(jax.random.key(0), image.shape)
    noisy = jnp.stack([image, *(image + scale * noise for scale in (0.02, 0.05, 0.1, 0.2))])
    clean = jnp.broadcast_to(image, noisy.shape)
    values = distance(params, noisy, clean, network=network)
    assert values[0] < 1e-12  # rounding: the two branches are compiled apart
    assert values[1] > 1e-4
    assert np.all(np.diff(values) > 0)
    np.testing.assert_allclose(distance(params, clean, noisy, network=network), values, rtol=1e-5, atol=1e-7)


def test_leading_axes_are_kept_and_independent():
    a, b = make_images(1, 2, 3, 32, 32, 3), make_images(2, 2, 3, 32, 32, 3)
    params = load_lpips("alex")
    values = distance(params, a, b, network="alex")
    assert values.shape == (2, 3)
    np.testing.assert_allclose(values[1, 2], distance(params, a[1, 2], b[1, 2], network="alex"), rtol=1e-5)
    mapped = jax.jit(jax.vmap(lambda p, x, y: lpips(p, x, y, network="alex"), in_axes=(None, 0, 0)))(params, a, b)
    np.testing.assert_allclose(mapped, values, rtol=1e-5)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_gradient_matches_numerical_derivative(network):
    params = load_lpips(network)
    rng = np.random.default_rng(3)
    a, b = (rng.uniform(0.2, 0.8, size=(32, 32, 3)) for _ in range(2))
    _, (_, gradient, _) = gradients(params, jnp.float32(a), jnp.float32(b), network=network)
    direction = np.asarray(gradient, float) / np.linalg.norm(gradient)
    step = 1e-4  # of the float64 form: small beside the distance to the nearest kink of ReLU and pooling
    ends = [reference_lpips(a + sign * step * direction, b, network) for sign in (1, -1)]
    np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / (2 * step), rtol=5e-3)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_gradient_is_finite_for_flat_and_equal_images(network):
    params = load_lpips(network)
    for pred, truth in [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (-50.0, 50.0)]:
        images = (jnp.full((32, 32, 3), value, jnp.float32) for value in (pred, truth))
        _, (_, found, _) = gradients(params, *images, network=network)
        assert np.all(np.isfinite(found)), (pred, truth)
        if pred == truth:
            assert np.max(np.abs(found)) < 1e-8  # rounding only


def test_dead_features_have_zero_gradient():
    """Where a ReLU kills every channel the unit vector is undefined."""
    params = load_lpips("alex")
    params = params.replace(biases=tuple(bias - 1e6 for bias in params.biases))
    value, (_, gradient, _) = gradients(params, make_images(4, 32, 32, 3), make_images(5, 32, 32, 3), network="alex")
    assert value == 0.0
    assert np.all(gradient == 0.0)


def test_truth_and_weights_carry_no_gradient():
    a, b = make_images(6, 32, 32, 3), make_images(7, 32, 32, 3)
    _, (for_params, for_pred, for_truth) = gradients(load_lpips("alex"), a, b, network="alex")
    assert all(np.all(leaf == 0.0) for leaf in jax.tree.leaves((for_params, for_truth)))
    assert np.all(np.any(for_pred != 0.0, axis=-1))


def test_bfloat16_is_near():
    params, a, b = load_lpips("alex"), make_images(8, 64, 64, 3), make_images(9, 64, 64, 3)
    exact = distance(params, a, b, network="alex")
    near = distance(params, a, b, network="alex", dtype="bfloat16")
    assert near.dtype == jnp.float32
    assert near != exact
    np.testing.assert_allclose(near, exact, rtol=0.02)


@pytest.mark.parametrize(("network", "side"), [("alex", 31), ("vgg", 16)])
def test_smallest_side(network, side):
    params = load_lpips(network)
    assert np.isfinite(distance(params, jnp.zeros((side, side, 3)), jnp.ones((side, side, 3)), network=network))
    small = jnp.zeros((side - 1, 64, 3))
    with pytest.raises(UserError, match=f"found images of {side - 1} x 64, expected at least {side} pixels a side"):
        lpips(params, small, small, network=network)


def test_wrong_network():
    image = jnp.zeros((32, 32, 3))
    with pytest.raises(UserError, match="found 'squeeze', expected one of alex, vgg"):
        lpips(load_lpips("alex"), image, image, network="squeeze")
    with pytest.raises(ValueError, match="params hold 5 layers, 'vgg' has 13"):
        lpips(load_lpips("alex"), image, image)


def test_weights_first_loaded_under_jit_are_arrays():
    load_lpips.cache_clear()
    image = make_images(0, 32, 32, 3)
    jax.jit(lambda x: lpips(load_lpips("alex"), x, x, network="alex"))(image)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(load_lpips("alex")))
    assert distance(load_lpips("alex"), image, image, network="alex") < 1e-12
