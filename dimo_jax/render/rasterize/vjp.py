"""Turns a pair of batched kernels into a function of one image that composes with grad, jit and vmap.

The kernels take a leading axis of images. `vmap` of the result, however deeply nested, becomes one call with a longer
axis instead of XLA's batching of the loops inside, which would keep every image at work until the slowest is done.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from dimo_jax.types import Array, Splats

Outputs = tuple[Array, Array, Array]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is static about one call: the image's size in pixels and the room for Gaussian-tile pairs per image."""

    height: int
    width: int
    capacity: int


# splats with a leading axis I -> (features [I,H,W,7], transmittance [I,H,W], overflow [I]), residuals with leading I
Forward = Callable[[Splats, Plan], tuple[Outputs, Any]]
# splats, residuals, features and transmittance, their cotangents, all with leading I -> cotangent of the splats
Backward = Callable[[Splats, Any, tuple[Array, Array], tuple[Array, Array], Plan], Splats]


def differentiate(forward: Forward, backward: Backward) -> Callable[[Splats, Plan], Outputs]:
    """A function of the splats of one image (no leading axis) with `backward` as its derivative.

    `backward` returns zeros for the fields that carry no gradient (`depths`, `extents`).
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def composite(splats: Splats, plan: Plan) -> Outputs:
        return composite_forward(splats, plan)[0]

    def composite_forward(splats: Splats, plan: Plan) -> tuple[Outputs, Any]:
        outputs, residuals = _batch(lambda s: forward(s, plan))(splats)
        return outputs, (splats, residuals, outputs[:2])

    def composite_backward(plan: Plan, saved: Any, cotangents: tuple[Array, Array, Any]) -> tuple[Splats]:
        # The third cotangent belongs to the integer overflow.
        call = _batch(lambda s, r, o, d: backward(s, r, o, d, plan))
        return (call(*saved, cotangents[:2]),)

    composite.defvjp(composite_forward, composite_backward)
    return composite


def _batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` over a leading axis, as a function without it whose `vmap` extends that axis."""

    @custom_vmap
    def call(*args: Any) -> Any:
        return function(*args)

    @call.def_vmap
    def call_batched(axis_size: int, in_batched: Any, *args: Any) -> tuple[Any, Any]:
        def merge(x: Array, batched: bool) -> Array:
            x = x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            return x.reshape(-1, *x.shape[2:])

        outputs = call(*jax.tree.map(merge, args, tuple(in_batched)))
        outputs = jax.tree.map(lambda x: x.reshape(axis_size, -1, *x.shape[1:]), outputs)
        return outputs, jax.tree.map(lambda _: True, outputs)

    def call_one(*args: Any) -> Any:
        outputs = call(*jax.tree.map(lambda x: x[None], args))
        return jax.tree.map(lambda x: x[0], outputs)

    return call_one
