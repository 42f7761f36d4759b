"""Differences between a rendering and the true image: colour, mask, and structural similarity (paper Eq. 8).

Every function averages over one image and keeps the leading axes, so that the caller can weight views.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
import numpy as np
from jax import lax

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array

_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def rgb_loss(pred: Array, truth: Array, *, kind: str = "l2") -> Array:
    """Mean colour error of each image (L_rgb of Eq. 8, which names no norm; the authors' code takes the square).

    Args:
      pred: [...,H,W,3] in 0..1.
      truth: [...,H,W,3] in 0..1.
      kind: "l2" squared or "l1" absolute difference.

    Returns:
      [...] mean over pixels and channels.

    Raises:
      UserError: an unknown kind.
    """
    chex.assert_equal_shape([pred, truth])
    chex.assert_axis_dimension(pred, -1, 3)
    return jnp.mean(_error(pred - truth, kind, "rgb_loss"), axis=(-3, -2, -1))


def mask_loss(alpha: Array, truth: Array, *, kind: str = "l2") -> Array:
    """Mean error of each image's opacity against the object's true mask (L_mask of Eq. 8).

    Args:
      alpha: [...,H,W] in 0..1.
      truth: [...,H,W] in 0..1, the alpha channel of the true image.
      kind: "l2" squared (the authors' code) or "l1" absolute difference.

    Returns:
      [...] mean over pixels.

    Raises:
      UserError: an unknown kind.
    """
    chex.assert_equal_shape([alpha, truth])
    return jnp.mean(_error(alpha - truth, kind, "mask_loss"), axis=(-2, -1))


def ssim_loss(pred: Array, truth: Array) -> Array:
    """1 - SSIM of each image, 0 for equal images (the authors' code; the paper has no such term).

    See `ssim` for arguments, shapes and errors.
    """
    return 1.0 - ssim(pred, truth)


def ssim(pred: Array, truth: Array) -> Array:
    """Mean structural similarity of each image, in -1..1 and 1 for equal images.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004: an 11x11
    Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, population covariance. The mean runs over the
    pixels whose window lies inside the image, and over channels.

    Args:
      pred: [...,H,W,C] in 0..1.
      truth: [...,H,W,C] in 0..1.

    Returns:
      [...] one value per image, differentiable in both.

    Raises:
      UserError: an image side shorter than the window.
    """
    chex.assert_equal_shape([pred, truth])
    if min(pred.shape[-3:-1]) < _WINDOW:
        size = f"{pred.shape[-3]} x {pred.shape[-2]}"
        raise UserError(f"ssim: found images of {size}, expected at least {_WINDOW} pixels a side")
    a, b = jnp.moveaxis(pred, -1, -3), jnp.moveaxis(truth, -1, -3)
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a * mean_a
    variance_b = _blur(b * b) - mean_b * mean_b
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2.0 * mean_a * mean_b + _C1) / (mean_a * mean_a + mean_b * mean_b + _C1)
    structure = (2.0 * covariance + _C2) / (variance_a + variance_b + _C2)
    return jnp.mean(luminance * structure, axis=(-3, -2, -1))


def _error(difference: Array, kind: str, name: str) -> Array:
    if kind == "l2":
        return difference * difference
    if kind == "l1":
        return jnp.abs(difference)
    raise UserError(f"{name} kind: found {kind!r}, expected 'l1' or 'l2'")


def _blur(x: Array) -> Array:
    """Gaussian window means of [...,H,W] where the window fits: [...,H-10,W-10].

    A product with a banded matrix along each axis: on CPUs a tenth of the time of shifted sums and a fiftieth of a
    depthwise convolution. The variances are differences of near numbers, hence the full float32 precision.
    """
    rows, columns = _band(x.shape[-2]), _band(x.shape[-1])
    x = jnp.einsum("oh,...hw->...ow", rows, x, precision=lax.Precision.HIGHEST)
    return jnp.einsum("...hw,ow->...ho", x, columns, precision=lax.Precision.HIGHEST)


def _band(size: int) -> np.ndarray:
    """[size-10,size] float32: row i holds the normalized window at columns i..i+10."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    band = np.zeros((size - _WINDOW + 1, size), np.float32)
    for i in range(band.shape[0]):
        band[i, i : i + _WINDOW] = window / window.sum()
    return band
