"""Norm, division, square root and logarithm whose values and gradients are finite for every finite input.

The rules are the same for all of them:

- A magnitude under the smallest normal number (1.2e-38 in float32) counts as zero. Accelerators flush such numbers
  anyway, so the result does not depend on the device.
- A value that would overflow saturates at the largest finite number.
- A partial derivative is clipped to the square root of the largest finite number (1.8e19 in float32), so that its
  square, which Adam accumulates, is finite too. At a singular point the derivative is zero.
- NaN passes through: a fault upstream stays visible.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array

Axis = int | tuple[int, ...]


def safe_norm(x: Array, *, axis: Axis = -1, keepdims: bool = False) -> Array:
    """Euclidean length along `axis`, without overflow or underflow of the squares.

    Args:
      x: [...] any real array.
      axis: axis or axes to reduce.
      keepdims: keeps the reduced axes with size 1.

    Returns:
      Lengths >= 0, saturated at the largest finite number. The gradient is the unit vector, and zero at x = 0.
    """
    return _norm(_as_float(x), axis, keepdims)


def safe_normalize(x: Array, *, axis: Axis = -1) -> Array:
    """Unit vectors along `axis`; the zero vector stays zero.

    Args:
      x: [...] any real array.
      axis: axis or axes that hold the vector's components.

    Returns:
      An array of x's shape. The gradient is (I - u u^T) / |x| with 1 / |x| clipped, and zero at x = 0.
    """
    return _normalize(_as_float(x), axis)


def safe_divide(a: Array, b: Array) -> Array:
    """a / b, elementwise with broadcasting; 0 where b is 0.

    Returns:
      The quotient, saturated at the largest finite number with the sign of a / b. Where b is 0, the value and both
      partial derivatives are 0.
    """
    dtype = jnp.result_type(float, a, b)
    a, b = jnp.broadcast_arrays(jnp.asarray(a, dtype), jnp.asarray(b, dtype))
    return _divide(a, b)


def safe_sqrt(x: Array) -> Array:
    """Square root, elementwise; 0 with zero gradient where x is 0 or negative."""
    x = _as_float(x)
    dead = x < _tiny(x)
    return jnp.where(dead, 0.0, jnp.sqrt(jnp.where(dead, 1.0, x)))


def safe_log(x: Array) -> Array:
    """Natural logarithm, elementwise.

    Where x is 0 or negative: the logarithm of the smallest normal number (-87.3 in float32), with zero gradient.
    """
    return _log(_as_float(x))


def _as_float(x: Array) -> Array:
    return jnp.asarray(x, jnp.result_type(float, x))


def _tiny(x: Array) -> float:
    return float(jnp.finfo(x.dtype).tiny)


def _largest(x: Array) -> float:
    return float(jnp.finfo(x.dtype).max)


def _derivative_limit(x: Array) -> float:
    return math.sqrt(_largest(x))


def _reciprocal(x: Array) -> Array:
    """1 / x, clipped to the derivative limit; 0 where x is 0."""
    dead = jnp.abs(x) < _tiny(x)
    limit = _derivative_limit(x)
    return jnp.where(dead, 0.0, jnp.clip(1.0 / jnp.where(dead, 1.0, x), -limit, limit))


def _quotient(a: Array, b: Array) -> Array:
    """a / b for b that is not 0.

    XLA divides by a broadcast number by multiplying with its reciprocal, which is flushed to zero where the number is
    near the largest one; a power of two taken out of both sides keeps it in range.
    """
    shrink = jnp.where(jnp.abs(b) > _derivative_limit(b), 1 / 16, 1.0).astype(b.dtype)
    return (a * shrink) / (b * shrink)


def _scale_to_one(x: Array, axis: Axis) -> tuple[Array, Array]:
    """x / scale (largest magnitude 1; zero stays zero), and the scale, which keeps the reduced axes."""
    scale = jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0.0)
    dead = scale < _tiny(x)
    scale = jnp.where(dead, 1.0, scale)
    return jnp.where(dead, 0.0, _quotient(x, scale)), scale


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _norm(x: Array, axis: Axis, keepdims: bool) -> Array:
    scaled, scale = _scale_to_one(x, axis)
    length = jnp.sqrt(jnp.sum(scaled * scaled, axis=axis, keepdims=True))
    norm = jnp.minimum(scale * length, _largest(x))
    return norm if keepdims else jnp.squeeze(norm, axis)


@_norm.defjvp
def _norm_jvp(axis: Axis, keepdims: bool, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (d_x,) = primals, tangents
    return _norm(x, axis, keepdims), jnp.sum(_normalize(x, axis) * d_x, axis=axis, keepdims=keepdims)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _normalize(x: Array, axis: Axis) -> Array:
    scaled, _ = _scale_to_one(x, axis)
    length = jnp.sqrt(jnp.sum(scaled * scaled, axis=axis, keepdims=True))
    # Not by the scale: a compiler may compute x anew for each use, and where x is a difference of equal things round it
    # to nothing in one place and to next to nothing in another.
    return scaled / jnp.where(length == 0, 1.0, length)


@_normalize.defjvp
def _normalize_jvp(axis: Axis, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (d_x,) = primals, tangents
    unit = _normalize(x, axis)
    radial = unit * jnp.sum(unit * d_x, axis=axis, keepdims=True)
    return unit, (d_x - radial) * _reciprocal(_norm(x, axis, True))


@jax.custom_jvp
def _divide(a: Array, b: Array) -> Array:
    dead = jnp.abs(b) < _tiny(b)
    quotient = _quotient(a, jnp.where(dead, 1.0, b))
    return jnp.where(dead & ~jnp.isnan(a), 0.0, jnp.clip(quotient, -_largest(a), _largest(a)))


@_divide.defjvp
def _divide_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (d_a, d_b) = primals, tangents
    quotient, inverse, limit = _divide(a, b), _reciprocal(b), _derivative_limit(a)
    return quotient, inverse * d_a - jnp.clip(quotient * inverse, -limit, limit) * d_b


@jax.custom_jvp
def _log(x: Array) -> Array:
    # jnp.maximum lets NaN through, which a comparison would hide.
    return jnp.log(jnp.maximum(x, _tiny(x)))


@_log.defjvp
def _log_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (d_x,) = primals, tangents
    return _log(x), jnp.where(x < 0, 0.0, _reciprocal(x)) * d_x
