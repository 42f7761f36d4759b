"""Values and gradients over the whole float32 range, against float64 numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.geometry import safe

TINY = float(np.finfo(np.float32).tiny)
LARGEST = float(np.finfo(np.float32).max)
LIMIT = 1.85e19  # documented bound of a partial derivative: sqrt(largest)

MAGNITUDES = np.concatenate([[0.0], np.logspace(-45, 38, 84), [TINY, 2 * TINY, LARGEST]]).astype(np.float32)
WHOLE_RANGE = np.concatenate([MAGNITUDES, -MAGNITUDES])
PAIRS = np.stack(np.meshgrid(WHOLE_RANGE, WHOLE_RANGE, indexing="ij"), axis=-1).reshape(-1, 2)
VECTORS = np.concatenate([PAIRS, PAIRS[::-1, 1:]], axis=-1)

eager_and_jit = pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])


def flush(x):
    """What the functions promise: magnitudes under the smallest normal number are zero."""
    return np.where(np.abs(x) < TINY, 0.0, x).astype(np.float64)


def assert_close_or_saturated(found, expected):
    expected = np.clip(expected, -LARGEST, LARGEST)
    # 4 TINY: results under the smallest normal number may be flushed, and a sum of flushed terms differs by as much.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=4 * TINY)


@eager_and_jit
def test_norm_over_whole_range(transform):
    found = transform(safe.safe_norm)(VECTORS)
    assert found.dtype == jnp.float32
    assert_close_or_saturated(found, np.linalg.norm(flush(VECTORS), axis=-1))


def test_norm_gradient_is_the_unit_vector_over_whole_range():
    found = np.asarray(jax.jit(jax.vmap(jax.grad(safe.safe_norm)))(VECTORS))
    exact = flush(VECTORS)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    expected = np.divide(exact, length, where=length > 0, out=np.zeros_like(exact))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@eager_and_jit
def test_normalize_over_whole_range(transform):
    found = np.asarray(transform(safe.safe_normalize)(VECTORS))
    exact = flush(VECTORS)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    expected = np.divide(exact, length, where=length > 0, out=np.zeros_like(exact))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_normalize_is_finite_where_a_compiler_rounds_x_anew_for_each_use(monkeypatch):
    # Compiled, the difference of coinciding points may round to 0 where it is scaled, and not where its scale is found.
    monkeypatch.setattr(safe, "_scale_to_one", lambda x, axis: (jnp.zeros_like(x), jnp.full((1,), 1e-9, x.dtype)))
    np.testing.assert_array_equal(safe.safe_normalize(jnp.array([1e-9, 0.0, 0.0])), 0.0)


def test_normalize_jacobian_is_finite_and_bounded_over_whole_range():
    found = np.asarray(jax.jit(jax.vmap(jax.jacrev(safe.safe_normalize)))(VECTORS))
    assert np.all(np.isfinite(found))
    assert np.max(np.abs(found)) < 2 * LIMIT
    moderate = np.all((np.abs(VECTORS) > 1e-10) & (np.abs(VECTORS) < 1e10), axis=-1)
    exact = VECTORS[moderate].astype(np.float64)
    length = np.linalg.norm(exact, axis=-1)[:, None, None]
    unit = exact / length[..., 0]
    expected = (np.eye(3) - unit[:, :, None] * unit[:, None, :]) / length
    np.testing.assert_allclose(found[moderate] * length, expected * length, atol=1e-6)


@eager_and_jit
def test_divide_over_whole_range(transform):
    a, b = PAIRS.T
    found = transform(safe.safe_divide)(a, b)
    exact_a, exact_b = flush(a), flush(b)
    expected = np.divide(exact_a, exact_b, where=exact_b != 0, out=np.zeros_like(exact_a))
    assert_close_or_saturated(found, expected)


@pytest.mark.parametrize("divisor", [TINY, 1e-20, 3.0, 1e30, 1e38, LARGEST])
def test_divide_by_broadcast_number(divisor):
    # XLA turns this form into a product with the reciprocal, which is not a normal number for the largest divisors.
    found = jax.jit(safe.safe_divide)(WHOLE_RANGE, jnp.float32(divisor))
    assert_close_or_saturated(found, flush(WHOLE_RANGE) / np.float64(np.float32(divisor)))


def test_divide_gradients_over_whole_range():
    a, b = PAIRS.T
    d_a, d_b = map(np.asarray, jax.jit(jax.vmap(jax.grad(safe.safe_divide, argnums=(0, 1))))(a, b))
    exact_a, exact_b = flush(a), flush(b)
    alive = exact_b != 0
    bounded = functools.partial(np.clip, a_min=-LIMIT, a_max=LIMIT)
    expected_a = bounded(np.divide(1.0, exact_b, where=alive, out=np.zeros_like(exact_b)))
    quotient = np.clip(np.divide(exact_a, exact_b, where=alive, out=np.zeros_like(exact_b)), -LARGEST, LARGEST)
    expected_b = bounded(-quotient * expected_a)
    np.testing.assert_allclose(d_a, expected_a, rtol=3e-3, atol=2 * TINY)  # rtol: LIMIT is rounded up
    # Where the quotient or the reciprocal is flushed, so is their product.
    flushed = (np.abs(quotient) < 2 * TINY) | (np.abs(expected_a) < 2 * TINY)
    np.testing.assert_allclose(d_b[~flushed], expected_b[~flushed], rtol=3e-3, atol=2 * TINY)
    assert np.all(np.abs(d_b[flushed]) <= np.abs(expected_b[flushed]) * 1.001)


@eager_and_jit
def test_sqrt_over_whole_range(transform):
    exact = np.maximum(flush(WHOLE_RANGE), 0.0)
    np.testing.assert_allclose(transform(safe.safe_sqrt)(WHOLE_RANGE), np.sqrt(exact), rtol=1e-6)
    gradient = transform(jax.vmap(jax.grad(safe.safe_sqrt)))(WHOLE_RANGE)
    expected = np.divide(0.5, np.sqrt(exact), where=exact > 0, out=np.zeros_like(exact))
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@eager_and_jit
def test_log_over_whole_range(transform):
    exact = flush(WHOLE_RANGE)
    np.testing.assert_allclose(
        transform(safe.safe_log)(WHOLE_RANGE), np.log(np.maximum(exact, TINY)), rtol=1e-6, atol=1e-6
    )
    gradient = transform(jax.vmap(jax.grad(safe.safe_log)))(WHOLE_RANGE)
    expected = np.divide(1.0, exact, where=exact > 0, out=np.zeros_like(exact))
    np.testing.assert_allclose(gradient, np.minimum(expected, LIMIT), rtol=3e-3, atol=2 * TINY)


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (safe.safe_norm, np.array([1.0, np.nan], np.float32)),
        (safe.safe_normalize, np.array([np.nan, np.nan], np.float32)),
        (functools.partial(safe.safe_divide, np.float32(np.nan)), np.float32(0.0)),
        (functools.partial(safe.safe_divide, np.float32(1.0)), np.float32(np.nan)),
        (safe.safe_sqrt, np.float32(np.nan)),
        (safe.safe_log, np.float32(np.nan)),
    ],
    ids=["norm", "normalize", "numerator", "denominator", "sqrt", "log"],
)
def test_nan_is_not_hidden(function, argument):
    assert np.all(np.isnan(jax.jit(function)(argument)))


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (-1, -2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_norm_axes(axis, keepdims):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    expected = np.sqrt(np.sum(x.astype(np.float64) ** 2, axis=axis, keepdims=keepdims))
    found = jax.jit(functools.partial(safe.safe_norm, axis=axis, keepdims=keepdims))(x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, -1, (0, 1)])
def test_normalize_axes(axis):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    unit = jax.jit(functools.partial(safe.safe_normalize, axis=axis))(x)
    length = np.sqrt(np.sum(x.astype(np.float64) ** 2, axis=axis, keepdims=True))
    np.testing.assert_allclose(unit, x / length, rtol=1e-6)


def everything(x):
    positive = x * x + 0.5
    return (
        safe.safe_norm(x),
        safe.safe_normalize(x),
        safe.safe_divide(x, positive[::-1]),
        safe.safe_sqrt(positive),
        safe.safe_log(positive),
    )


@pytest.mark.parametrize("function", [everything, jax.jacrev(everything)], ids=["first", "second"])
def test_derivatives_against_differences(function, check_jacobian):
    check_jacobian(function, np.random.default_rng(1).normal(size=(5, 3)))


@pytest.mark.parametrize("function", [safe.safe_norm, safe.safe_normalize, safe.safe_sqrt, safe.safe_log])
@pytest.mark.parametrize("x64", [False, True])
def test_dtype_is_kept(function, x64):
    with jax.enable_x64(x64):
        for dtype in [jnp.float32, jnp.bfloat16] + ([jnp.float64] if x64 else []):
            x = jax.ShapeDtypeStruct((3,), dtype)
            assert jax.eval_shape(function, x).dtype == dtype
            assert jax.eval_shape(jax.grad(lambda x: jnp.sum(function(x))), x).dtype == dtype


def test_integers_become_floats():
    assert safe.safe_norm(jnp.array([3, 4])) == 5.0
    assert safe.safe_divide(1, 4) == 0.25
