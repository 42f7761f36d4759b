"""A linear map with a transpose of its own, as a jax primitive.

jax has custom rules for forward mode (`custom_jvp`, transposed by jax, which cannot transpose a loop that ends early)
and for reverse mode (`custom_vjp`, without forward mode), but none for both: `jax.custom_derivatives.linear_call`,
which is for this, does not compose with `vmap`. Here `vmap` makes the leading axis of images longer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from dimo_jax.core.types import Array


@dataclasses.dataclass(frozen=True)
class Map:
    """What is static about a linear map: its two directions, both functions of (saved, vector)."""

    push: Callable[[Any, Any], Any] | None  # None: it cannot be evaluated, only transposed
    pull: Callable[[Any, Any], Any]
    num_outputs: int


def apply_linear(linear: Map, saved: Any, vector: Any, like: Any) -> Any:
    """`linear.push(saved, vector)`, whose transpose is `linear.pull(saved, covector)`.

    Args:
      linear: the map.
      saved: a pytree of arrays with a leading axis of images, that the map depends on.
      vector: a pytree of arrays with that axis, in which it is linear.
      like: arrays of the result's structure, shapes and types.

    Raises:
      TypeError: when it is evaluated, where the map has no `push`.
    """
    saved_leaves, saved_tree = jax.tree.flatten(saved)
    vector_leaves, vector_tree = jax.tree.flatten(vector)
    like_leaves, like_tree = jax.tree.flatten(like)
    outputs = _linear_p.bind(
        *saved_leaves,
        *vector_leaves,
        linear=linear,
        trees=(saved_tree, vector_tree, like_tree),
        kinds=tuple((x.shape[1:], jnp.result_type(x)) for x in like_leaves),
    )
    return jax.tree.unflatten(like_tree, outputs)


def merge_images(x: Array, axis: int | None, size: int) -> Array:
    """An axis of a batch, or of `size` copies where it is None, joined with the leading axis of images."""
    x = jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
    return x.reshape(-1, *x.shape[2:])


_linear_p = Primitive("dimo_linear")
_linear_p.multiple_results = True


def _split(args: Sequence[Any], trees: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    count = trees[0].num_leaves
    return args[:count], args[count:]


@_linear_p.def_impl
def _evaluate(*args: Array, linear: Map, trees: Any, kinds: Any) -> list[Array]:
    del kinds
    if linear.push is None:
        raise TypeError("forward-mode derivatives: this renderer has reverse mode only; choose implementation='xla'")
    saved, vector = _split(args, trees)
    return jax.tree.leaves(linear.push(jax.tree.unflatten(trees[0], saved), jax.tree.unflatten(trees[1], vector)))


@_linear_p.def_abstract_eval
def _shape(*args: Any, linear: Map, trees: Any, kinds: Any) -> list[Any]:
    del linear, trees
    return [jax.core.ShapedArray((args[0].shape[0], *shape), dtype) for shape, dtype in kinds]


def _differentiate(primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
    saved, vector = _split(primals, params["trees"])
    d_saved, d_vector = _split(tangents, params["trees"])
    if not all(type(d) is ad.Zero for d in d_saved):
        raise TypeError("second derivatives of the compositing do not exist")
    d_vector = [ad.instantiate_zeros(d) for d in d_vector]
    return _linear_p.bind(*saved, *vector, **params), _linear_p.bind(*saved, *d_vector, **params)


def _transpose(cotangents: Any, *args: Any, linear: Map, trees: Any, kinds: Any) -> list[Any]:
    del kinds
    saved, vector = _split(args, trees)
    cotangents = jax.tree.unflatten(trees[2], [ad.instantiate_zeros(ct) for ct in cotangents])
    pulled = jax.tree.leaves(linear.pull(jax.tree.unflatten(trees[0], saved), cotangents))
    return [None] * len(saved) + [d if ad.is_undefined_primal(x) else None for x, d in zip(vector, pulled, strict=True)]


def _batch(args: Any, dims: Any, **params: Any) -> tuple[list[Array], list[int]]:
    size = next(x.shape[dim] for x, dim in zip(args, dims) if dim is not None)
    outputs = _linear_p.bind(*(merge_images(x, dim, size) for x, dim in zip(args, dims)), **params)
    return [x.reshape(size, -1, *x.shape[1:]) for x in outputs], [0] * len(outputs)


ad.primitive_jvps[_linear_p] = _differentiate
ad.primitive_transposes[_linear_p] = _transpose
batching.primitive_batchers[_linear_p] = _batch
mlir.register_lowering(_linear_p, mlir.lower_fun(_evaluate, multiple_results=True))
