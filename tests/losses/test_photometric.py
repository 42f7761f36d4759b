"""Colour, mask and SSIM losses against NumPy and scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from skimage.metrics import structural_similarity

from dimo_jax.core.errors import UserError
from dimo_jax.losses.photometric import mask_loss, rgb_loss, ssim, ssim_loss

SHAPES = [(48, 40, 3), (2, 3, 11, 13, 3)]


def make_pair(shape, noise=0.1):
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=shape)
    return truth + noise * rng.normal(size=shape), truth


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "power"), [("l2", 2), ("l1", 1)])
def test_rgb_and_mask_loss_match_numpy(shape, kind, power):
    a, b = make_pair(shape)
    error = np.abs(a - b) ** power
    found = rgb_loss(jnp.float32(a), jnp.float32(b), kind=kind)
    assert found.shape == shape[:-3]
    np.testing.assert_allclose(found, error.mean((-3, -2, -1)), rtol=1e-5)
    found = mask_loss(jnp.float32(a[..., 0]), jnp.float32(b[..., 0]), kind=kind)
    assert found.shape == shape[:-3]
    np.testing.assert_allclose(found, error[..., 0].mean((-2, -1)), rtol=1e-5)


def test_unknown_kind():
    image = jnp.zeros((16, 16, 3))
    with pytest.raises(UserError, match="rgb_loss kind: found 'huber', expected 'l1' or 'l2'"):
        rgb_loss(image, image, kind="huber")
    with pytest.raises(UserError, match="mask_loss kind"):
        mask_loss(image[..., 0], image[..., 0], kind="huber")


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_ssim_matches_scikit_image(noise):
    a, b = make_pair((2, 37, 64, 3), noise)
    expected = [
        structural_similarity(
            x, y, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        for x, y in zip(a, b)
    ]
    np.testing.assert_allclose(ssim(jnp.float32(a), jnp.float32(b)), expected, atol=1e-5)
    np.testing.assert_allclose(ssim_loss(jnp.float32(a), jnp.float32(b)), 1 - np.array(expected), atol=1e-5)


def test_ssim_on_a_bright_background():
    """Flat white around a small object: the variances cancel there, and the result must hold all the same."""
    rng = np.random.default_rng(1)
    a = np.ones((64, 64, 3))
    a[24:40, 24:40] = rng.uniform(size=(16, 16, 3))
    b = a.copy()
    b[24:40, 24:40] += 0.05 * rng.normal(size=(16, 16, 3))
    options = dict(channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)
    np.testing.assert_allclose(ssim(jnp.float32(a), jnp.float32(b)), structural_similarity(a, b, **options), atol=1e-4)


def test_ssim_of_equal_images_is_one_with_zero_gradient():
    image = jnp.float32(make_pair((16, 16, 3))[1])
    value, gradient = jax.value_and_grad(ssim_loss)(image, image)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-4)


def test_gradients_match_numerical_ones():
    a, b = (jnp.float32(x) for x in make_pair((12, 13, 3)))
    for loss in (ssim_loss, rgb_loss, lambda x, y: mask_loss(x[..., 0], y[..., 0])):
        check_grads(loss, (a, b), order=1, modes=["rev"], atol=2e-3, rtol=2e-3, eps=1e-2)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradient_of_flat_images_is_finite(value):
    flat, image = jnp.full((16, 16, 3), value), jnp.float32(make_pair((16, 16, 3))[0])
    for loss in (ssim_loss, rgb_loss, lambda x, y: rgb_loss(x, y, kind="l1")):
        for pair in [(flat, flat), (flat, image), (image, flat)]:
            gradients = jax.grad(loss, argnums=(0, 1))(*pair)
            assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_ssim_needs_a_whole_window():
    image = jnp.zeros((10, 64, 3))
    with pytest.raises(UserError, match="ssim: found images of 10 x 64, expected at least 11 pixels a side"):
        ssim(image, image)


def test_maps_over_a_batch():
    a, b = (jnp.float32(x) for x in make_pair((3, 16, 16, 3)))
    np.testing.assert_allclose(jax.vmap(ssim)(a, b), ssim(a, b), rtol=1e-5)
