"""Measures of shape and smoothness on motions of which they are known."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from dimo_jax.metrics import shape

RNG = np.random.default_rng(0)
REST = RNG.normal(size=(60, 3)).astype(np.float32)
ANCHORS = np.arange(0, 60, 3)


def change(tracks):
    edges = shape.surface_edges(jnp.asarray(REST), jnp.asarray(ANCHORS), num_neighbors=4)
    return np.asarray(shape.neighbor_distance_change(jnp.asarray(tracks), REST, ANCHORS, edges))


def test_edges_are_the_nearest_points_by_a_tree():
    edges = np.asarray(shape.surface_edges(jnp.asarray(REST), jnp.asarray(ANCHORS), num_neighbors=4))
    _, expected = cKDTree(REST).query(REST[ANCHORS], k=5)
    np.testing.assert_array_equal(edges, expected[:, 1:])


def test_rigid_motion_changes_no_distance_and_scaling_by_its_factor():
    turned = [rotation.apply(REST) + 3.0 for rotation in Rotation.random(3, rng=1)]
    np.testing.assert_allclose(change(np.stack(turned).astype(np.float32)), 0, atol=1e-5)
    np.testing.assert_allclose(change(np.stack([REST, 1.5 * REST, 0.8 * REST])), [0, 0.5, 0.2], atol=1e-5)


def test_contacts_are_of_points_that_lie_apart_at_rest():
    line = np.zeros((5, 3), np.float32)
    line[:, 0] = np.arange(5)
    bent = line.copy()
    bent[4] = [0.0, 0.05, 0.0]  # the end of a chain comes to its beginning
    squeezed = line * [0.05, 1, 1]
    found = shape.contacts(jnp.asarray(np.stack([line, bent, squeezed])), line, apart=2.5, near=0.1)
    np.testing.assert_allclose(found, [0, 0.4, 0])
    np.testing.assert_allclose(shape.contacts(jnp.asarray(squeezed[None]), line, apart=2.5, near=0.21), [0.8])


def test_roughness():
    even = np.arange(5)[:, None, None] * RNG.normal(size=(1, 7, 3))
    assert float(shape.roughness(jnp.asarray(even))) == pytest.approx(0, abs=1e-5)
    assert float(shape.roughness(jnp.zeros((4, 2, 3)))) == 0
    noise = float(shape.roughness(jnp.asarray(RNG.normal(size=(200, 50, 3)))))
    assert noise == pytest.approx(np.sqrt(3), rel=0.02)  # standard deviations sqrt(6) over sqrt(2)
    angles = 2 * np.pi * 0.01 * np.arange(200)
    circle = np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)[:, None]
    assert float(shape.roughness(jnp.asarray(circle))) == pytest.approx(2 * np.pi * 0.01, rel=0.02)


def test_evenness_of_a_path():
    end = RNG.normal(size=(4, 7, 3))
    even = jnp.asarray(np.stack([s * end for s in (0, 0.25, 0.5, 0.75, 1)]))
    assert float(shape.path_evenness(even)) == pytest.approx(1, rel=1e-4)
    jump = jnp.asarray(np.stack([s * end for s in (0, 0, 0, 1, 1)]))
    assert float(shape.path_evenness(jump)) == pytest.approx(4, rel=1e-4)
    assert float(shape.path_evenness(0 * even)) == 0
