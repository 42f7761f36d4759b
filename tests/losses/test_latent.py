"""KL divergence against SciPy's integration-free entropy and a Monte Carlo estimate; sentences against a slow form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Latents
from dimo_jax.losses.latent import ProjectedSentences, kl, sentence_loss


def make_latents(seed=0, shape=(4, 6)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.normal(scale=0.5, size=shape)


def reference_kl(mu, log_sigma):
    """Eq. 10 as printed."""
    sigma = np.exp(log_sigma)
    return -0.5 * np.sum(np.log(sigma**2) - sigma**2 - mu**2 + 1)


def test_matches_the_equation():
    mu, log_sigma = make_latents()
    latents = Latents(mu=jnp.float32(mu), log_sigma=jnp.float32(log_sigma))
    np.testing.assert_allclose(kl(latents), reference_kl(mu, log_sigma), rtol=1e-5)
    np.testing.assert_allclose(kl(latents, reduction="mean"), reference_kl(mu, log_sigma) / 4, rtol=1e-5)


def test_is_the_divergence_of_the_distributions():
    """The integral of q log(q / p), by quadrature."""
    mu, log_sigma = 0.7, -0.4
    x = np.linspace(-12, 12, 200001)
    q, p = norm(mu, np.exp(log_sigma)), norm(0, 1)
    expected = np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x)
    found = kl(Latents(mu=jnp.full((1, 1), mu), log_sigma=jnp.full((1, 1), log_sigma)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_is_zero_with_zero_gradient_at_the_prior_only():
    zero = Latents(mu=jnp.zeros((3, 5)), log_sigma=jnp.zeros((3, 5)))
    value, gradient = jax.value_and_grad(kl)(zero)
    assert value == 0.0
    assert all(np.all(x == 0.0) for x in jax.tree.leaves(gradient))
    near = Latents(mu=jnp.zeros((1, 1)), log_sigma=jnp.full((1, 1), 1e-2))
    np.testing.assert_allclose(kl(near), reference_kl(np.zeros(1), np.full(1, 1e-2)), rtol=1e-3)


def test_gradient_matches_its_closed_form_also_far_out():
    mu, log_sigma = np.array([[0.0, -3.0, 50.0]]), np.array([[-40.0, 2.0, 10.0]])
    gradient = jax.grad(kl)(Latents(mu=jnp.float32(mu), log_sigma=jnp.float32(log_sigma)))
    np.testing.assert_allclose(gradient.mu, mu, rtol=1e-5)
    np.testing.assert_allclose(gradient.log_sigma, np.exp(2 * log_sigma) - 1, rtol=1e-5)


def test_unknown_reduction():
    with pytest.raises(UserError, match="kl reduction: found 'max', expected 'sum' or 'mean'"):
        kl(Latents(mu=jnp.zeros((1, 1)), log_sigma=jnp.zeros((1, 1))), reduction="max")


def make_sentences():
    rng = np.random.default_rng(3)
    return ProjectedSentences(
        outputs=jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32),
        weights=jnp.asarray([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]], jnp.float32),
        motions=jnp.asarray([3, 1]),
        codes=jnp.asarray(rng.normal(size=(4, 5)), jnp.float32),
        known=jnp.asarray([True, True, False, True]),
    )


def test_sentence_loss_equals_its_slow_form():
    given, contrast = make_sentences(), 0.7
    expected = 0.0
    for row, motion in enumerate([3, 1]):
        for sentence in range(3):
            distance = np.mean((np.asarray(given.outputs[row, sentence]) - np.asarray(given.codes)) ** 2, axis=1)
            others = np.exp(-4 * distance[[0, 1, 3]])  # motion 2 has no sentences
            loss = distance[motion] - contrast * np.log(np.exp(-4 * distance[motion]) / others.sum())
            expected += float(given.weights[row, sentence]) * loss / 2
    np.testing.assert_allclose(sentence_loss(given, contrast=contrast), expected, rtol=1e-5)


def test_sentence_loss_moves_sentences_and_codes_but_nothing_that_does_not_count():
    given = make_sentences()
    d_outputs, d_codes = jax.grad(
        lambda outputs, codes: sentence_loss(given.replace(outputs=outputs, codes=codes), contrast=1.0), argnums=(0, 1)
    )(given.outputs, given.codes)
    np.testing.assert_array_equal(np.any(d_outputs != 0, axis=-1), np.asarray(given.weights) > 0)
    np.testing.assert_array_equal(np.any(d_codes != 0, axis=-1), given.known)
    assert bool(jnp.all(jnp.isfinite(d_outputs)))
