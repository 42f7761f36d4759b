"""FVD: the network against DeepMind's own example and flax's layers, the distance against scipy's matrix root."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.metrics.fvd import frechet_distance, fvd, video_features
from dimo_jax.networks import i3d

SHARED = Path(__file__).resolve().parents[2] / "../shared/data/i3d"


def distance_by_matrix_root(a, b):
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)


def test_distance_matches_scipy_on_well_conditioned_data():
    rng = np.random.default_rng(0)
    for n, m in ((200, 300), (50, 40)):
        a = rng.normal(size=(n, 12)) @ rng.normal(size=(12, 12))
        b = 0.5 + rng.normal(size=(m, 12)) @ rng.normal(size=(12, 12))
        np.testing.assert_allclose(frechet_distance(a, b), distance_by_matrix_root(a, b), rtol=1e-8)


def test_distance_of_shifted_and_scaled_gaussians_in_closed_form():
    a = np.random.default_rng(1).normal(size=(5, 400))  # rank 4 of 400
    centred = np.trace(np.cov(a, rowvar=False))
    np.testing.assert_allclose(frechet_distance(a, a + 0.1), 400 * 0.01, rtol=1e-9)
    scaled = a.mean(0) + 3 * (a - a.mean(0))  # covariance 9 times as large: the root of the product is 3 C
    np.testing.assert_allclose(frechet_distance(a, scaled), (1 + 9 - 6) * centred, rtol=1e-9)
    assert frechet_distance(a, a[::-1]) < 1e-9


@pytest.mark.parametrize("rows", [np.zeros((1, 4)), np.zeros((3, 5)), np.full((3, 4), np.nan)])
def test_distance_of_what_has_none(rows):
    with pytest.raises(ValueError, match="frechet_distance"):
        frechet_distance(rows, np.zeros((3, 4)))


@pytest.mark.parametrize(("window", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (1, 1, 1)), ((2, 2, 2), (2, 2, 2))])
def test_pooling_is_flax_pooling(window, stride):
    x = jax.random.normal(jax.random.key(0), (2, 5, 9, 8, 3))
    expected = nn.max_pool(x, window_shape=window, strides=stride, padding="SAME")
    np.testing.assert_array_equal(i3d._max_pool(x, window, stride), expected)


@pytest.mark.parametrize(("taps", "stride", "frames"), [(7, 2, 9), (7, 2, 10), (3, 1, 5), (1, 1, 4)])
def test_convolution_is_flax_convolution(taps, stride, frames):
    layer = nn.Conv(6, (taps, 3, 3), strides=(stride,) * 3, padding="SAME")
    x = jax.random.normal(jax.random.key(0), (2, frames, 9, 8, 3))
    variables = layer.init(jax.random.key(1), x)
    params = {"layer": (variables["params"]["kernel"], variables["params"]["bias"])}
    found = i3d._unit(params, "layer", x, (stride,) * 3)
    np.testing.assert_allclose(found, jax.nn.relu(layer.apply(variables, x)), atol=1e-5)


def test_short_videos_are_refused():
    with pytest.raises(UserError, match="found videos of 8 frames, expected at least 9"):
        video_features(np.zeros((1, 8, 32, 32, 3), np.float32))


@pytest.mark.slow
def test_fvd_is_zero_for_a_set_and_itself_and_grows_with_noise():
    rng = np.random.default_rng(0)
    coarse = rng.uniform(size=(3, 9, 4, 4, 3))
    truth = jnp.float32(np.kron(coarse, np.ones((1, 1, 8, 8, 1))))
    noise = jnp.float32(rng.normal(size=truth.shape))
    features = video_features(truth)
    scores = [frechet_distance(video_features(jnp.clip(truth + s * noise, 0, 1)), features) for s in (0, 0.05, 0.2)]
    assert scores[0] < 1e-6
    assert scores[1] > 1
    assert scores[2] > 1.5 * scores[1]
    np.testing.assert_allclose(fvd(truth, truth[:2]), frechet_distance(features, features[:2]), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="DeepMind's sample clip (../shared/data/i3d) is absent")
def test_deepmind_sample_clip_is_cricket():
    with Image.open(SHARED / "cricket.gif") as image:
        frames = []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB"), np.float32) / 255)
    labels = (SHARED / "labels.txt").read_text().splitlines()
    probabilities = np.asarray(jax.nn.softmax(video_features(np.stack(frames))))
    assert labels[np.argmax(probabilities)] == "playing cricket"
    np.testing.assert_allclose(probabilities.max(), 0.9886, atol=1e-3)
