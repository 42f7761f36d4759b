"""Products and sums with what rows share, against `jnp`, mapped and differentiated in every order."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.networks.rows import rows_plus, rows_times


def operands(*batch: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(*batch, 5, 4)), jnp.float32), jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)


def mapped(multiply, batch):
    """`multiply(x, matrix)` under as many `vmap` as there are axes, and its loss."""
    for _ in batch:
        multiply = jax.vmap(multiply, in_axes=(0, None))
    return multiply, lambda x, matrix: jnp.sum(jnp.sin(multiply(x, matrix)))


@pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)])
def test_values_and_gradients_are_those_of_matmul(batch):
    x, matrix = operands(*batch)
    found, found_loss = mapped(rows_times, batch)
    expected, expected_loss = mapped(jnp.matmul, batch)
    np.testing.assert_allclose(jax.jit(found)(x, matrix), expected(x, matrix), rtol=1e-6)
    np.testing.assert_allclose(found(x, matrix), expected(x, matrix), rtol=1e-6)  # not compiled
    for one, other in zip(*(jax.grad(loss, (0, 1))(x, matrix) for loss in (found_loss, expected_loss)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (1, 1), (1, None), (-1, None)])
def test_any_operand_may_be_mapped_over_any_axis(axes):
    rng = np.random.default_rng(1)
    x, matrix = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    if axes[0] is not None:
        x = np.stack([x * i for i in range(1, 7)], axis=axes[0])
    if axes[1] is not None:
        matrix = np.stack([matrix * i for i in range(1, 7)], axis=axes[1])
    found, expected = (jax.vmap(f, in_axes=axes)(x, matrix) for f in (rows_times, jnp.matmul))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gradients_of_every_example_and_second_derivatives():
    x, matrix = operands(6)
    pairs = []
    for multiply in (rows_times, jnp.matmul):
        loss = lambda x, matrix, multiply=multiply: jnp.sum(jnp.sin(multiply(x, matrix)))  # noqa: E731
        each = jax.vmap(jax.grad(loss, 1), in_axes=(0, None))(x, matrix)
        second = jax.jvp(functools.partial(jax.grad(loss, 1), x[0]), (matrix,), (jnp.ones_like(matrix),))[1]
        pairs.append((each, second, jax.hessian(loss, 1)(x[0], matrix)))
    for found, expected in zip(*pairs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_mapped_product_copies_no_rows():
    """The reason for it: XLA transposes rows that have more than one axis before it contracts over them."""

    def transposed(multiply):
        x, matrix = operands(8, 3)
        loss = mapped(multiply, (8, 3))[1]
        text = jax.jit(jax.grad(loss, 1)).lower(x, matrix).as_text()
        return [line for line in text.splitlines() if "dot_general" in line and "8x3x5x4" in line.split("->")[0]]

    assert len(transposed(jnp.matmul)) == 2  # forward, and for the matrix
    assert transposed(rows_times) == []


@pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)])
@pytest.mark.parametrize("shape", [(4,), (5, 4), ()])
def test_sums_and_their_gradients_are_those_of_addition(batch, shape):
    x = operands(*batch)[0]
    shared = jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.float32)
    found, found_loss = mapped(rows_plus, batch)
    expected, expected_loss = mapped(jnp.add, batch)
    np.testing.assert_array_equal(jax.jit(found)(x, shared), expected(x, shared))
    np.testing.assert_array_equal(found(x, shared), expected(x, shared))
    for one, other in zip(*(jax.grad(loss, (0, 1))(x, shared) for loss in (found_loss, expected_loss)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(found_loss, 1)(x, shared), jax.grad(expected_loss, 1)(x, shared), rtol=1e-5)
    second = [jax.hessian(loss, 1)(x, shared) for loss in (found_loss, expected_loss)]
    np.testing.assert_allclose(*second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (1, 1), (1, None), (-1, None)])
def test_any_term_may_be_mapped_over_any_axis(axes):
    rng = np.random.default_rng(3)
    x, shared = (rng.normal(size=(6,) * (2 + (axis is not None))).astype(np.float32) for axis in axes)
    found, expected = (jax.vmap(f, in_axes=axes)(x, shared) for f in (rows_plus, jnp.add))
    np.testing.assert_array_equal(found, expected)


def test_the_gradient_of_a_mapped_sum_is_a_product_with_ones():
    x, _ = operands(8, 3)
    shared = jnp.ones(4)

    def summed(add):
        text = jax.jit(jax.grad(mapped(add, (8, 3))[1], 1)).lower(x, shared).as_text()
        return text.count("stablehlo.reduce("), text.count("dot_general")

    assert summed(rows_plus)[1] == 1
    assert summed(rows_plus)[0] < summed(jnp.add)[0]
    assert summed(jnp.add)[1] == 0


def test_terms_that_do_not_fit_are_named():
    for x, shared in [(jnp.ones((2, 3)), jnp.ones(2)), (jnp.ones(3), jnp.ones((2, 3)))]:
        with pytest.raises(TypeError, match=r"rows_plus: found float32\["):
            rows_plus(x, shared)


@pytest.mark.parametrize(
    ("x", "matrix"),
    [(np.ones((2, 3)), np.ones((4, 2))), (np.ones((2, 3)), np.ones(3)), (np.ones((2, 3), np.float16), np.ones((3, 2)))],
)
def test_operands_that_do_not_fit_are_named(x, matrix):
    with pytest.raises(TypeError, match=r"rows_times: found float\d\d\[2, 3\] and float32\["):
        rows_times(jnp.asarray(x), jnp.asarray(matrix))
