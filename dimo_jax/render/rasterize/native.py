"""The `native` backend: projection and tile compositing in C++ for CPUs, called through `jax.ffi` (docs/native.md).

`setup.py` compiles the sources in `dimo_jax/native/` where it finds a compiler.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array, Camera, Gaussians, Splats
from dimo_jax.native.library import load_library
from dimo_jax.render import project_native
from dimo_jax.runtime.platforms import current_platform

_FORWARD = "dimo_rasterize_forward"
_BACKWARD = "dimo_rasterize_backward"
_Residuals = tuple[Splats, Array, Array]


def why_unavailable() -> str | None:
    """Says why this backend cannot run here and what to do about it; None where it can."""
    platform = current_platform()
    if platform != "cpu":
        return f"native runs on CPUs and jax uses {platform} here: choose pallas or xla, or set JAX_PLATFORMS=cpu"
    library = load_library()
    return library if isinstance(library, str) else None


def best_simd() -> str:
    """The widest instruction set of this processor that the kernels know: baseline, avx2 or avx512."""
    library = load_library()
    if isinstance(library, str):
        raise RuntimeError(library)
    return library.DimoBestSimd().decode()


def project(gaussians: Gaussians, camera: Camera, dilation: float) -> Splats:
    """Projects N Gaussians in C++; contract, arguments and result of `dimo_jax.render.project`, in float32.

    Results do not depend on the number of threads, to the bit. Reverse-mode derivatives only, as for `rasterize`.

    Raises:
      RuntimeError: the extension is missing; the message says how to get it.
    """
    library = load_library()
    if isinstance(library, str):
        raise RuntimeError(library)
    return project_native.project(gaussians, camera, dilation)


def rasterize(splats: Splats, *, height: int, width: int, capacity: int | None) -> tuple[Array, Array, Array]:
    """Composites splats front to back in C++ (the `Rasterize` slot of dimo_jax/core/types.py).

    A splat with a number that is not finite, an extent of 0 or less, or an opacity under 1/255 is not drawn and gets
    zero gradients. Results do not depend on the number of threads, to the bit.

    Args:
      splats: N projected Gaussians, in pixels; computed in float32.
      height: of the image, in pixels.
      width: of the image, in pixels.
      capacity: not used; buffers grow as needed.

    Returns:
      features [H,W,7], sums of weight * feature; transmittance [H,W] in 0..1; overflow [] int32, always 0.
      Differentiable in means2d, conics, opacities and features; depths and extents carry no gradient.

    Raises:
      RuntimeError: the extension is missing; the message says how to get it.
    """
    del capacity
    library = load_library()
    if isinstance(library, str):
        raise RuntimeError(library)
    splats = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), splats)
    features, transmittance = _composite(splats, height, width)
    return features, transmittance, jnp.zeros((), jnp.int32)


def _call_forward(splats: Splats, height: int, width: int) -> tuple[Array, Array, Array]:
    """Returns features [H,W,7], transmittance [H,W] and stops [H,W] int32, the place in the tile's list where each
    pixel stopped."""
    shapes = (
        jax.ShapeDtypeStruct((height, width, splats.features.shape[-1]), jnp.float32),
        jax.ShapeDtypeStruct((height, width), jnp.float32),
        jax.ShapeDtypeStruct((height, width), jnp.int32),
    )
    # expand_dims: operands that vmap shares stay single, and the C++ side broadcasts them without a copy.
    call = jax.ffi.ffi_call(_FORWARD, shapes, vmap_method="expand_dims")
    features, transmittance, stops = call(*_operands(splats))
    return features, transmittance, stops


def _operands(splats: Splats) -> tuple[Array, ...]:
    return (splats.means2d, splats.conics, splats.opacities, splats.depths, splats.extents, splats.features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _composite(splats: Splats, height: int, width: int) -> tuple[Array, Array]:
    features, transmittance, _ = _call_forward(splats, height, width)
    return features, transmittance


def _composite_forward(splats: Splats, height: int, width: int) -> tuple[tuple[Array, Array], _Residuals]:
    features, transmittance, stops = _call_forward(splats, height, width)
    return (features, transmittance), (splats, transmittance, stops)


def _composite_backward(
    height: int, width: int, residuals: _Residuals, cotangents: tuple[Array, Array]
) -> tuple[Splats]:
    splats, transmittance, stops = residuals
    drawn = (splats.means2d, splats.conics, splats.opacities, splats.features)
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in drawn)
    call = jax.ffi.ffi_call(_BACKWARD, shapes, vmap_method="expand_dims")
    d_means2d, d_conics, d_opacities, d_features = call(*_operands(splats), transmittance, stops, *cotangents)
    return (
        Splats(
            means2d=d_means2d,
            conics=d_conics,
            opacities=d_opacities,
            depths=jnp.zeros_like(splats.depths),
            extents=jnp.zeros_like(splats.extents),
            features=d_features,
        ),
    )


_composite.defvjp(_composite_forward, _composite_backward)
