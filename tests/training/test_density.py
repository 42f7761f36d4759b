"""Density control under static shapes: what is alive, where new points come from, what is counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.training import density
from dimo_jax.training.gaussians import init_points


def make_points(capacity=32, alive=12, scale=0.03):
    return init_points(jax.random.key(0), capacity=capacity, num_points=alive, scale=scale)


def stats_for(capacity, strong):
    gradients = jnp.ones(capacity).at[jnp.asarray(strong)].set(10.0)
    return density.DensityStats(gradients=gradients, images=jnp.ones(capacity))


def test_clones_go_into_dead_slots_beside_their_parents():
    points, alive = make_points()
    grown, now, changed, missed = density.densify(jax.random.key(1), points, alive, stats_for(32, [2, 5, 7]))
    born = np.flatnonzero(np.asarray(now & ~alive))
    assert len(born) == 3
    assert int(missed) == 0
    assert bool(jnp.all(now[:12]))
    distances = np.linalg.norm(np.asarray(grown.means)[born, None] - np.asarray(points.means)[[2, 5, 7]], axis=-1)
    assert np.all(distances.min(axis=1) < 5 * 0.03)
    np.testing.assert_array_equal(np.asarray(grown.means)[:12], np.asarray(points.means)[:12])
    np.testing.assert_array_equal(np.flatnonzero(changed), born)


def test_splits_move_the_parent_and_shrink_both():
    points, alive = make_points(scale=0.2)
    grown, now, changed, _ = density.densify(jax.random.key(1), points, alive, stats_for(32, [4]), split_scale=0.05)
    born = np.flatnonzero(np.asarray(now & ~alive))
    assert len(born) == 1
    for slot in (4, born[0]):
        np.testing.assert_allclose(np.exp(grown.log_scales[slot]), 0.2 / 1.6, rtol=1e-5)
        assert bool(changed[slot])
    assert not np.allclose(grown.means[4], points.means[4])


def test_full_array_is_counted_and_strongest_are_served_first():
    points, alive = make_points(capacity=14, alive=12)
    gradients = jnp.ones(14).at[jnp.arange(5)].set(jnp.asarray([50.0, 30.0, 90.0, 40.0, 20.0]))
    stats = density.DensityStats(gradients=gradients, images=jnp.ones(14))
    grown, now, _, missed = density.densify(jax.random.key(1), points, alive, stats, gradient_ratio=1.0)
    assert int(now.sum()) == 14
    assert int(missed) == 3
    distances = np.linalg.norm(np.asarray(grown.means)[12:, None] - np.asarray(points.means)[[2, 0]], axis=-1)
    assert np.all(np.diagonal(distances) < 5 * 0.03)


def test_points_never_seen_are_not_densified():
    points, alive = make_points()
    stats = density.DensityStats(gradients=jnp.full(32, 5.0), images=jnp.zeros(32))
    _, now, _, _ = density.densify(jax.random.key(1), points, alive, stats)
    np.testing.assert_array_equal(now, alive)


@pytest.mark.parametrize("num_points", [5, 12, 20])
def test_anneal_keeps_so_many_and_spreads_them(num_points):
    points, alive = make_points()
    kept = np.asarray(density.anneal(points, alive, num_points=num_points))
    assert kept.sum() == min(num_points, 12)
    assert not np.any(kept & ~np.asarray(alive))
    # Farthest point sampling covers: no point left out is farther from those kept than these are from each other.
    means = np.asarray(points.means, np.float64)
    apart = np.linalg.norm(means[:, None] - means[None], axis=-1)
    between = (apart + 9 * np.eye(len(means)))[np.ix_(kept, kept)].min()
    left_out = np.asarray(alive) & ~kept
    assert np.all(apart[np.ix_(left_out, kept)].min(axis=1) <= between + 1e-6)


def test_prune_takes_out_transparent_large_and_broken_points():
    points, alive = make_points()
    points = points.replace(
        logit_opacities=points.logit_opacities.at[0].set(-9.0),
        log_scales=points.log_scales.at[1].set(1.0),
        means=points.means.at[2].set(jnp.nan),
    )
    kept = density.prune(points, alive, min_opacity=0.01, max_scale=0.4)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(alive & ~kept)), [0, 1, 2])


def test_statistics_count_images_with_a_gradient():
    stats = density.init_stats(3)
    probe = jnp.zeros((2, 2, 3, 2)).at[0, 1, 1].set(jnp.asarray([3.0, 4.0])).at[1, 1, 1].set(jnp.asarray([3.0, 4.0]))
    stats = density.accumulate(stats, probe, (20, 20))
    np.testing.assert_allclose(stats.gradients, [0, 100, 0])
    np.testing.assert_array_equal(stats.images, [0, 2, 0])
