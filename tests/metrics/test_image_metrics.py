"""PSNR, SSIM and LPIPS as figures of merit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dimo_jax.core.errors import UserError
from dimo_jax.losses import perceptual
from dimo_jax.metrics import lpips as lpips_metric
from dimo_jax.metrics.lpips import lpips
from dimo_jax.metrics.psnr import psnr, psnr_foreground
from dimo_jax.metrics.ssim import ssim


def make_pair(shape, noise=0.1):
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=shape)
    return np.clip(truth + noise * rng.normal(size=shape), 0, 1), truth


def test_psnr_matches_scikit_image():
    a, b = make_pair((2, 3, 20, 24, 3))
    found = psnr(jnp.float32(a), jnp.float32(b))
    assert found.shape == (2, 3)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(found[i], peak_signal_noise_ratio(b[i], a[i], data_range=1.0), rtol=1e-5)


def test_psnr_of_equal_images_is_infinite():
    image = jnp.ones((16, 16, 3))
    assert psnr(image, image) == np.inf


@pytest.mark.parametrize("grow", [0, 1, 3])
def test_psnr_foreground_matches_numpy(grow):
    a, b = make_pair((3, 20, 24, 3))
    mask = np.zeros((3, 20, 24))
    mask[0, 8:12, 9:15], mask[1, 0, 0], mask[2] = 1.0, 0.9, 1.0
    mask[0, 2, 2] = 0.4  # under one half: outside
    found = psnr_foreground(jnp.float32(a), jnp.float32(b), jnp.float32(mask), grow=grow)
    for i in range(3):
        inside = mask[i] > 0.5
        if grow:
            inside = binary_dilation(inside, np.ones((2 * grow + 1, 2 * grow + 1)))
        expected = -10 * np.log10(np.mean((a[i] - b[i])[inside] ** 2))
        np.testing.assert_allclose(found[i], expected, rtol=1e-5)
    np.testing.assert_allclose(found[2], psnr(jnp.float32(a), jnp.float32(b))[2], rtol=1e-5)


def test_psnr_foreground_sees_the_object_only():
    truth = np.ones((2, 32, 32, 3), np.float32)
    pred = truth.copy()
    mask = np.zeros((2, 32, 32), bool)
    mask[0, 10:14, 10:14] = True
    pred[0, 0, 0] = 0.0  # far from the object
    pred[1, 5, 5] = 0.0
    found = psnr_foreground(jnp.asarray(pred), jnp.asarray(truth), jnp.asarray(mask))
    assert found[0] == np.inf
    assert np.isnan(found[1])  # no object, no figure


def test_ssim_matches_scikit_image():
    a, b = make_pair((2, 2, 30, 26, 3))
    found = ssim(jnp.float32(a), jnp.float32(b))
    assert found.shape == (2, 2)
    options = dict(channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)
    for i in np.ndindex(2, 2):
        np.testing.assert_allclose(found[i], structural_similarity(a[i], b[i], **options), atol=1e-5)


def test_lpips_in_chunks_is_the_loss_of_each_image(monkeypatch):
    a, b = (jnp.float32(x) for x in make_pair((5, 1, 32, 32, 3), 0.3))
    loss = jax.jit(perceptual.lpips, static_argnames="network")
    expected = [loss(perceptual.load_lpips("alex"), x[0], y[0], network="alex") for x, y in zip(a, b)]
    assert np.min(expected) > 0.01
    sizes = []
    evaluate = lpips_metric._evaluate
    for pixels, chunk_sizes in ((2 * 32 * 32, [2, 2, 2]), (1, [1] * 5), (100 * 32 * 32, [5])):
        monkeypatch.setattr(lpips_metric, "_CHUNK_PIXELS", pixels)
        monkeypatch.setattr(
            lpips_metric,
            "_evaluate",
            lambda p, x, y, network: (sizes.append(len(x)), evaluate(p, x, y, network=network))[1],
        )
        sizes.clear()
        found = lpips(a, b, network="alex")
        assert found.shape == (5, 1)
        assert sizes == chunk_sizes
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)


def test_lpips_takes_vgg_by_default_and_one_image():
    a, b = (jnp.float32(x) for x in make_pair((32, 32, 3), 0.3))
    found = lpips(a, b)
    assert found.shape == ()
    loss = jax.jit(perceptual.lpips, static_argnames="network")
    np.testing.assert_allclose(found, loss(perceptual.load_lpips("vgg"), a, b, network="vgg"), rtol=1e-4)
    assert lpips(a[None][:0], b[None][:0]).shape == (0,)


def test_lpips_of_small_images_is_a_user_error():
    with pytest.raises(UserError, match="at least 16 pixels a side"):
        lpips(jnp.zeros((2, 8, 8, 3)), jnp.zeros((2, 8, 8, 3)))
