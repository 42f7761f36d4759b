"""Sharpness is 1 for the truth, falls with blur, and sees the object alone."""

import numpy as np
from scipy.ndimage import gaussian_filter

from dimo_jax.metrics.sharpness import sharpness

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(size=(2, 24, 24, 3)).astype(np.float32)
MASK = np.zeros((2, 24, 24), bool)
MASK[:, 8:16, 8:16] = True


def blurred(sigma):
    return np.stack([gaussian_filter(image, (sigma, sigma, 0)) for image in TRUTH])


def test_the_truth_is_as_sharp_as_itself_and_blur_is_less():
    np.testing.assert_allclose(sharpness(TRUTH, TRUTH, MASK), 1, rtol=1e-6)
    shares = [float(np.mean(sharpness(blurred(sigma), TRUTH, MASK))) for sigma in (0.4, 0.8, 1.6)]
    assert 1 > shares[0] > shares[1] > shares[2] > 0
    assert shares[2] < 0.1


def test_energy_of_white_noise_is_what_the_filter_leaves():
    """Of white noise a 3x3 mean takes a ninth of the variance away: halved noise has a quarter of the energy."""
    halved = 0.5 * TRUTH
    np.testing.assert_allclose(sharpness(halved, TRUTH, MASK), 0.25, rtol=1e-5)


def test_only_the_object_counts():
    elsewhere = TRUTH.copy()
    elsewhere[:, :3] = 0.5
    np.testing.assert_allclose(sharpness(elsewhere, TRUTH, MASK), 1, rtol=1e-6)
    assert np.isnan(np.asarray(sharpness(TRUTH, TRUTH, np.zeros_like(MASK)))).all()
