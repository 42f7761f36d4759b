"""Linear blend skinning in C++ for CPUs, where XLA pads and re-reads arrays for every small slice (docs/native.md)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from absl import logging

from dimo_jax.core.types import Array
from dimo_jax.native.library import load_library
from dimo_jax.runtime.platforms import current_platform

_FORWARD = "dimo_skin_forward"
_BACKWARD = "dimo_skin_backward"


def is_available() -> bool:
    """Whether jax computes on the CPU and the extension is there; says once per process what its absence costs."""
    return current_platform() == "cpu" and _is_loaded()


@functools.cache
def _is_loaded() -> bool:
    library = load_library()
    if isinstance(library, str):
        logging.warning("skinning runs in XLA, several times slower: %s", library)
        return False
    return True


@jax.custom_vjp
def blend_poses(means: Array, quats: Array, poses: Array, neighbors: Array, weights: Array) -> tuple[Array, Array]:
    """Moves Gaussians by weighted sums of poses.

    Nothing of N x K is ever built; the backward pass keeps the operands alone. Results do not depend on the number of
    threads, to the bit.

    Args:
      means, quats: [N,3], [N,4] float32, canonical.
      poses: [K,16] float32: rotation matrix by rows, shift, the rotation as a quaternion (of any length).
      neighbors: [N,J] int32, clamped to 0..K-1 as jax's gathers do; carries no gradient.
      weights: [N,J] float32.

    Returns:
      means [N,3] and unit quats [N,4]; a quaternion of zero becomes the identity, with no gradient.
    """
    shapes = (jax.ShapeDtypeStruct(means.shape, jnp.float32), jax.ShapeDtypeStruct(quats.shape, jnp.float32))
    # expand_dims: operands that vmap shares stay single.
    moved, turned = jax.ffi.ffi_call(_FORWARD, shapes, vmap_method="expand_dims")(
        means, quats, poses, neighbors, weights
    )
    return moved, turned


def _forward(*operands: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    return blend_poses(*operands), operands


def _backward(operands: tuple[Array, ...], cotangents: tuple[Array, Array]) -> tuple[Array, Array, Array, None, Array]:
    means, quats, poses, _, weights = operands
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (means, quats, poses, weights))
    call = jax.ffi.ffi_call(_BACKWARD, shapes, vmap_method="expand_dims")
    d_means, d_quats, d_poses, d_weights = call(*operands, *cotangents)
    return d_means, d_quats, d_poses, None, d_weights


blend_poses.defvjp(_forward, _backward)
