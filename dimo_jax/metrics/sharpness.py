"""How much fine detail pictures have, beside the truth's: PSNR hardly tells a blurred picture from a shifted one."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from dimo_jax.core.types import Array
from dimo_jax.metrics.psnr import GROWN_BY


@functools.partial(jax.jit, static_argnames="grow")
def sharpness(pred: Array, truth: Array, mask: Array, *, grow: int = GROWN_BY) -> Array:
    """Energy of each picture's high frequencies over the object, as a share of the truth's.

    The high frequencies are what a mean over 3x3 pixels takes away. 1 is as sharp as the truth, 0 perfectly blurred;
    above 1 is noise or ringing that the truth does not have.

    Args:
      pred, truth: [B,H,W,3] in 0..1.
      mask: [B,H,W] bool, the true object, grown by `grow` pixels.

    Returns:
      [B]; NaN where the mask is empty or the truth is flat.
    """
    chex.assert_equal_shape([pred, truth])
    grown = lax.reduce_window(mask, False, jnp.logical_or, (1, 2 * grow + 1, 2 * grow + 1), (1, 1, 1), "SAME")

    def energy(images: Array) -> Array:
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        low = lax.reduce_window(padded, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "VALID") / 9.0
        return jnp.sum(((images - low) ** 2).sum(axis=-1) * grown, axis=(1, 2))

    return energy(pred) / energy(truth)
