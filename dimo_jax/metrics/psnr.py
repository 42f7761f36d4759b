"""Peak signal-to-noise ratio, over the frame and over the object."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from dimo_jax.core.types import Array

GROWN_BY = 3  # pixels, of the masks of `psnr_foreground`


@jax.jit
def psnr(pred: Array, truth: Array) -> Array:
    """PSNR of each image for a peak of 1: -10 log10 of the mean squared error.

    Args:
      pred: [...,H,W,C] in 0..1.
      truth: [...,H,W,C] in 0..1.

    Returns:
      [...] dB; inf for equal images.
    """
    chex.assert_equal_shape([pred, truth])
    return -10.0 * jnp.log10(jnp.mean((pred - truth) ** 2, axis=(-3, -2, -1)))


@functools.partial(jax.jit, static_argnames="grow")
def psnr_foreground(pred: Array, truth: Array, mask: Array, *, grow: int = GROWN_BY) -> Array:
    """PSNR of each image over the object alone: the true mask, grown by a few pixels to hold its outline.

    A small object on an empty background scores high over the frame whatever it looks like; this does not.

    Args:
      pred: [...,H,W,C] in 0..1.
      truth: [...,H,W,C] in 0..1.
      mask: [...,H,W], the true one, bool or alpha; a pixel belongs to it where alpha > 0.5.
      grow: pixels to grow the mask by, in each of the eight directions (a square of side 2 grow + 1); >= 0.

    Returns:
      [...] dB; inf for equal pixels, NaN for an image with an empty mask, which has no such figure.
    """
    chex.assert_equal_shape([pred, truth])
    chex.assert_equal_shape([pred[..., 0], mask])
    inside = _dilate(mask > 0.5, grow)
    squared = jnp.mean((pred - truth) ** 2, axis=-1)
    error = jnp.sum(jnp.where(inside, squared, 0.0), axis=(-2, -1)) / jnp.sum(inside, axis=(-2, -1))
    return -10.0 * jnp.log10(error)


def _dilate(mask: Array, grow: int) -> Array:
    """[...,H,W] bool, true within `grow` rows and columns of a true pixel."""
    side = 2 * grow + 1
    for axis in (mask.ndim - 2, mask.ndim - 1):
        window = tuple(side if i == axis else 1 for i in range(mask.ndim))
        mask = lax.reduce_window(mask, False, lax.bitwise_or, window, (1,) * mask.ndim, "SAME")
    return mask
