"""Eq. 1 in both forms, against a slow float64 form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.skinning.weights import control_radii, rbf_weights, rbf_weights_authors, weigh_edges


def slow_weights(points, positions, radii, *, squared):
    weights = np.zeros(positions.shape[:2])
    for n in range(len(points)):
        for j in range(positions.shape[1]):
            distance = sum((float(points[n, c]) - float(positions[n, j, c])) ** 2 for c in range(3))
            spread = float(radii[n, j]) ** (2 if squared else 1)
            weights[n, j] = np.exp(-distance / (2 * spread)) + (1e-7 if squared else 0)
        weights[n] /= weights[n].sum()
    return weights


def make_inputs():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(17, 3)).astype(np.float32)
    positions = points[:, None] + 0.4 * rng.normal(size=(17, 5, 3)).astype(np.float32)
    return points, positions, rng.uniform(0.1, 0.6, size=(17, 5)).astype(np.float32)


@pytest.mark.parametrize(("function", "squared"), [(rbf_weights, False), (rbf_weights_authors, True)])
def test_matches_slow_form(function, squared):
    points, positions, radii = make_inputs()
    weights = function(points, positions, jnp.log(radii))
    np.testing.assert_allclose(weights, slow_weights(points, positions, radii, squared=squared), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("function", [rbf_weights, rbf_weights_authors])
def test_far_points_keep_finite_weights_and_gradients(function):
    points, positions, radii = make_inputs()
    far = points + 1e3

    def total(points, log_radii):
        return jnp.sum(function(points, positions, log_radii)[:, 0])

    weights = function(far, positions, jnp.log(radii))
    np.testing.assert_allclose(jnp.sum(weights, axis=-1), 1.0, atol=1e-5)
    gradients = jax.grad(total, argnums=(0, 1))(jnp.asarray(far), jnp.log(radii))
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradients)


def test_authors_form_carries_no_gradient_through_distances():
    points, positions, radii = make_inputs()
    fixed = jax.grad(lambda p: jnp.sum(rbf_weights_authors(p, positions, jnp.log(radii))[:, 0]))(jnp.asarray(points))
    assert bool(jnp.all(fixed == 0))
    learned = jax.grad(lambda r: jnp.sum(rbf_weights_authors(points, positions, r)[:, 0]))(jnp.log(radii))
    assert bool(jnp.any(learned != 0))


@pytest.mark.parametrize(("function", "power"), [(rbf_weights, 2), (rbf_weights_authors, 1)])
@pytest.mark.parametrize("radius", [0.3, 0.03])  # of the size of the distances, and a tenth of it
def test_edges_weigh_other_living_points_alone(function, power, radius):
    rng = np.random.default_rng(4)
    points = rng.uniform(-0.5, 0.5, size=(12, 3)).astype(np.float32)
    edges = np.stack([np.append(rng.choice(np.delete(np.arange(12), k), 4, replace=False), k) for k in range(12)])
    edges = rng.permuted(edges, axis=1).astype(np.int32)  # a point is not always its own first neighbour
    alive = np.arange(12) != 5
    weights = np.asarray(weigh_edges(function, points, jnp.full(12, power * np.log(radius)), edges, alive))
    expected = np.zeros(weights.shape)
    for k in range(12):
        for j in range(5):
            if edges[k, j] != k and alive[edges[k, j]] and alive[k]:
                squared = np.sum((points[k].astype(np.float64) - points[edges[k, j]]) ** 2)
                expected[k, j] = np.exp(-squared / (2 * radius**2)) + (1e-7 if power == 1 else 0)
    expected /= np.maximum(expected.sum(axis=1, keepdims=True), 1e-300)
    np.testing.assert_allclose(weights, expected, atol=2e-4)
    np.testing.assert_allclose(weights.sum(axis=1), alive, atol=1e-5)


def test_edges_of_a_point_without_others_weigh_nothing():
    edges = np.zeros((1, 3), np.int32)
    assert not np.asarray(weigh_edges(rbf_weights, jnp.zeros((1, 3)), jnp.zeros(1), edges)).any()


def test_control_radii_are_lengths():
    np.testing.assert_allclose(control_radii(jnp.log(jnp.asarray([0.04, 0.09])), power=2.0), [0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(control_radii(jnp.log(jnp.asarray([0.2, 0.3])), power=1.0), [0.2, 0.3], rtol=1e-6)
