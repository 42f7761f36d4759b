"""Smoothness of rendered depth and normals inside the object (paper Eq. 8).

The paper names "edge-aware depth smoothness" and "bilateral normal smoothness" without formulas; the forms below are
the usual ones, written out in each docstring. Both average over one image and keep the leading axes.
"""

from __future__ import annotations

import math

import chex
import jax.numpy as jnp
from jax import lax

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.geometry.safe import safe_divide, safe_norm

# Mean normals shorter than this have no direction worth a name; dividing by no less bounds the gradient.
_SHORTEST_NORMAL = 0.05


def depth_smoothness(
    depth: Array, alpha: Array, image: Array, *, edge_strength: float = 1.0, min_alpha: float = 0.5
) -> Array:
    """Edge-aware smoothness of the rendered depth (Godard et al., "Unsupervised Monocular Depth Estimation", Eq. 5).

    With D = depth / alpha and I the image, over horizontal and vertical neighbours p, q both inside the object:
        1/(H W) sum_pq |D_p - D_q| exp(-edge_strength * mean_c |I_p - I_q|)
    Inside means alpha > min_alpha. The choice of pixels and the image carry no gradient; depth and alpha do, through D.

    Args:
      depth: [...,H,W] sum of weight x camera z, world units.
      alpha: [...,H,W] in 0..1.
      image: [...,H,W,3] in 0..1, the true image, whose edges the depth may follow.
      edge_strength: >= 0; 0 ignores the image.
      min_alpha: > 0, see above.

    Returns:
      [...] world units; 0 where no pixel lies inside.

    Raises:
      UserError: min_alpha not above 0 or edge_strength negative.
    """
    chex.assert_equal_shape([depth, alpha, image[..., 0]])
    if edge_strength < 0:
        raise UserError(f"depth_smoothness edge_strength: found {edge_strength}, expected >= 0")
    inside, mean_depth = _divide_inside(depth[..., None], alpha, min_alpha, "depth_smoothness")
    image = lax.stop_gradient(image)
    total = jnp.zeros(depth.shape[:-2], depth.dtype)
    for offset in ((0, 1), (1, 0)):
        edge = jnp.mean(jnp.abs(_subtract(image, offset)), axis=-1)
        change = jnp.abs(_subtract(mean_depth, offset))[..., 0]
        weight = jnp.exp(-edge_strength * edge) * _both(inside, offset)
        total += jnp.sum(weight * change, axis=(-2, -1))
    return total / math.prod(depth.shape[-2:])


def normal_smoothness(
    normal: Array,
    alpha: Array,
    guide: Array,
    *,
    radius: int = 1,
    guide_sigma: float = 0.1,
    min_alpha: float = 0.5,
) -> Array:
    """Bilateral smoothness of the rendered normals.

    With n the unit vector of normal / alpha and g the guide, over the offsets o of a half window (every unordered pair
    of pixels once) and pixels p, q = p + o that both lie inside the object (alpha > min_alpha):
        sum_o s_o 1/(H W) sum_p exp(-|g_p - g_q|^2 / 2 guide_sigma^2) |n_p - n_q|^2,
        s_o = exp(-|o|^2 / 2 radius^2), scaled to sum to 1
    as in a bilateral filter (Tomasi and Manduchi, 1998). The choice of pixels and the guide carry no gradient. A mean
    normal shorter than 0.05 is divided by 0.05 instead of its length, which bounds the gradient where normals cancel.

    Args:
      normal: [...,H,W,3] sum of weight x unit normal.
      alpha: [...,H,W] in 0..1.
      guide: [...,H,W,C], edges that normals may follow: the true image, or the depth as one channel.
      radius: of the window in pixels, >= 1; 1 means the eight neighbours.
      guide_sigma: > 0, in units of the guide: the difference at which a pair counts exp(-1/2).
      min_alpha: > 0, see above.

    Returns:
      [...] in 0..4; 0 where no pixel lies inside.

    Raises:
      UserError: an option out of its range.
    """
    chex.assert_equal_shape([normal[..., 0], alpha, guide[..., 0]])
    if radius < 1 or guide_sigma <= 0:
        found = f"found radius={radius}, guide_sigma={guide_sigma}"
        raise UserError(f"normal_smoothness: {found}, expected radius >= 1 and guide_sigma > 0")
    inside, mean_normal = _divide_inside(normal, alpha, min_alpha, "normal_smoothness")
    length = safe_norm(mean_normal, axis=-1, keepdims=True)
    unit = mean_normal / jnp.maximum(length, _SHORTEST_NORMAL)
    guide = lax.stop_gradient(guide)
    offsets = [(y, x) for y in range(radius + 1) for x in range(-radius, radius + 1) if y > 0 or x > 0]
    spatial = [math.exp(-(y * y + x * x) / (2.0 * radius**2)) for y, x in offsets]
    total = jnp.zeros(alpha.shape[:-2], alpha.dtype)
    for offset, share in zip(offsets, spatial, strict=True):
        distance = jnp.sum(_subtract(guide, offset) ** 2, axis=-1)
        weight = jnp.exp(-distance / (2.0 * guide_sigma**2)) * _both(inside, offset)
        change = jnp.sum(_subtract(unit, offset) ** 2, axis=-1)
        total += share / sum(spatial) * jnp.sum(weight * change, axis=(-2, -1))
    return total / math.prod(alpha.shape[-2:])


def _divide_inside(x: Array, alpha: Array, min_alpha: float, name: str) -> tuple[Array, Array]:
    """Where alpha exceeds min_alpha [...,H,W], and x / alpha there, 0 elsewhere [...,H,W,C]."""
    if min_alpha <= 0:
        raise UserError(f"{name} min_alpha: found {min_alpha}, expected a number above 0")
    inside = lax.stop_gradient(alpha) > min_alpha
    return inside, safe_divide(x, jnp.where(inside, alpha, 0.0)[..., None])


def _split(x: Array, offset: tuple[int, int]) -> tuple[Array, Array]:
    """[...,H,W,C] at every p that has a neighbour p + offset (y >= 0), and at that neighbour."""
    y, x_offset = offset
    height, width = x.shape[-3:-1]
    left, right = max(0, -x_offset), max(0, x_offset)
    first = x[..., : max(height - y, 0), left : max(width - right, left), :]
    second = x[..., y:, right : max(width - left, right), :]
    return first, second


def _subtract(x: Array, offset: tuple[int, int]) -> Array:
    first, second = _split(x, offset)
    return first - second


def _both(inside: Array, offset: tuple[int, int]) -> Array:
    first, second = _split(inside[..., None], offset)
    return (first & second)[..., 0]
