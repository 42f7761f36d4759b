"""Gradients as one row per Gaussian-tile pair: from moments to cotangents, and the sum of each Gaussian's rows."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax

from dimo_jax.core.types import Array, Splats


def center_moments(attributes: Array, moments: Array) -> Array:
    """Moments [...,6] about a Gaussian's mean from those about another point.

    Args:
      attributes: [...,2 or more] mean (2), relative to that point.
      moments: [...,6] sums of d_log_alpha x (1, x, y, x^2, xy, y^2), x and y relative to that point.
    """
    x, y = attributes[..., 0], attributes[..., 1]
    m0, mx, my, mxx, mxy, myy = (moments[..., k] for k in range(6))
    dx, dy = mx - x * m0, my - y * m0
    return jnp.stack([m0, dx, dy, mxx - x * (mx + dx), mxy - x * my - y * dx, myy - y * (my + dy)], axis=-1)


def differentiate_shape(attributes: Array, moments: Array) -> Array:
    """Cotangents [...,6] of mean, conic and opacity from the moments of d_log_alpha over the tile's pixels.

    Args:
      attributes: [...,6 or more] mean (2), conic (3), opacity.
      moments: [...,6 or more] sums over the tile's pixels of d_log_alpha x (1, dx, dy, dx^2, dx dy, dy^2), dx and dy
        from the Gaussian's mean to the pixel.
    """
    a, b, c, opacity = (attributes[..., k] for k in range(2, 6))
    m0, dx, dy, dxx, dxy, dyy = (moments[..., k] for k in range(6))
    d_opacity = m0 / jnp.where(opacity > 0, opacity, 1.0)
    return jnp.stack([a * dx + b * dy, b * dx + c * dy, -0.5 * dxx, -dxy, -0.5 * dyy, d_opacity], axis=-1)


def gather_cotangents(rows: Array, ids: Array, splats: Splats) -> Splats:
    """Cotangent of the splats [I,N] of all images from rows [S,13] and their rows of the table, ids [S] in 0..I*N.

    Rows with the id I*N belong to no Gaussian. `depths` and `extents` carry no gradient.
    """
    num_images, num = splats.depths.shape
    d_table = sum_rows(rows, ids, num_images * num + 1)[:-1].reshape(num_images, num, rows.shape[1])
    return Splats(
        means2d=d_table[..., 0:2],
        conics=d_table[..., 2:5],
        opacities=d_table[..., 5],
        depths=jnp.zeros_like(splats.depths),
        extents=jnp.zeros_like(splats.extents),
        features=d_table[..., 6:],
    )


def sum_rows(rows: Array, ids: Array, num: int) -> Array:
    """Sums rows [S,C] by ids [S] in 0..num-1, in a fixed order on every device: [num,C].

    A TPU has no atomics, and its compiler takes minutes for the scan (docs/hardware.md).
    """
    scatter = functools.partial(scatter_rows, num=num)
    return lax.platform_dependent(rows, ids, cpu=scatter, tpu=scatter, default=functools.partial(scan_rows, num=num))


def scatter_rows(rows: Array, ids: Array, *, num: int) -> Array:
    """`sum_rows` for devices that scatter in order."""
    return jnp.zeros((num, rows.shape[1]), rows.dtype).at[ids].add(rows)


def scan_rows(rows: Array, ids: Array, *, num: int) -> Array:
    """`sum_rows` for devices that scatter with atomics, in an order that differs from run to run."""
    order = jnp.argsort(ids, stable=True)
    ids, rows = ids[order], rows[order]

    def combine(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return b[0], jnp.where((a[0] == b[0])[:, None], a[1] + b[1], b[1])

    _, sums = lax.associative_scan(combine, (ids, rows))
    is_last = jnp.append(ids[1:] != ids[:-1], True)
    return jnp.zeros((num, rows.shape[1]), rows.dtype).at[jnp.where(is_last, ids, num)].set(sums, mode="drop")
