"""Paths between codes and draws around them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.training import latents

A, B = jnp.asarray([3.0, 0.0, 0.0]), jnp.asarray([0.0, 0.0, 1.0])
BOTH = [latents.interpolate_linear, latents.interpolate_spherical]


@pytest.mark.parametrize("interpolate", BOTH)
def test_ends_are_exact(interpolate):
    a, b = jax.random.normal(jax.random.key(0), (2, 32))
    np.testing.assert_array_equal(interpolate(a, b, 0.0), a)
    np.testing.assert_array_equal(interpolate(a, b, 1.0), b)


def test_spherical_path_turns_evenly_and_keeps_the_interpolated_length():
    shares = np.linspace(0, 1, 7)
    path = np.stack([latents.interpolate_spherical(A, B, s) for s in shares])
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 3 - 2 * shares, rtol=1e-5)
    np.testing.assert_allclose(np.degrees(np.arctan2(path[:, 2], path[:, 0])), 90 * shares, atol=1e-3)


def test_spherical_path_agrees_with_the_textbook_formula():
    a, b = np.asarray(jax.random.normal(jax.random.key(1), (2, 8)))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    angle = np.arccos(a @ b)
    expected = (np.sin(0.7 * angle) * a + np.sin(0.3 * angle) * b) / np.sin(angle)
    np.testing.assert_allclose(latents.interpolate_spherical(a, b, 0.3), expected, atol=1e-6)


def test_parallel_opposite_and_empty_codes():
    np.testing.assert_allclose(latents.interpolate_spherical(A, 2 * A, 0.5), 1.5 * A, atol=1e-5)
    np.testing.assert_allclose(latents.interpolate_spherical(A, A, 0.25), A, atol=1e-5)
    halfway = latents.interpolate_spherical(A, -A, 0.5)
    assert float(jnp.linalg.norm(halfway)) == pytest.approx(3.0, rel=1e-5)
    assert float(halfway @ A) == pytest.approx(0.0, abs=1e-4)
    np.testing.assert_allclose(latents.interpolate_spherical(0 * A, B, 0.5), 0.5 * B, atol=1e-6)
    np.testing.assert_array_equal(latents.interpolate_spherical(0 * A, 0 * A, 0.5), 0 * A)


@pytest.mark.parametrize("interpolate", BOTH)
def test_walk_passes_every_code(interpolate):
    codes = jax.random.normal(jax.random.key(2), (3, 5))
    path = latents.walk(codes, jnp.asarray([0.0, 0.25, 0.5, 1.0]), interpolate=interpolate)
    np.testing.assert_allclose(path[jnp.asarray([0, 2, 3])], codes, atol=1e-6)
    np.testing.assert_allclose(path[1], interpolate(codes[0], codes[1], 0.5), atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_draws_have_the_mean_and_covariance_of_the_codes(share):
    codes = jax.random.normal(jax.random.key(3), (6, 3)) @ jnp.diag(jnp.asarray([3.0, 1.0, 0.1])) + 5.0
    draws = np.asarray(latents.draw_fitted(jax.random.key(4), codes, num_samples=20_000, spread=share))
    # In units of the codes' own spread, a tenth in one direction of what it is in another.
    spread = np.std(np.asarray(codes), axis=0, ddof=1)
    np.testing.assert_allclose((draws.mean(0) - codes.mean(0)) / spread, 0, atol=0.03)
    # Picking one of six has their covariance with a sixth less: it divides by all, where np.cov leaves one out.
    kept = share**2 + (1 - share**2) * 5 / 6
    expected = kept * np.cov(np.asarray(codes).T) / np.outer(spread, spread)
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(spread, spread), expected, atol=0.05)
    one = latents.draw_fitted(jax.random.key(5), codes[:1], num_samples=2)
    np.testing.assert_array_equal(one, np.repeat(np.asarray(codes[:1]), 2, axis=0))


def test_draws_lie_as_near_to_the_codes_as_is_asked():
    codes = 3.0 * jax.random.normal(jax.random.key(3), (6, 8))
    apart = []
    for spread in (0.0, 0.3, 0.6, 1.0):
        draws = latents.draw_fitted(jax.random.key(4), codes, num_samples=500, spread=spread)
        distances = jnp.linalg.norm(draws[:, None] - codes, axis=-1)
        apart.append(float(distances.min(axis=1).mean()))
    np.testing.assert_allclose(apart[0], 0, atol=1e-5)
    assert apart == sorted(apart)
    assert apart[1] < 0.5 * apart[3]
