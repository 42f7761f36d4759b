"""Turns batched kernels into a function of one image that composes with grad, jvp, jit and vmap.

The kernels take a leading axis of images. `vmap` of the result, however deeply nested, becomes one call with a longer
axis instead of XLA's batching of the loops inside, which would keep every image at work until the slowest is done.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.custom_batching import custom_vmap

from dimo_jax.core.types import Array, Splats
from dimo_jax.render.rasterize.linear import Map, apply_linear, merge_images

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
# splats, residuals, tangent of the splats, all with leading I -> tangents of features and transmittance
Push = Callable[[Splats, Any, Splats, Plan], tuple[Array, Array]]


def differentiate(forward: Forward, backward: Backward, push: Push | None = None) -> Callable[[Splats, Plan], Outputs]:
    """A function of the splats of one image (no leading axis), with the derivatives given.

    Args:
      forward: the kernel.
      backward: reverse mode; returns zeros for the fields that carry no gradient (`depths`, `extents`).
      push: forward mode; None where there is none, and `jvp` says so.
    """

    @functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
    def composite(splats: Splats, plan: Plan) -> Outputs:
        return composite_one(splats, plan)[0]

    def composite_one(splats: Splats, plan: Plan) -> tuple[Outputs, Any]:
        outputs, residuals = _merge(lambda s: forward(s, plan))(*_lead(splats))
        return _unlead((outputs, residuals))

    @composite.defjvp
    def composite_tangents(
        plan: Plan, primals: tuple[Splats], tangents: tuple[Splats]
    ) -> tuple[Outputs, tuple[Array, Array, Any]]:
        outputs, residuals = composite_one(primals[0], plan)
        saved = _lead(primals[0], residuals, outputs[:2])
        derivative = Map(
            push=None if push is None else _Pushed(push, plan), pull=_Pulled(backward, plan), num_outputs=2
        )
        d_features, d_transmittance = _unlead(apply_linear(derivative, saved, _lead(tangents[0])[0], saved[2]))
        no_tangent = np.zeros(outputs[2].shape, jax.dtypes.float0)  # overflow is an integer
        return outputs, (d_features, d_transmittance, no_tangent)

    return composite


@dataclasses.dataclass(frozen=True)
class _Pushed:
    """Forward mode as a map of (saved, tangent); equal ones share a compiled program."""

    push: Push
    plan: Plan

    def __call__(self, saved: tuple[Splats, Any, tuple[Array, Array]], tangent: Splats) -> tuple[Array, Array]:
        return self.push(saved[0], saved[1], tangent, self.plan)


@dataclasses.dataclass(frozen=True)
class _Pulled:
    """Reverse mode as a map of (saved, cotangents)."""

    backward: Backward
    plan: Plan

    def __call__(self, saved: tuple[Splats, Any, tuple[Array, Array]], cotangents: tuple[Array, Array]) -> Splats:
        call = _merge(lambda s, r, o, d: self.backward(s, r, o, d, self.plan))
        result: Splats = call(*saved, cotangents)
        return result


def _merge(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` over a leading axis of images, whose `vmap` makes that axis longer."""

    @custom_vmap
    def call(*args: Any) -> Any:
        return function(*args)

    @call.def_vmap
    def call_batched(axis_size: int, in_batched: Any, *args: Any) -> tuple[Any, Any]:
        axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
        merged = jax.tree.map(lambda x, axis: merge_images(x, axis, axis_size), args, axes, is_leaf=_is_none)
        outputs = jax.tree.map(lambda x: x.reshape(axis_size, -1, *x.shape[1:]), call(*merged))
        return outputs, jax.tree.map(lambda _: True, outputs)

    return call


def _is_none(x: Any) -> bool:
    return x is None


def _lead(*trees: Any) -> Any:
    return jax.tree.map(lambda x: x[None], trees)


def _unlead(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)
