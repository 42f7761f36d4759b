"""Group laws over batch axes, agreement with scipy and jaxlie, and derivatives at the awkward rotations."""

import functools
import types

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from dimo_jax.geometry import quaternion as eager

# Compiled once per shape, without polish: a tenth of the time of op-by-op evaluation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
NAMES = "normalize multiply conjugate rotate to_matrix from_matrix from_axis_angle to_axis_angle slerp align"
quaternion = types.SimpleNamespace(identity=eager.identity, **{n: quick_jit(getattr(eager, n)) for n in NAMES.split()})

BATCHES = [(), (1,), (3, 1, 2)]
batches = pytest.mark.parametrize("batch", BATCHES, ids=str)
ATOL = 2e-6
TINY = float(np.finfo(np.float32).tiny)


def random_quats(seed, batch, *, unit=False):
    q = np.random.default_rng(seed).normal(size=(*batch, 4)).astype(np.float32)
    return q / np.linalg.norm(q, axis=-1, keepdims=True) if unit else 3.0 * q


def random_vectors(seed, batch):
    return np.random.default_rng(seed).normal(size=(*batch, 3)).astype(np.float32)


def to_scipy(q):
    return Rotation.from_quat(np.asarray(q, np.float64).reshape(-1, 4), scalar_first=True)


def angle_between(a, b):
    return (to_scipy(a).inv() * to_scipy(b)).magnitude()


def assert_same_rotation(a, b, *, atol=1e-5):
    assert jnp.shape(a) == jnp.shape(b)
    assert np.max(angle_between(a, b)) < atol


@batches
def test_multiplication_is_associative(batch):
    a, b, c = (random_quats(seed, batch, unit=True) for seed in range(3))
    left = quaternion.multiply(quaternion.multiply(a, b), c)
    np.testing.assert_allclose(left, quaternion.multiply(a, quaternion.multiply(b, c)), atol=ATOL)


@batches
def test_identity_is_neutral_and_conjugate_inverts(batch):
    q = random_quats(0, batch, unit=True)
    one = quaternion.identity(batch)
    assert one.shape == (*batch, 4)
    np.testing.assert_array_equal(quaternion.multiply(one, q), q)
    np.testing.assert_array_equal(quaternion.multiply(q, one), q)
    np.testing.assert_allclose(quaternion.multiply(q, quaternion.conjugate(q)), one, atol=ATOL)


@batches
def test_rotating_by_a_product_is_rotating_twice(batch):
    a, b, v = random_quats(0, batch, unit=True), random_quats(1, batch, unit=True), random_vectors(2, batch)
    np.testing.assert_allclose(
        quaternion.rotate(quaternion.multiply(a, b), v), quaternion.rotate(a, quaternion.rotate(b, v)), atol=ATOL * 4
    )


def test_agrees_with_jaxlie():
    batch = (3, 1, 2)
    a, b, v = random_quats(0, batch, unit=True), random_quats(1, batch, unit=True), random_vectors(2, batch)

    @quick_jit
    def evaluate_jaxlie(a, b, v):
        lie_a, lie_b = jaxlie.SO3(a), jaxlie.SO3(b)
        return (lie_a @ lie_b).wxyz, lie_a.inverse().wxyz, lie_a @ v, lie_a.as_matrix(), jaxlie.SO3.exp(v).wxyz

    product, inverse, moved, matrix, exponential = evaluate_jaxlie(a, b, v)
    np.testing.assert_allclose(quaternion.multiply(a, b), product, atol=ATOL)
    np.testing.assert_allclose(quaternion.conjugate(a), inverse, atol=ATOL)
    np.testing.assert_allclose(quaternion.rotate(a, v), moved, atol=ATOL * 4)
    np.testing.assert_allclose(quaternion.to_matrix(a), matrix, atol=ATOL)
    np.testing.assert_allclose(quaternion.from_axis_angle(v), exponential, atol=ATOL)
    assert_same_rotation(quaternion.from_axis_angle(quaternion.to_axis_angle(a)), a)


def test_agrees_with_scipy_for_quaternions_of_any_length():
    batch = (3, 1, 2)
    q, v = random_quats(3, batch), random_vectors(4, batch)
    rotation = to_scipy(q)
    np.testing.assert_allclose(quaternion.to_matrix(q), rotation.as_matrix().reshape(*batch, 3, 3), atol=ATOL)
    np.testing.assert_allclose(
        quaternion.rotate(q, v), rotation.apply(v.reshape(-1, 3)).reshape(*batch, 3), atol=4 * ATOL
    )
    np.testing.assert_allclose(quaternion.to_axis_angle(q), rotation.as_rotvec().reshape(*batch, 3), atol=4 * ATOL)


def test_leading_axes_broadcast():
    q, v = random_quats(0, (3, 1), unit=True), random_vectors(1, (5,))
    found = quaternion.rotate(q, v)
    assert found.shape == (3, 5, 3)
    np.testing.assert_allclose(found[1, 3], quaternion.rotate(q[1, 0], v[3]), atol=ATOL)
    for function in [eager.multiply, eager.align, lambda a, b: eager.slerp(a, b, 0.5)]:
        assert jax.eval_shape(function, q, random_quats(2, (5,))).shape == (3, 5, 4)


def test_both_signs_are_one_rotation():
    batch = (3, 1, 2)
    q, v = random_quats(5, batch), random_vectors(6, batch)
    np.testing.assert_allclose(quaternion.rotate(-q, v), quaternion.rotate(q, v), atol=ATOL)
    np.testing.assert_allclose(quaternion.to_matrix(-q), quaternion.to_matrix(q), atol=ATOL)
    np.testing.assert_allclose(quaternion.to_axis_angle(-q), quaternion.to_axis_angle(q), atol=ATOL)
    a = random_quats(7, batch)
    np.testing.assert_allclose(quaternion.slerp(a, -q, 0.3), quaternion.slerp(a, q, 0.3), atol=ATOL)


def awkward_rotations():
    """Rotation vectors at and around no turn and a half turn, and on both sides of the borders between branches."""
    axes = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, -1, 1], [1, 1, 1], [-1, 2, -3]], np.float64)
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    angles = np.array([0, 1e-30, 1e-8, 1e-4, 1e-3, 2e-3, 9.99e-3, 1.001e-2, 0.1, 1, 2, np.pi / 2, np.pi - 1e-3, 3.1415])
    return (axes[:, None] * angles[:, None]).reshape(-1, 3).astype(np.float32)


def test_axis_angle_round_trip_at_awkward_rotations():
    v = awkward_rotations()
    q = quaternion.from_axis_angle(v)
    np.testing.assert_allclose(np.linalg.norm(q, axis=-1), 1.0, atol=ATOL)
    expected = Rotation.from_rotvec(v.astype(np.float64)).as_quat(scalar_first=True)
    np.testing.assert_allclose(q, expected, rtol=1e-6, atol=3e-7)
    # Relative, for a turn of 1e-8 must come back as 1e-8.
    angle = np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), TINY)
    np.testing.assert_allclose(quaternion.to_axis_angle(q) / angle, v / angle, atol=ATOL)


def test_matrix_round_trip_at_awkward_rotations():
    v = awkward_rotations()
    half_turns = np.pi * v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-30)
    matrices = Rotation.from_rotvec(np.concatenate([v, half_turns])).as_matrix()
    q = quaternion.from_matrix(matrices.astype(np.float32))
    assert np.all(np.asarray(q)[:, 0] >= 0)
    np.testing.assert_allclose(np.linalg.norm(q, axis=-1), 1.0, atol=ATOL)
    np.testing.assert_allclose(quaternion.to_matrix(q), matrices, atol=ATOL)


def test_long_rotation_vectors_wrap_around():
    v = np.array([[0.0, 7.0, 0.0], [-20.0, 3.0, 9.0]], np.float32)
    assert_same_rotation(quaternion.from_axis_angle(v), Rotation.from_rotvec(v).as_quat(scalar_first=True))
    huge = quaternion.from_axis_angle(jnp.full(3, 1e38, jnp.float32))
    np.testing.assert_allclose(np.linalg.norm(huge), 1.0, atol=ATOL)


def test_normalize_turns_zero_into_identity_with_finite_gradient():
    zero = jnp.zeros((2, 4))
    np.testing.assert_array_equal(quaternion.normalize(zero), quaternion.identity((2,)))
    q = jnp.array([0.0, 1e-45, 1e-38, 1e-20, 1e20, 3e38], jnp.float32)[:, None] * jnp.array([1.0, -1.0, 0.5, 1.0])
    np.testing.assert_allclose(np.linalg.norm(quaternion.normalize(q), axis=-1), 1.0, atol=ATOL)
    for function in [eager.normalize, eager.to_matrix, eager.to_axis_angle]:
        assert np.all(np.isfinite(quick_jit(jax.vmap(jax.jacrev(function)))(q)))
    assert np.all(np.isnan(quaternion.normalize(jnp.array([jnp.nan, 0, 0, 0]))))


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 1.0, -0.5, 1.5])
def test_slerp_agrees_with_scipy(t):
    a, b = random_quats(8, (20,)), random_quats(9, (20,))
    found = quaternion.slerp(a, b, t)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1.0, atol=ATOL)
    turn = (to_scipy(a).inv() * to_scipy(b)).as_rotvec()
    expected = to_scipy(a) * Rotation.from_rotvec(t * turn)
    assert_same_rotation(found, expected.as_quat(scalar_first=True))
    if 0 <= t <= 1:
        pair = Slerp([0, 1], Rotation.concatenate([to_scipy(a[0]), to_scipy(b[0])]))(t)
        assert_same_rotation(found[:1], pair.as_quat(scalar_first=True)[None])


def test_slerp_takes_a_time_per_pair_and_meets_its_ends():
    a, b = random_quats(8, (5,)), random_quats(9, (5,))
    t = jnp.linspace(0.0, 1.0, 5)
    found = quaternion.slerp(a, b, t)
    np.testing.assert_allclose(found[2], quaternion.slerp(a[2], b[2], 0.5), atol=ATOL)
    assert_same_rotation(found[:1], a[:1])
    assert_same_rotation(found[-1:], b[-1:])


def test_align_moves_into_the_hemisphere_of_the_reference():
    q, reference = random_quats(10, (100,)), random_quats(11, (100,))
    aligned = np.asarray(quaternion.align(q, reference))
    assert np.all(np.sum(aligned * reference, axis=-1) >= 0)
    np.testing.assert_array_equal(np.abs(aligned), np.abs(q))
    assert 0 < np.mean(np.any(aligned != q, axis=-1)) < 1


QUATS = {
    "generic": [0.5, -0.3, 0.7, 0.2],
    "long": [50.0, 10.0, -20.0, 30.0],
    "no turn": [1.0, 0.0, 0.0, 0.0],
    "tiny turn": [1.0, 1e-5, -2e-5, 3e-6],
    "nearly half a turn": [1e-3, 0.3, -0.8, 0.5],
}


def test_derivatives_in_the_quaternion(check_jacobian):
    v = np.array([0.3, -1.2, 0.7])

    def everything(q):
        return eager.normalize(q), eager.rotate(q, v), eager.to_matrix(q), eager.to_axis_angle(q)

    check_jacobian(everything, np.array(list(QUATS.values())), tolerance=1e-5)


@pytest.mark.parametrize("function", [eager.from_axis_angle, jax.jacfwd(eager.from_axis_angle)], ids=["1st", "2nd"])
def test_derivatives_in_the_rotation_vector(function, check_jacobian):
    # On both sides of the border between the branches, an angle of 0.01.
    points = np.array([[0, 0, 0], [1e-5, 2e-5, 0], [6e-3, -7e-3, 0], [6e-3, -9e-3, 0], [0.4, -1.0, 2.0], [0, 9.0, 0]])
    check_jacobian(function, points, step=1e-5, tolerance=1e-5)


def test_derivatives_in_the_matrix(check_jacobian):
    matrices = Rotation.from_rotvec([[0, 0, 0.1], [3, 0, 0.1], [0, 3, 0.1], [0.1, 0, 3]]).as_matrix()
    check_jacobian(lambda m: eager.from_matrix(m.reshape(3, 3)), matrices.reshape(-1, 9))


def test_round_trip_jacobian_at_no_turn_is_exact():
    @quick_jit
    @jax.vmap
    @jax.jacrev
    def jacobian(v):
        return eager.to_axis_angle(eager.from_axis_angle(v))

    v = jnp.array([0.0, 1e-30, 1e-6])[:, None] * jnp.ones(3)
    np.testing.assert_allclose(jacobian(v), np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-5)


def test_slerp_derivatives_are_finite_where_the_ends_agree_and_where_they_oppose():
    a = jnp.array([0.5, 0.5, -0.5, 0.5])
    opposite = eager.multiply(a, jnp.array([0.0, 0.0, 1.0, 0.0]))
    jacobians = quick_jit(jax.vmap(jax.jacrev(eager.slerp, argnums=(0, 1, 2)), in_axes=(None, 0, None)))
    for gradient in jacobians(a, jnp.stack([a, -a, opposite, jnp.zeros(4)]), 0.3):
        assert np.all(np.isfinite(gradient))


def test_jit_and_vmap_give_the_same():
    q, v = random_quats(12, (4, 3)), random_vectors(13, (4, 3))

    def turn(q, v):
        return eager.rotate(q, v)

    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(turn)))(q, v), turn(q, v), atol=ATOL)


@pytest.mark.parametrize("x64", [False, True])
def test_float32_stays_float32(x64):
    with jax.enable_x64(x64):
        q, v = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((3,), jnp.float32)
        outputs = [
            jax.eval_shape(eager.identity),
            jax.eval_shape(eager.normalize, q),
            jax.eval_shape(eager.rotate, q, v),
            jax.eval_shape(eager.to_matrix, q),
            jax.eval_shape(lambda q: eager.from_matrix(eager.to_matrix(q)), q),
            jax.eval_shape(eager.from_axis_angle, v),
            jax.eval_shape(eager.to_axis_angle, q),
            jax.eval_shape(lambda q: eager.slerp(q, q, 0.5), q),
        ]
        assert {output.dtype for output in outputs} == {jnp.dtype("float32")}
