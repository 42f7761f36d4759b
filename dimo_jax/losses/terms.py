"""Adapters from `ImageInputs` to the losses of pictures: one function per term of Eq. 8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.losses import perceptual, photometric, surface
from dimo_jax.losses.total import ImageInputs, Term


def load_networks(terms: Sequence[Term]) -> dict[str, Any]:
    """Weights of the perceptual networks of terms, by the names that `lpips` looks for in `ImageInputs.fixed`.

    Raises:
      UserError: weights that are not installed or not what they should be.
    """
    networks = {term.options.get("network", "vgg") for term in terms if term.name == "lpips"}
    return {f"lpips_{network}": perceptual.load_lpips(network) for network in networks}


def _mean(per_image: Array, novel: Array, novel_weight: float) -> Array:
    """The mean over images, of which novel ones weigh `novel_weight` and the others 1.

    Divided by the number of images, not by the sum of weights: so the mean over equal parts of a batch, dealt out to
    devices or one after the other, is that of the batch, whichever part the reference view fell into.
    """
    return jnp.mean(per_image * jnp.where(novel, novel_weight, 1.0))


def rgb(inputs: ImageInputs, *, kind: str = "l2", novel_weight: float = 1.0) -> Array:
    """L_rgb of Eq. 8: mean squared ("l2", the authors' choice) or absolute ("l1") difference.

    `novel_weight` here and below is that of images which are neither of the reference view nor the first of their
    video (the authors' code: 0.5 in this term).
    """
    per_image = jax.vmap(lambda a, b: photometric.rgb_loss(a, b, kind=kind))(inputs.rgb, inputs.true_rgb)
    return _mean(per_image, inputs.novel, novel_weight)


def mask(inputs: ImageInputs, *, novel_weight: float = 1.0) -> Array:
    """L_mask of Eq. 8: mean squared difference of alpha."""
    per_image = jax.vmap(photometric.mask_loss)(inputs.alpha, inputs.true_alpha)
    return _mean(per_image, inputs.novel, novel_weight)


def ssim(inputs: ImageInputs, *, novel_weight: float = 1.0) -> Array:
    """1 - SSIM (a term of the authors' code)."""
    per_image = jax.vmap(photometric.ssim_loss)(inputs.rgb, inputs.true_rgb)
    return _mean(per_image, inputs.novel, novel_weight)


def lpips(
    inputs: ImageInputs,
    *,
    network: str = "vgg",
    num_images: int | None = None,
    dtype: str = "float32",
    novel_weight: float = 1.0,
) -> Array:
    """L_lpips of Eq. 8, over `num_images` images of the batch, of each of its parts if it has some (default: all)."""
    count = inputs.rgb.shape[0] if num_images is None else min(num_images, inputs.rgb.shape[0])
    stride = inputs.rgb.shape[0] // count
    chosen = slice(0, stride * count, stride)
    per_image = perceptual.lpips(
        inputs.fixed[f"lpips_{network}"],
        inputs.rgb[chosen],
        inputs.true_rgb[chosen],
        network=network,
        dtype=jnp.dtype(dtype),
    )
    return _mean(per_image, inputs.novel[chosen], novel_weight)


def depth(inputs: ImageInputs) -> Array:
    """L_depth of Eq. 8: edge-aware smoothness of depth."""
    return jnp.mean(jax.vmap(surface.depth_smoothness)(inputs.depth, inputs.alpha, inputs.true_rgb))


def normal(inputs: ImageInputs) -> Array:
    """L_normal of Eq. 8: bilateral smoothness of normals."""
    return jnp.mean(jax.vmap(surface.normal_smoothness)(inputs.normal, inputs.alpha, inputs.true_rgb))


def opacity(inputs: ImageInputs) -> Array:
    """Mean opacity of the Gaussians in use (our addition).

    At a small weight it moves only what no camera sees, such as Gaussians inside the body, whose photometric gradient
    is zero: they fade and are pruned, and what is left lies on the surface.
    """
    return jnp.sum(inputs.opacities) / jnp.maximum(jnp.sum(inputs.opacities > 0), 1)
