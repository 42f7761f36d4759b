"""The distance of a model's Gaussians to the true surface, against all pairs of points."""

from types import SimpleNamespace

import numpy as np
import pytest

from dimo_jax.runs.evaluation import choose_gaussians, measure_surface_distance

NUM_MOTIONS, NUM_FRAMES, HEIGHT = 3, 2, 1.7


def make_scene(num_gaussians=12):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(NUM_MOTIONS, NUM_FRAMES, num_gaussians, 3)).astype(np.float32)
    surface = rng.normal(size=(NUM_MOTIONS, NUM_FRAMES, 50, 3)).astype(np.float32)
    player = SimpleNamespace(
        alive=np.arange(num_gaussians) % 3 > 0,
        latent=lambda motion: motion,
        play=lambda motion, times: SimpleNamespace(gaussians=SimpleNamespace(means=means[motion])),
    )
    dataset = SimpleNamespace(
        surface=surface,
        height=HEIGHT,
        splits=("train", "test", "train"),
        num_motions=NUM_MOTIONS,
        times=np.arange(NUM_FRAMES) / NUM_FRAMES,
    )
    return player, dataset, means, surface


@pytest.mark.parametrize("num_points", [100, 4])
def test_surface_distance_is_that_to_the_nearest_point(num_points):
    player, dataset, means, surface = make_scene()
    chosen = choose_gaussians(player, num_points)
    assert len(set(chosen)) == min(num_points, 8)
    assert player.alive[chosen].all()
    apart = np.linalg.norm(means[:, :, chosen, None] - surface[:, :, None], axis=-1).min(axis=-1)
    measured = measure_surface_distance(player, dataset, num_points=num_points)
    np.testing.assert_allclose(measured, apart[[0, 2]].mean() / HEIGHT, rtol=1e-5)


def test_gaussians_are_not_drawn_by_a_stride():
    """Of 48 for each of 128 key points a stride of 6 would see the same eight places around each."""
    player = SimpleNamespace(alive=np.ones(128 * 48, bool))
    places = np.bincount(choose_gaussians(player, 1_000) % 48, minlength=48)
    assert places.min() > 5
    assert places.max() < 40


def test_without_a_true_surface_there_is_no_figure():
    player, dataset, _, _ = make_scene()
    dataset.surface = None
    assert measure_surface_distance(player, dataset, num_points=4) is None
