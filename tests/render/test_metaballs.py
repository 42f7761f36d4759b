"""Fuzzy metaballs against a dense float64 oracle, pixel by pixel and Gaussian by Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.core.types import Splats
from dimo_jax.render.metaballs import DENSER, NEARER, blend

HEIGHT, WIDTH, SIZE = 18, 21, 1.5


def make_splats(count=40, seed=0):
    rng = np.random.default_rng(seed)
    wide, turn = rng.uniform(0.05, 0.6, (count, 2)), rng.uniform(0, np.pi, count)
    c, s = np.cos(turn), np.sin(turn)
    conics = np.stack(
        [
            wide[:, 0] * c**2 + wide[:, 1] * s**2,
            (wide[:, 0] - wide[:, 1]) * c * s,
            wide[:, 0] * s**2 + wide[:, 1] * c**2,
        ],
        axis=-1,
    )
    depths = rng.uniform(3, 4, count)
    features = rng.normal(size=(count, 7))
    opacities = rng.uniform(0.2, 1.0, count)
    return Splats(
        means2d=jnp.asarray(rng.uniform(0, [WIDTH, HEIGHT], (count, 2)), jnp.float32),
        conics=jnp.asarray(conics, jnp.float32),
        opacities=jnp.asarray(opacities, jnp.float32),
        depths=jnp.asarray(depths, jnp.float32),
        extents=jnp.full((count, 2), 1e3, jnp.float32),  # so that every Gaussian is looked at by every pixel
        features=jnp.asarray(features, jnp.float32),
    )


def draw_densely(splats):
    """Each sum as it stands in the paper."""
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    away = np.stack([columns, rows], axis=-1)[:, :, None] - np.asarray(splats.means2d, np.float64)
    a, b, c = np.asarray(splats.conics, np.float64).T
    density = np.asarray(splats.opacities) * np.exp(
        -0.5 * (a * away[..., 0] ** 2 + 2 * b * away[..., 0] * away[..., 1] + c * away[..., 1] ** 2)
    )
    weights = density**DENSER * np.exp(-NEARER * np.asarray(splats.depths, np.float64) / SIZE)
    mean = weights @ np.asarray(splats.features, np.float64) / weights.sum(axis=-1, keepdims=True)
    clear = np.exp(-density.sum(axis=-1))
    return (1 - clear)[..., None] * mean, clear


def test_pictures_are_those_of_the_definition():
    splats = make_splats()
    features, clear = blend(splats, height=HEIGHT, width=WIDTH, size=SIZE)
    wanted, wanted_clear = draw_densely(splats)
    np.testing.assert_allclose(features, wanted, atol=2e-4)
    np.testing.assert_allclose(clear, wanted_clear, atol=1e-5)


def test_slopes_are_those_of_the_definition():
    splats, step = make_splats(count=6), 1e-4
    rng = np.random.default_rng(1)
    tested = rng.normal(size=(HEIGHT, WIDTH, 7))

    def total(means):
        return (blend(splats.replace(means2d=means), height=HEIGHT, width=WIDTH, size=SIZE)[0] * tested).sum()

    slopes = np.asarray(jax.grad(total)(splats.means2d))
    means = np.asarray(splats.means2d, np.float64)
    for index in ((0, 0), (3, 1)):
        sides = []
        for sign in (1, -1):
            moved = means.copy()
            moved[index] += sign * step
            sides.append((draw_densely(splats.replace(means2d=moved))[0] * tested).sum())
        assert slopes[index] == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-2, abs=1e-3)


def test_nearer_gaussians_show_and_nothing_is_drawn_of_none():
    splats = jax.tree.map(lambda leaf: leaf[:2], make_splats())
    splats = splats.replace(
        means2d=jnp.full((2, 2), 10.0), depths=jnp.array([3.0, 4.0]), features=jnp.eye(2, 7), opacities=jnp.ones(2)
    )
    features, clear = blend(splats, height=HEIGHT, width=WIDTH, size=SIZE)
    assert features[10, 10, 0] > 0.99 * (1 - clear[10, 10]) > 0
    away = splats.replace(opacities=jnp.zeros(2), extents=jnp.zeros((2, 2)))
    features, clear = blend(away, height=HEIGHT, width=WIDTH, size=SIZE)
    np.testing.assert_array_equal(features, 0)
    np.testing.assert_array_equal(clear, 1)
