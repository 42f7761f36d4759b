"""Group laws of rigid motions, agreement with jaxlie, and cameras that see what they face."""

import functools
import types

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
import pytest

from dimo_jax.geometry import rigid as eager

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
NAMES = "apply compose invert to_dual_quaternion from_dual_quaternion to_matrix from_matrix"
rigid = types.SimpleNamespace(**{name: quick_jit(getattr(eager, name)) for name in NAMES.split()})

batches = pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)], ids=str)
ATOL = 5e-6


def random_motion(seed, batch):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*batch, 4)).astype(np.float32), rng.normal(size=(*batch, 3)).astype(np.float32)


def to_jaxlie(q, t):
    unit = q / jnp.linalg.norm(q, axis=-1, keepdims=True)
    return jaxlie.SE3(jnp.concatenate([unit, t], axis=-1))


@batches
def test_group_laws(batch):
    a, b, c = (random_motion(seed, batch) for seed in range(3))
    x = random_motion(3, batch)[1]
    moved = rigid.apply(*a, rigid.apply(*b, rigid.apply(*c, x)))
    np.testing.assert_allclose(rigid.apply(*rigid.compose(*rigid.compose(*a, *b), *c), x), moved, atol=ATOL)
    np.testing.assert_allclose(rigid.apply(*rigid.compose(*a, *rigid.compose(*b, *c)), x), moved, atol=ATOL)
    np.testing.assert_allclose(rigid.apply(*rigid.invert(*a), rigid.apply(*a, x)), x, atol=ATOL)
    q, t = rigid.compose(*a, *rigid.invert(*a))
    np.testing.assert_allclose(q, np.broadcast_to([1.0, 0, 0, 0], (*batch, 4)), atol=ATOL)
    np.testing.assert_allclose(t, np.zeros((*batch, 3)), atol=ATOL)


def test_agrees_with_jaxlie():
    batch = (3, 1, 2)
    a, b, x = random_motion(4, batch), random_motion(5, batch), random_motion(6, batch)[1]

    @quick_jit
    def evaluate_jaxlie(a, b, x):
        first, second = to_jaxlie(*a), to_jaxlie(*b)
        return first @ x, (first @ second).as_matrix(), first.inverse().as_matrix(), first.as_matrix()

    moved, product, inverse, matrix = evaluate_jaxlie(a, b, x)
    np.testing.assert_allclose(rigid.apply(*a, x), moved, atol=ATOL)
    np.testing.assert_allclose(rigid.to_matrix(*rigid.compose(*a, *b)), product, atol=ATOL)
    np.testing.assert_allclose(rigid.to_matrix(*rigid.invert(*a)), inverse, atol=ATOL)
    np.testing.assert_allclose(rigid.to_matrix(*a), matrix, atol=ATOL)


def test_matrix_round_trip():
    batch = (3, 1, 2)
    motion = random_motion(7, batch)
    matrix = np.asarray(rigid.to_matrix(*motion))
    assert matrix.shape == (*batch, 4, 4)
    x = random_motion(8, batch)[1]
    homogeneous = np.einsum("...ij,...j->...i", matrix, np.concatenate([x, np.ones_like(x[..., :1])], axis=-1))
    np.testing.assert_allclose(homogeneous[..., :3], rigid.apply(*motion, x), atol=ATOL)
    np.testing.assert_array_equal(homogeneous[..., 3], 1.0)
    q, t = rigid.from_matrix(matrix)
    assert np.all(np.asarray(q)[..., 0] >= 0)
    np.testing.assert_allclose(rigid.to_matrix(q, t), matrix, atol=ATOL)


def test_dual_quaternion_round_trip():
    batch = (3, 1, 2)
    motion = random_motion(9, batch)
    dual = rigid.to_dual_quaternion(*motion)
    assert dual.shape == (*batch, 8)
    # Unit: the real part has length 1 and is perpendicular to the dual part.
    np.testing.assert_allclose(np.sum(np.square(dual[..., :4]), axis=-1), 1.0, atol=ATOL)
    np.testing.assert_allclose(np.sum(dual[..., :4] * dual[..., 4:], axis=-1), 0.0, atol=ATOL)
    for factor in [1.0, -1.0, 4.0]:
        q, t = rigid.from_dual_quaternion(factor * dual)
        np.testing.assert_allclose(rigid.to_matrix(q, t), rigid.to_matrix(*motion), atol=ATOL)


def test_blended_dual_quaternions_move_about_the_common_axis():
    # A screw of a quarter turn and 2 along z: its half, blended with the identity, is an eighth of a turn and 1.
    quarter = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)], np.float32)
    screw = rigid.to_dual_quaternion(quarter, np.array([0, 0, 2.0], np.float32))
    still = rigid.to_dual_quaternion(np.array([1.0, 0, 0, 0], np.float32), np.zeros(3, np.float32))
    q, t = rigid.from_dual_quaternion(0.5 * screw + 0.5 * still)
    np.testing.assert_allclose(q, [np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)], atol=ATOL)
    np.testing.assert_allclose(t, [0, 0, 1.0], atol=ATOL)


def test_zero_dual_quaternion_is_the_identity_with_finite_gradient():
    q, t = rigid.from_dual_quaternion(jnp.zeros(8))
    np.testing.assert_array_equal(q, [1.0, 0, 0, 0])
    np.testing.assert_array_equal(t, np.zeros(3))
    for jacobian in quick_jit(jax.jacrev(eager.from_dual_quaternion))(jnp.zeros(8)):
        assert np.all(np.isfinite(jacobian))


def test_leading_axes_broadcast():
    (qa, ta), (qb, tb) = random_motion(0, (3, 1)), random_motion(1, (5,))

    def shapes(function, *arguments):
        return jax.tree.map(jnp.shape, jax.eval_shape(function, *arguments))

    assert shapes(eager.compose, qa, ta, qb, tb) == ((3, 5, 4), (3, 5, 3))
    assert shapes(eager.to_matrix, qa, tb) == (3, 5, 4, 4)
    assert shapes(eager.to_dual_quaternion, qa, tb) == (3, 5, 8)
    assert shapes(eager.to_dual_quaternion, qa, tb[0]) == (3, 1, 8)
    np.testing.assert_allclose(
        rigid.compose(qa, ta, qb, tb)[1][2, 4], rigid.apply(qa[2, 0], ta[2, 0], tb[4]), atol=ATOL
    )


def test_derivatives_of_the_group(check_jacobian):
    def evaluate(x):
        q, t = eager.compose(x[:4], x[4:7], x[3::-1], x[7:])
        return eager.invert(q, t)

    check_jacobian(evaluate, np.random.default_rng(0).normal(size=(3, 10)))


def test_derivatives_of_dual_quaternions(check_jacobian):
    def evaluate(x):
        return eager.to_dual_quaternion(x[:4], x[4:7]), eager.from_dual_quaternion(x)

    check_jacobian(evaluate, np.random.default_rng(0).normal(size=(3, 8)), tolerance=1e-5)


@pytest.mark.parametrize("x64", [False, True])
def test_float32_stays_float32(x64):
    with jax.enable_x64(x64):
        q, t = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((3,), jnp.float32)
        outputs = [
            jax.eval_shape(eager.compose, q, t, q, t),
            jax.eval_shape(lambda q, t: eager.from_dual_quaternion(eager.to_dual_quaternion(q, t)), q, t),
            jax.eval_shape(lambda q, t: eager.from_matrix(eager.to_matrix(q, t)), q, t),
        ]
        assert {output.dtype for output in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}
