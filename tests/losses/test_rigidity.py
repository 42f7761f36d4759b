"""ARAP and Chamfer against float64 NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from dimo_jax.core.errors import UserError
from dimo_jax.losses import rigidity

arap = jax.jit(rigidity.arap, static_argnames="reduction")
arap_rigid = jax.jit(rigidity.arap_rigid, static_argnames=("radius", "reduction"))
chamfer = jax.jit(rigidity.chamfer, static_argnames=("one_way", "squared", "reduction", "block_size"))
GRADIENTS = {
    loss: jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 3))) for loss in (rigidity.arap, rigidity.arap_rigid)
}

K, J = 12, 5


def make_graph(seed=0, change=0.3):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(K, 3))
    rotated = Rotation.random(rng=rng).apply(a) + rng.normal(size=3)
    edges = np.array([rng.permutation(K)[:J] for _ in range(K)])
    return a, rotated + change * rng.normal(size=(K, 3)), edges, rng.uniform(0.1, 1.0, size=(K, J))


def in_float32(a, b, edges, weights):
    return jnp.float32(a), jnp.float32(b), jnp.asarray(edges), jnp.float32(weights)


def reference_arap(a, b, edges, weights):
    total = 0.0
    for k in range(len(a)):
        for j, w in zip(edges[k], weights[k]):
            total += w * abs(np.linalg.norm(a[k] - a[j]) - np.linalg.norm(b[k] - b[j]))
    return total


def reference_arap_rigid(a, b, edges, weights, radius=np.inf):
    """SciPy's own solution of Wahba's problem for each point."""
    total = 0.0
    for k in range(len(a)):
        before, after = a[edges[k]] - a[k], b[edges[k]] - b[k]
        length = np.linalg.norm(before, axis=-1)
        w = weights[k] * (length <= radius) * (length > 0)
        if np.any(w > 0):
            total += Rotation.align_vectors(after, before, weights=w)[1] ** 2
    return total


@pytest.mark.parametrize("change", [0.0, 0.3])
def test_arap_matches_loop(change):
    graph = make_graph(change=change)
    expected = reference_arap(*graph)
    np.testing.assert_allclose(arap(*in_float32(*graph)), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(arap(*in_float32(*graph), reduction="mean"), expected / K, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("radius", [None, 1.5, 0.0])
def test_arap_rigid_matches_scipy(radius):
    graph = make_graph()
    expected = reference_arap_rigid(*graph, radius=np.inf if radius is None else radius)
    assert (expected == 0.0) == (radius == 0.0)
    np.testing.assert_allclose(arap_rigid(*in_float32(*graph), radius=radius), expected, rtol=1e-4)
    found = arap_rigid(*in_float32(*graph), radius=radius, reduction="mean")
    np.testing.assert_allclose(found, expected / K, rtol=1e-4)


def test_a_mirror_image_is_not_rigid():
    """The best orthogonal map is a reflection here; only rotations are allowed."""
    a, _, edges, weights = make_graph()
    b = a * [1.0, 1.0, -1.0]
    expected = reference_arap_rigid(a, b, edges, weights)
    assert expected > 1.0
    np.testing.assert_allclose(arap_rigid(*in_float32(a, b, edges, weights)), expected, rtol=1e-4)


def test_rigid_motion_costs_nothing():
    graph = in_float32(*make_graph(change=0.0))
    assert arap(*graph) < 1e-4
    assert arap_rigid(*graph) < 1e-9


@pytest.mark.parametrize("argument", [0, 1])
def test_gradient_of_arap_rigid_is_exact_with_the_rotation_held(argument):
    """Against differences of the energy with the rotation fitted anew at each end."""
    graph = make_graph(3)
    gradient = GRADIENTS[rigidity.arap_rigid](*in_float32(*graph))[1][argument]
    direction, step = np.random.default_rng(4).normal(size=(K, 3)), 1e-5
    ends = []
    for sign in (1, -1):
        moved = list(graph)
        moved[argument] = moved[argument] + sign * step * direction
        ends.append(reference_arap_rigid(*moved))
    np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("argument", [0, 1])
def test_gradient_of_arap_matches_numerical(argument):
    graph = make_graph(5)
    gradient = GRADIENTS[rigidity.arap](*in_float32(*graph))[1][argument]
    direction, step = np.random.default_rng(6).normal(size=(K, 3)), 1e-6
    ends = []
    for sign in (1, -1):
        moved = list(graph)
        moved[argument] = moved[argument] + sign * step * direction
        ends.append(reference_arap(*moved))
    np.testing.assert_allclose(np.sum(gradient * direction), (ends[0] - ends[1]) / (2 * step), rtol=1e-3)


DEGENERATE = {
    "all in one point": (np.zeros((K, 3)), np.zeros((K, 3))),
    "collapsing": (np.random.default_rng(0).normal(size=(K, 3)), np.ones((K, 3))),
    "opening": (np.ones((K, 3)), np.random.default_rng(0).normal(size=(K, 3))),
    "on a line": (np.outer(np.arange(K), [1.0, 0, 0]), np.outer(np.arange(K), [0, 2.0, 0])),
    "symmetric": (np.eye(3)[np.arange(K) % 3], np.eye(3)[(np.arange(K) + 1) % 3]),
    "unmoved": (np.random.default_rng(1).normal(size=(K, 3)),) * 2,
    "tiny": (1e-30 * np.random.default_rng(2).normal(size=(K, 3)), np.zeros((K, 3))),
    "huge": (1e12 * np.random.default_rng(2).normal(size=(K, 3)), np.zeros((K, 3))),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("loss", [rigidity.arap, rigidity.arap_rigid])
def test_gradients_are_finite_at_degenerate_inputs(case, loss):
    _, _, edges, weights = make_graph()
    graph = in_float32(*DEGENERATE[case], edges, weights)
    for arguments in (graph, (*graph[:3], jnp.zeros((K, J)))):
        value, gradients = GRADIENTS[loss](*arguments)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(x)) for x in gradients)


@pytest.mark.parametrize("loss", [rigidity.arap, rigidity.arap_rigid])
def test_maps_over_times(loss):
    graphs = [in_float32(*make_graph(seed)) for seed in range(3)]
    batch = tuple(jnp.stack(x) for x in zip(*graphs))
    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(*batch), [loss(*graph) for graph in graphs], rtol=1e-5)


@pytest.mark.parametrize("loss", [rigidity.arap, rigidity.arap_rigid])
def test_unknown_reduction(loss):
    with pytest.raises(UserError, match=f"{loss.__name__} reduction: found 'max', expected 'sum' or 'mean'"):
        loss(*in_float32(*make_graph()), reduction="max")


@pytest.mark.parametrize("one_way", [True, False])
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("dimensions", [3, 63])
def test_chamfer_matches_kd_tree(one_way, squared, reduction, dimensions):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, dimensions)), rng.normal(size=(25, dimensions))
    reduce = getattr(np, reduction)
    expected = 0.0
    for x, y in [(a, b)] if one_way else [(a, b), (b, a)]:
        distances = KDTree(y).query(x)[0]
        expected += reduce(distances**2 if squared else distances)
    for block_size in (7, 4096):
        options = dict(one_way=one_way, squared=squared, reduction=reduction, block_size=block_size)
        np.testing.assert_allclose(chamfer(jnp.float32(a), jnp.float32(b), **options), expected, rtol=1e-5)


def test_chamfer_gradient_points_away_from_the_nearest():
    a, b = jnp.array([[0.0, 0, 0], [5, 0, 0]]), jnp.array([[1.0, 0, 0], [3, 0, 0], [9, 9, 9]])
    for_a, for_b = jax.grad(chamfer, argnums=(0, 1))(a, b)
    np.testing.assert_allclose(for_a, [[-2, 0, 0], [4, 0, 0]])
    np.testing.assert_allclose(for_b, [[2, 0, 0], [-4, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("squared", [True, False])
def test_chamfer_gradient_of_coincident_points_is_zero(squared):
    points = jnp.float32(np.random.default_rng(0).normal(size=(9, 3)))
    for same in (points, jnp.zeros((9, 3))):
        loss = lambda x, y: chamfer(x, y, squared=squared, one_way=False)  # noqa: E731
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(same, same)
        assert value == 0.0
        assert all(np.all(x == 0.0) for x in gradients)
