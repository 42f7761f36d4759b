"""Eq. 7 against a slow float64 form with scipy's rotations, and what every blend must satisfy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimo_jax.geometry import quaternion
from dimo_jax.model import deform

linear_blend, linear_blend_authors, dual_quaternion_blend = map(
    jax.jit, (deform.linear_blend, deform.linear_blend_authors, deform.dual_quaternion_blend)
)
BLENDS = [linear_blend, linear_blend_authors, dual_quaternion_blend]


def make_inputs(seed=0, num=23, neighbors=4, spread=0.6):
    rng = np.random.default_rng(seed)
    means, positions = rng.normal(size=(num, 3)), rng.normal(size=(num, neighbors, 3))
    rotations = Rotation.from_rotvec(spread * rng.normal(size=(num * neighbors, 3))).as_quat(scalar_first=True)
    weights = rng.uniform(size=(num, neighbors))
    quats = Rotation.random(num, random_state=seed).as_quat(scalar_first=True)
    arrays = dict(
        means=means,
        quats=quats,
        positions=positions,
        translations=0.3 * rng.normal(size=(num, neighbors, 3)),
        rotations=rotations.reshape(num, neighbors, 4),
        weights=weights / weights.sum(-1, keepdims=True),
    )
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def slow_blend(means, quats, positions, translations, rotations, weights):
    moved, turned = np.zeros((len(means), 3)), np.zeros((len(means), 4))
    for n in range(len(means)):
        blended = np.zeros(4)
        for j in range(weights.shape[1]):
            q = rotations[n, j].astype(np.float64)
            sign = 1.0 if q @ rotations[n, 0].astype(np.float64) >= 0 else -1.0
            rotation = Rotation.from_quat(q, scalar_first=True)
            offset = rotation.apply(means[n].astype(np.float64) - positions[n, j])
            moved[n] += weights[n, j] * (offset + positions[n, j] + translations[n, j])
            blended += weights[n, j] * sign * q
        whole = Rotation.from_quat(blended, scalar_first=True) * Rotation.from_quat(quats[n], scalar_first=True)
        turned[n] = whole.as_quat(scalar_first=True)
    return moved, turned


def same_rotation(a, b, tolerance):
    return np.all(np.abs(np.sum(np.asarray(a, np.float64) * b, axis=-1)) > 1 - tolerance)


@pytest.mark.parametrize("blend", [linear_blend, linear_blend_authors])
def test_matches_slow_form(blend):
    inputs = make_inputs(spread=0.3)  # the authors' form does not align signs: keep them in one hemisphere
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
    moved_positions = rotation.apply(positions.reshape(-1, 3)).reshape(positions.shape) + shift
    inputs["translations"] = (moved_positions - positions).astype(np.float32)
    means, quats = blend(**inputs)
    np.testing.assert_allclose(means, rotation.apply(inputs["means"]) + shift, atol=3e-6)
    expected = rotation * Rotation.from_quat(inputs["quats"], scalar_first=True)
    assert same_rotation(quats, expected.as_quat(scalar_first=True), 1e-6)


@pytest.mark.parametrize("blend", [linear_blend, dual_quaternion_blend])
def test_negated_quaternions_blend_alike(blend):
    inputs = make_inputs()
    flipped = dict(inputs, rotations=inputs["rotations"] * np.array([1, -1, 1, -1], np.float32)[None, :, None])
    for a, b in zip(blend(**inputs), blend(**flipped), strict=True):
        np.testing.assert_allclose(np.abs(a), np.abs(b), atol=3e-6)


def test_dual_quaternions_keep_distances_where_linear_blending_shrinks():
    half_turn = Rotation.from_rotvec([0.0, 0.0, 2.8]).as_quat(scalar_first=True)
    rotations = np.stack([[1.0, 0, 0, 0], half_turn])[None].astype(np.float32)
    common = dict(
        quats=np.array([[1.0, 0, 0, 0]], np.float32),
        positions=np.zeros((1, 2, 3), np.float32),
        translations=np.zeros((1, 2, 3), np.float32),
        rotations=rotations,
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
