"""Projection in C++: the calls of project.cc as one differentiable function."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array, Camera, Gaussians, Splats

FORWARD = "dimo_project_forward"
BACKWARD = "dimo_project_backward"

_Operands = tuple[Array, ...]


def project(gaussians: Gaussians, camera: Camera, dilation: float) -> Splats:
    """Projects N Gaussians in float32; contract of `dimo_jax.render.project`. The library must be loaded."""
    operands = (
        *(gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.logit_opacities, gaussians.sh),
        *(camera.world_to_camera, jnp.broadcast_to(camera.focal, (2,)), camera.center),
    )
    means2d, conics, opacities, features, depths, extents = _project(
        camera.height, camera.width, dilation, *(jnp.asarray(x, jnp.float32) for x in operands)
    )
    return Splats(
        means2d=means2d, conics=conics, opacities=opacities, depths=depths, extents=extents, features=features
    )


def _call(
    name: str, shapes: tuple[tuple[int, ...], ...], height: int, width: int, dilation: float, *operands: Array
) -> _Operands:
    results = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    # expand_dims: operands that vmap shares stay single, and the C++ side broadcasts them without a copy.
    call = jax.ffi.ffi_call(name, results, vmap_method="expand_dims")
    return tuple(call(*operands, height=np.int32(height), width=np.int32(width), dilation=np.float32(dilation)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _project(height: int, width: int, dilation: float, *operands: Array) -> _Operands:
    num = operands[0].shape[0]
    return _call(FORWARD, ((num, 2), (num, 3), (num,), (num, 7), (num,), (num, 2)), height, width, dilation, *operands)


def _project_forward(height: int, width: int, dilation: float, *operands: Array) -> tuple[_Operands, _Operands]:
    return _project(height, width, dilation, *operands), operands


def _project_backward(
    height: int, width: int, dilation: float, operands: _Operands, cotangents: _Operands
) -> _Operands:
    # Depths and extents carry no gradient.
    return _call(BACKWARD, tuple(x.shape for x in operands), height, width, dilation, *operands, *cotangents[:4])


_project.defvjp(_project_forward, _project_backward)
