"""Neighbour search against float64 brute force, and farthest point sampling against its slow definition."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.geometry import neighbors as eager

neighbors = types.SimpleNamespace(
    nearest=jax.jit(eager.nearest, static_argnames=("num_neighbors", "block_size")),
    farthest_points=jax.jit(eager.farthest_points, static_argnames=("num_points", "start")),
)


def brute_force(queries, points, num_neighbors, mask=None):
    squared = np.sum((queries.astype(np.float64)[:, None] - points.astype(np.float64)) ** 2, axis=-1)
    if mask is not None:
        squared[:, ~mask] = np.inf
    indices = np.argsort(squared, axis=1, kind="stable")[:, :num_neighbors]
    return indices, np.take_along_axis(squared, indices, axis=1)


def random_points(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("dimensions", "count", "block_size"), [(3, 100, 4096), (3, 100, 32), (3, 96, 32), (1, 33, 1), (24, 100, 32)]
)
def test_nearest_agrees_with_brute_force(dimensions, count, block_size):
    queries, points = random_points(0, count, dimensions), random_points(1, 40, dimensions)
    indices, squared = neighbors.nearest(queries, points, num_neighbors=5, block_size=block_size)
    expected_indices, expected_squared = brute_force(queries, points, 5)
    assert (indices.dtype, squared.dtype) == (jnp.int32, jnp.float32)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-5, atol=1e-12)
    assert np.all(np.diff(squared, axis=1) >= 0)


@pytest.mark.parametrize("block_size", [7, 4096])
def test_ties_go_to_the_lower_index(block_size):
    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    indices, squared = neighbors.nearest(lattice, lattice, num_neighbors=12, block_size=block_size)
    expected_indices, expected_squared = brute_force(lattice, lattice, 12)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(squared, expected_squared)


def test_close_points_far_from_the_origin_are_told_apart():
    # |q|^2 is about 3e6 here, with a float32 step of 0.25; true squared distances go down to 1e-7.
    steps = np.random.default_rng(2).integers(-8, 8, size=(60, 3))
    points = (1000.0 + steps / 2.0**12).astype(np.float32)
    indices, squared = neighbors.nearest(points[:20], points, num_neighbors=8)
    expected_indices, expected_squared = brute_force(points[:20], points, 8)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-6)


def test_masked_points_are_not_chosen():
    queries, points = random_points(3, 50, 3), random_points(4, 30, 3)
    mask = np.random.default_rng(5).uniform(size=30) < 0.5
    points[~mask] = 0.0  # the best candidates, were they allowed
    indices, squared = neighbors.nearest(queries, points, num_neighbors=4, mask=mask)
    expected_indices, expected_squared = brute_force(queries, points, 4, mask)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-5)


def test_masked_points_follow_at_infinity_where_too_few_are_left():
    points = random_points(6, 5, 3)
    mask = np.array([False, True, False, True, False])
    indices, squared = neighbors.nearest(points[:2], points, num_neighbors=4, mask=mask)
    np.testing.assert_array_equal(np.sort(indices[:, :2], axis=1), [[1, 3], [1, 3]])
    np.testing.assert_array_equal(indices[:, 2:], [[0, 2], [0, 2]])
    assert np.all(np.isfinite(squared[:, :2]))
    assert np.all(np.isposinf(squared[:, 2:]))
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(neighbors.nearest(points[:2], p, num_neighbors=4, mask=mask)[1])))(
        points
    )
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[~mask], 0.0)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_points_that_are_not_finite_are_not_chosen(fault):
    points = random_points(7, 6, 3)
    points[2, 1] = fault
    indices, squared = neighbors.nearest(points[:2], points, num_neighbors=5)
    assert 2 not in np.asarray(indices)
    assert np.all(np.isfinite(squared))
    chosen = neighbors.farthest_points(points, num_points=5)
    assert sorted(np.asarray(chosen).tolist()) == [0, 1, 3, 4, 5]


def test_nan_query_gives_nan_distances():
    queries = random_points(8, 2, 3)
    queries[0, 0] = np.nan
    _, squared = neighbors.nearest(queries, random_points(9, 6, 3), num_neighbors=2)
    assert np.all(np.isnan(squared[0]))
    assert np.all(np.isfinite(squared[1]))


def test_distances_too_large_for_float32_saturate():
    points = np.array([[3e38, 0, 0], [-3e38, 0, 0], [1, 0, 0]], np.float32)
    mask = np.array([True, False, True])
    indices, squared = neighbors.nearest(np.zeros((1, 3), np.float32), points, num_neighbors=3, mask=mask)
    np.testing.assert_array_equal(indices, [[2, 0, 1]])
    np.testing.assert_array_equal(squared, np.array([[1.0, np.finfo(np.float32).max, np.inf]], np.float32))


@pytest.mark.parametrize("block_size", [6, 4096])
def test_gradient_of_distances_and_none_of_the_choice(block_size):
    queries, points = random_points(10, 20, 3), random_points(11, 9, 3)
    weights = random_points(12, 20, 3)

    def loss(queries, points):
        return jnp.sum(weights * neighbors.nearest(queries, points, num_neighbors=3, block_size=block_size)[1])

    d_queries, d_points = jax.jit(jax.grad(loss, argnums=(0, 1)))(queries, points)
    indices, _ = brute_force(queries, points, 3)
    difference = 2 * weights[..., None] * (queries[:, None] - points[indices])
    np.testing.assert_allclose(d_queries, difference.sum(1), atol=1e-5)
    expected = np.zeros_like(points)
    np.add.at(expected, indices, -difference)
    np.testing.assert_allclose(d_points, expected, atol=1e-5)


def test_memory_is_a_block_and_not_the_whole_matrix():
    count, num_points, block_size = 8192, 1024, 128
    queries = jax.ShapeDtypeStruct((count, 3), jnp.float32)
    points = jax.ShapeDtypeStruct((num_points, 3), jnp.float32)

    def loss(queries, points):
        return jnp.sum(neighbors.nearest(queries, points, num_neighbors=4, block_size=block_size)[1])

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(queries, points).compile()
    whole_matrix = 4 * count * num_points
    assert compiled.memory_analysis().temp_size_in_bytes < whole_matrix / 8


def test_arrays_of_numpy_need_no_jit():
    points = random_points(0, 6, 3)
    np.testing.assert_array_equal(eager.nearest(points, points, num_neighbors=2)[0], brute_force(points, points, 2)[0])
    np.testing.assert_array_equal(eager.farthest_points(points, num_points=6)[0], 0)


def test_nearest_under_vmap():
    queries, points = random_points(13, 3, 10, 3), random_points(14, 3, 8, 3)

    def search(queries, points):
        return neighbors.nearest(queries, points, num_neighbors=2, block_size=4)[0]

    mapped = jax.jit(jax.vmap(search))(queries, points)
    for i in range(3):
        np.testing.assert_array_equal(mapped[i], brute_force(queries[i], points[i], 2)[0])


def test_no_queries_give_no_neighbours():
    indices, squared = neighbors.nearest(jnp.zeros((0, 3)), random_points(0, 4, 3), num_neighbors=2)
    assert indices.shape == squared.shape == (0, 2)


def slow_farthest_points(points, num_points, mask, start):
    """The definition: alive points only, each the farthest from all before, the lowest index of equals."""
    points = points.astype(np.float64)
    chosen = [start]
    while len(chosen) < num_points:
        distances = [
            min(np.sum((points[i] - points[j]) ** 2) for j in chosen) if mask[i] and i not in chosen else -1.0
            for i in range(len(points))
        ]
        chosen.append(int(np.argmax(distances)))
    return chosen


@pytest.mark.parametrize("start", [0, 17])
def test_farthest_points_agrees_with_its_definition(start):
    points = random_points(15, 60, 3)
    everything = np.ones(60, bool)
    found = neighbors.farthest_points(points, num_points=20, start=start)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, slow_farthest_points(points, 20, everything, start))


def test_farthest_points_breaks_ties_by_the_lower_index():
    lattice = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    found = neighbors.farthest_points(lattice, num_points=27)
    np.testing.assert_array_equal(found, slow_farthest_points(lattice, 27, np.ones(27, bool), 0))


def test_farthest_points_leaves_masked_points_out():
    points = random_points(16, 40, 3)
    mask = np.random.default_rng(17).uniform(size=40) < 0.5
    mask[:2] = [False, True]
    points[~mask] *= 10.0  # the farthest, were they allowed
    found = neighbors.farthest_points(points, num_points=12, mask=mask)
    np.testing.assert_array_equal(found, slow_farthest_points(points, 12, mask, 1))


def test_farthest_points_starts_at_the_next_alive_point():
    points = random_points(18, 6, 3)
    mask = np.array([False, True, False, False, True, False])
    for start, expected in [(0, 1), (1, 1), (2, 4), (4, 4), (5, 1)]:
        assert neighbors.farthest_points(points, num_points=1, mask=mask, start=start)[0] == expected


def test_farthest_points_takes_masked_points_last():
    points = random_points(19, 8, 3)
    mask = np.array([False, True, True, False, True, False, True, False])
    found = np.asarray(neighbors.farthest_points(points, num_points=7, mask=mask))
    assert set(found[:4].tolist()) == {1, 2, 4, 6}
    np.testing.assert_array_equal(found[4:], [0, 3, 5])


def test_farthest_points_are_different_even_where_points_coincide():
    found = neighbors.farthest_points(jnp.ones((6, 3)), num_points=6)
    np.testing.assert_array_equal(found, np.arange(6))


def test_farthest_points_under_jit_and_vmap():
    points = random_points(20, 3, 15, 3)
    masks = np.arange(15) >= np.array([0, 3, 14])[:, None]

    def sample(points, mask):
        return neighbors.farthest_points(points, num_points=6, mask=mask)

    mapped = jax.jit(jax.vmap(sample))(points, masks)
    for i in range(3):
        np.testing.assert_array_equal(mapped[i], sample(points[i], masks[i]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: neighbors.nearest(x, x, num_neighbors=5), "found num_neighbors=5, expected 1..4"),
        (lambda x: neighbors.nearest(x, x, num_neighbors=0), "found num_neighbors=0"),
        (lambda x: neighbors.nearest(x, x, num_neighbors=1, block_size=0), "found block_size=0"),
        (lambda x: neighbors.nearest(x[:, :2], x, num_neighbors=1), "found shapes"),
        (lambda x: neighbors.nearest(x, x, num_neighbors=1, mask=jnp.ones(3, bool)), "found mask"),
        (lambda x: neighbors.farthest_points(x, num_points=5), "found num_points=5, expected 1..4"),
        (lambda x: neighbors.farthest_points(x, num_points=1, start=4), "found start=4, expected 0..3"),
        (lambda x: neighbors.farthest_points(x[0], num_points=1), "found shapes"),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((4, 3)))
