"""Products and sums of rows with what motions and times share, whose gradients stay matrix products under `vmap`.

Under `vmap` rows get axes, and the gradient of what they share contracts over all of them. XLA on CPUs copies rows
with several axes into a transposed array before it contracts over them, and sums over axes at a seventh of the speed of
a product with ones. Together that was a sixth of the motion decoder's time (docs/performance.md).
With the axes of the rows as one, a matrix product does either as fast as memory allows.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from dimo_jax.core.types import Array


def rows_times(x: Array, matrix: Array) -> Array:
    """x @ matrix.

    Args:
      x: [...,C].
      matrix: [C,D], of the same type; where `vmap` maps it too, this is a batched product as any other.

    Returns:
      [...,D], differentiable in both as often as one likes.

    Raises:
      TypeError: operands that do not fit.
    """
    if matrix.ndim != 2 or x.ndim == 0 or x.shape[-1] != matrix.shape[0] or x.dtype != matrix.dtype:
        raise TypeError(f"rows_times: found {_names(x, matrix)}, expected [...,C] and [C,D] of one type")
    return _times.bind(x, matrix)


def rows_plus(x: Array, shared: Array) -> Array:
    """x + shared.

    Args:
      x: [...,*S].
      shared: [*S], of the same type; where `vmap` maps it too, this is a sum as any other.

    Returns:
      [...,*S], differentiable in both as often as one likes.

    Raises:
      TypeError: operands that do not fit.
    """
    if x.shape[x.ndim - shared.ndim :] != shared.shape or shared.ndim > x.ndim or x.dtype != shared.dtype:
        raise TypeError(f"rows_plus: found {_names(x, shared)}, expected [...,*S] and [*S] of one type")
    return _plus.bind(x, shared)


def _names(*operands: Array) -> str:
    return " and ".join(f"{operand.dtype}{list(operand.shape)}" for operand in operands)


def _multiply(x: Array, matrix: Array) -> Array:
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[1])


def _add(x: Array, shared: Array) -> Array:
    return x + shared


def _pull_rows(d_out: Array, x: Array, matrix: Array) -> Array:
    del x
    return rows_times(d_out, matrix.T)


def _pull_matrix(d_out: Array, x: Array, matrix: Array) -> Array:
    del matrix
    rows, d_rows = (value.reshape(-1, value.shape[-1]) for value in (x, d_out))
    return jax.lax.dot_general(rows, d_rows, (((0,), (0,)), ((), ())))


def _pull_terms(d_out: Array, x: Array, shared: Array) -> list[Array | None]:
    terms: list[Array | None] = [d_out if ad.is_undefined_primal(x) else None, None]
    if ad.is_undefined_primal(shared):
        shape = shared.aval.shape
        ones = jnp.ones((1, math.prod(d_out.shape[: d_out.ndim - len(shape)])), d_out.dtype)
        terms[1] = (ones @ d_out.reshape(-1, math.prod(shape))).reshape(shape)
    return terms


def _map_times(operands: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, int]:
    (x, matrix), (x_axis, matrix_axis) = operands, axes
    if x_axis is not None and matrix_axis is None:
        return rows_times(jnp.moveaxis(x, x_axis, 0), matrix), 0
    return jax.vmap(_multiply, in_axes=axes)(x, matrix), 0


def _map_plus(operands: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, int]:
    (x, shared), (x_axis, shared_axis) = operands, axes
    if x_axis is not None and shared_axis is None:
        return rows_plus(jnp.moveaxis(x, x_axis, 0), shared), 0
    return jax.vmap(_add, in_axes=axes)(x, shared), 0


_times, _plus = Primitive("rows_times"), Primitive("rows_plus")
for _primitive, _function, _rule in ((_times, _multiply, _map_times), (_plus, _add, _map_plus)):
    _primitive.def_impl(jax.jit(_function))
    mlir.register_lowering(_primitive, mlir.lower_fun(_function, multiple_results=False))
    batching.primitive_batchers[_primitive] = _rule
_times.def_abstract_eval(lambda x, matrix: jax.core.ShapedArray((*x.shape[:-1], matrix.shape[1]), x.dtype))
_plus.def_abstract_eval(lambda x, shared: jax.core.ShapedArray(x.shape, x.dtype))
ad.defbilinear(_times, _pull_rows, _pull_matrix)
ad.deflinear2(_plus, _pull_terms)
