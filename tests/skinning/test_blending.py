"""Eq. 7 against a slow float64 form with scipy's rotations, and what every blend must satisfy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimo_jax.geometry import quaternion
from dimo_jax.skinning import blending
from dimo_jax.skinning import weighted_sums as blend_module

linear_blend, dual_quaternion_blend = jax.jit(blending.linear_blend), jax.jit(blending.dual_quaternion_blend)
aligned_blend = jax.jit(functools.partial(blending.linear_blend, align=True))
BLENDS = [linear_blend, aligned_blend, dual_quaternion_blend]


def make_inputs(seed=0, num=23, neighbors=4, spread=0.6, key_points=9):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(size=(num, neighbors))
    arrays = dict(
        means=rng.normal(size=(num, 3)),
        quats=Rotation.random(num, random_state=seed).as_quat(scalar_first=True),
        positions=rng.normal(size=(key_points, 3)),
        translations=0.3 * rng.normal(size=(key_points, 3)),
        rotations=Rotation.from_rotvec(spread * rng.normal(size=(key_points, 3))).as_quat(scalar_first=True),
        weights=weights / weights.sum(-1, keepdims=True),
    )
    chosen = np.stack([rng.choice(key_points, neighbors, replace=False) for _ in range(num)])
    return {name: value.astype(np.float32) for name, value in arrays.items()} | {"neighbors": chosen.astype(np.int32)}


def slow_blend(means, quats, positions, translations, rotations, neighbors, weights):
    moved, turned = np.zeros((len(means), 3)), np.zeros((len(means), 4))
    for n in range(len(means)):
        blended = np.zeros(4)
        first = rotations[neighbors[n, 0]].astype(np.float64)
        for k, weight in zip(neighbors[n], weights[n], strict=True):
            q = rotations[k].astype(np.float64)
            offset = Rotation.from_quat(q, scalar_first=True).apply(means[n].astype(np.float64) - positions[k])
            moved[n] += weight * (offset + positions[k] + translations[k])
            blended += weight * (1.0 if q @ first >= 0 else -1.0) * q
        whole = Rotation.from_quat(blended, scalar_first=True) * Rotation.from_quat(quats[n], scalar_first=True)
        turned[n] = whole.as_quat(scalar_first=True)
    return moved, turned


def same_rotation(a, b, tolerance):
    return np.all(np.abs(np.sum(np.asarray(a, np.float64) * b, axis=-1)) > 1 - tolerance)


@pytest.mark.parametrize("blend", [linear_blend, aligned_blend])
def test_matches_slow_form(blend):
    inputs = make_inputs(spread=0.3)  # one form does not align signs: all lie in one hemisphere
    means, quats = blend(**inputs)
    expected_means, expected_quats = slow_blend(**inputs)
    np.testing.assert_allclose(means, expected_means, atol=2e-6)
    assert same_rotation(quats, expected_quats, 1e-6)


@pytest.mark.parametrize("blend", BLENDS)
def test_identity_poses_change_nothing(blend):
    inputs = make_inputs()
    inputs["translations"] = np.zeros_like(inputs["translations"])
    inputs["rotations"] = np.zeros_like(inputs["rotations"]) + np.array([1, 0, 0, 0], np.float32)
    means, quats = blend(**inputs)
    np.testing.assert_allclose(means, inputs["means"], atol=1e-6)
    assert same_rotation(quats, inputs["quats"], 1e-6)


@pytest.mark.parametrize("blend", BLENDS)
def test_one_rigid_motion_moves_everything_rigidly(blend):
    inputs = make_inputs()
    rotation = Rotation.from_rotvec([0.3, -0.8, 0.5])
    shift = np.array([0.2, -0.1, 0.4])
    positions = inputs["positions"]
    inputs["rotations"] = np.zeros_like(inputs["rotations"]) + rotation.as_quat(scalar_first=True).astype(np.float32)
    inputs["translations"] = (rotation.apply(positions) + shift - positions).astype(np.float32)
    means, quats = blend(**inputs)
    np.testing.assert_allclose(means, rotation.apply(inputs["means"]) + shift, atol=3e-6)
    expected = rotation * Rotation.from_quat(inputs["quats"], scalar_first=True)
    assert same_rotation(quats, expected.as_quat(scalar_first=True), 1e-6)


@pytest.mark.parametrize("blend", [aligned_blend, dual_quaternion_blend])
def test_negated_quaternions_blend_alike(blend):
    inputs = make_inputs()
    flipped = dict(inputs, rotations=inputs["rotations"] * np.resize([1, -1], 9).astype(np.float32)[:, None])
    for a, b in zip(blend(**inputs), blend(**flipped), strict=True):
        np.testing.assert_allclose(np.abs(a), np.abs(b), atol=3e-6)


def test_dual_quaternions_keep_distances_where_linear_blending_shrinks():
    half_turn = Rotation.from_rotvec([0.0, 0.0, 2.8]).as_quat(scalar_first=True)
    rotations = np.stack([[1.0, 0, 0, 0], half_turn]).astype(np.float32)
    common = dict(
        quats=np.array([[1.0, 0, 0, 0]], np.float32),
        positions=np.zeros((2, 3), np.float32),
        translations=np.zeros((2, 3), np.float32),
        rotations=rotations,
        neighbors=np.array([[0, 1]], np.int32),
        weights=np.full((1, 2), 0.5, np.float32),
    )
    mean = np.array([[1.0, 0.0, 0.0]], np.float32)
    assert np.linalg.norm(linear_blend(means=mean, **common)[0]) < 0.3
    np.testing.assert_allclose(np.linalg.norm(dual_quaternion_blend(means=mean, **common)[0]), 1.0, atol=1e-5)


@pytest.mark.parametrize("blend", BLENDS)
def test_gradients_match_finite_differences(blend):
    inputs = {name: jnp.asarray(value) for name, value in make_inputs(num=3).items()}
    rng = np.random.default_rng(5)
    cotangent = rng.normal(size=(3, 3)).astype(np.float32)

    def scalar(translations, rotations):
        means, quats = blend(**dict(inputs, translations=translations, rotations=rotations))
        return jnp.sum(means * cotangent) + jnp.sum(quaternion.to_matrix(quats)[:, 0] * cotangent)

    arguments = (inputs["translations"], inputs["rotations"])
    gradients = jax.grad(scalar, argnums=(0, 1))(*arguments)
    for index, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape).astype(np.float32)
        plus, minus = list(arguments), list(arguments)
        plus[index], minus[index] = arguments[index] + 1e-2 * direction, arguments[index] - 1e-2 * direction
        numerical = (scalar(*plus) - scalar(*minus)) / 2e-2
        np.testing.assert_allclose(jnp.sum(gradient * direction), numerical, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("by_matrix", [True, False])
def test_blend_matches_slow_form_in_values_and_gradients(by_matrix, monkeypatch):
    monkeypatch.setattr(blend_module, "LARGEST_MATRIX", 2**22 if by_matrix else 0)
    rng = np.random.default_rng(0)
    table, cotangent = rng.normal(size=(7, 5)), rng.normal(size=(11, 5))
    neighbors, weights = rng.integers(0, 7, size=(11, 4)), rng.uniform(size=(11, 4))  # repeats of a neighbour included
    f32 = [jnp.asarray(x, jnp.float32) for x in (table, weights, cotangent)]
    result, pull = jax.vjp(lambda t, w: blend_module.blend(t, jnp.asarray(neighbors, jnp.int32), w), *f32[:2])
    np.testing.assert_allclose(result, np.einsum("nj,njc->nc", weights, table[neighbors]), atol=1e-5)
    d_table, d_weights = pull(f32[2])
    expected = np.zeros_like(table)
    np.add.at(expected, neighbors, weights[..., None] * cotangent[:, None])
    np.testing.assert_allclose(d_table, expected, atol=1e-5)
    np.testing.assert_allclose(d_weights, np.einsum("nc,njc->nj", cotangent, table[neighbors]), atol=1e-5)


@pytest.mark.parametrize("in_xla", [True, False])
def test_no_matrix_of_gaussians_by_key_points_is_held_at_paper_scale(in_xla, monkeypatch):
    if in_xla:
        monkeypatch.setattr(blending.native, "is_available", lambda: False)
    num, key_points, num_neighbors = 102_400, 512, 8

    def loss(means, quats, weights, poses, neighbors):
        moved, turned = blending.linear_blend(means, quats, *poses, neighbors, weights)
        return jnp.sum(moved**2) + jnp.sum(turned**2)

    shapes = ((num, 3), (num, 4), (num, num_neighbors))
    means, quats, weights = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    poses = tuple(jax.ShapeDtypeStruct((key_points, size), jnp.float32) for size in (3, 3, 4))
    neighbors = jax.ShapeDtypeStruct((num, num_neighbors), jnp.int32)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
    compiled = gradient.lower(means, quats, weights, poses, neighbors).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * num * key_points / 2
