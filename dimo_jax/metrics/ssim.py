"""Structural similarity."""

from __future__ import annotations

import jax

from dimo_jax.core.types import Array
from dimo_jax.losses import photometric


@jax.jit
def ssim(pred: Array, truth: Array) -> Array:
    """Mean SSIM of each image (Wang et al. 2004; 11x11 Gaussian window of sigma 1.5, data range 1).

    The values are those of scikit-image's structural_similarity with gaussian_weights, sigma 1.5 and population
    covariance.

    Args:
      pred: [...,H,W,C] in 0..1.
      truth: [...,H,W,C] in 0..1.

    Returns:
      [...] in -1..1, 1 for equal images.

    Raises:
      UserError: an image side under 11 pixels.
    """
    return photometric.ssim(pred, truth)
