"""Eq. 3 against a slow form; neighbours through the nearest key point."""

import numpy as np

from dimo_jax.systems.dimo.graph import canonical_neighbors, trajectory_graph, trajectory_neighbors


def slow_graph(positions, trajectories, num_neighbors):
    whole = np.concatenate([positions[None], trajectories]).transpose(1, 0, 2).reshape(len(positions), -1)
    distances = np.linalg.norm(whole[:, None].astype(np.float64) - whole[None], axis=-1) / len(trajectories)
    return np.argsort(distances, axis=-1, kind="stable")[:, :num_neighbors]


def make_motion():
    rng = np.random.default_rng(1)
    positions = rng.normal(size=(30, 3)).astype(np.float32)
    return positions, positions + np.cumsum(0.3 * rng.normal(size=(7, 30, 3)), axis=0).astype(np.float32)


def test_graph_matches_slow_form():
    positions, trajectories = make_motion()
    edges = trajectory_graph(positions, trajectories, num_neighbors=6)
    np.testing.assert_array_equal(edges, slow_graph(positions, trajectories, 6))
    np.testing.assert_array_equal(edges[:, 0], np.arange(30))


def test_points_take_the_edges_of_their_nearest_key_point():
    positions, trajectories = make_motion()
    points = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    nearest = np.argmin(np.linalg.norm(points[:, None] - positions[None], axis=-1), axis=-1)
    neighbors = trajectory_neighbors(points, positions, trajectories, num_neighbors=6)
    np.testing.assert_array_equal(neighbors, slow_graph(positions, trajectories, 6)[nearest])


def test_graph_separates_parts_that_touch_but_move_apart():
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 8), [0.0, 0.05], [0.0]), -1).reshape(-1, 3).astype(np.float32)
    upper = grid[:, 1] > 0
    time = np.linspace(0, 1, 5)[:, None, None]
    trajectories = grid + np.where(upper[None, :, None], time * np.array([0.0, 1.0, 0.0]), 0.0).astype(np.float32)
    edges = np.asarray(trajectory_graph(grid, trajectories.astype(np.float32), num_neighbors=4))
    assert np.all(upper[edges] == upper[:, None])
    assert not np.all(upper[np.asarray(canonical_neighbors(grid, grid, trajectories))] == upper[:, None])


def test_canonical_neighbors_are_the_nearest():
    positions, trajectories = make_motion()
    points = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)
    distances = np.linalg.norm(points[:, None].astype(np.float64) - positions[None], axis=-1)
    expected = np.argsort(distances, axis=-1)[:, :4]
    np.testing.assert_array_equal(canonical_neighbors(points, positions, trajectories), expected)
