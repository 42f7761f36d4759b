"""Fuzzy metaballs: Gaussians drawn without an order, the renderer of ATOP (Keselman and Hebert, ECCV 2022).

A ray meets a Gaussian where that is densest. What hides what is not asked: alpha grows with the sum of all densities,
and a pixel shows the mean of all features, by weights that fall with depth and with the distance from the Gaussian. So
pictures are soft and defined everywhere, and every Gaussian near a pixel has a say in it, even a hidden one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from dimo_jax.core.types import Array, Splats
from dimo_jax.render import tiles
from dimo_jax.render.rasterize.tiling import join_tiles, make_table

NEARER = 21.4  # beta 1 (ATOP, Sec. 4.4.3): how fast weights fall with depth, in sizes of the object
DENSER = 2.66  # beta 2: the power of the density in them
TILE = 8
MOST = 512  # Gaussians a tile, the nearest ones: farther ones weigh next to nothing
GROUP = 32  # tiles that are computed together


def blend(splats: Splats, *, height: int, width: int, size: float | Array) -> tuple[Array, Array]:
    """Draws splats as fuzzy metaballs.

    Args:
      splats: N projected Gaussians; `opacities` scale their densities.
      height, width: image size in pixels.
      size: of the object, in the unit of `depths`.

    Returns:
      features [H,W,7], alpha times the weighted mean; transmittance [H,W] in 0..1. Differentiable in everything but
      `depths` and `extents`, and in them only where no tile has more than `MOST` Gaussians.
    """
    num, (rows, columns) = splats.depths.shape[0], tiles.count_tiles(height, width, tile=TILE)
    room = tiles.default_capacity(num, rows * columns)
    bins = tiles.bin_splats(splats, height=height, width=width, tile=TILE, capacity=room)
    table = make_table(jax.tree.map(lambda leaf: leaf[None], splats))
    drawn = splats.opacities > 0
    depths = lax.stop_gradient(splats.depths)
    nearest = jnp.min(jnp.where(drawn, depths, jnp.inf), initial=jnp.inf)
    behind = jnp.append(jnp.where(drawn, depths - nearest, 0.0) / size, 0.0)
    corners = jnp.stack(jnp.divmod(jnp.arange(rows * columns), columns), axis=-1)[:, ::-1] * TILE
    inside = jnp.stack(jnp.divmod(jnp.arange(TILE * TILE), TILE), axis=-1)[:, ::-1] + 0.5
    most = min(MOST, num)

    def draw_tile(number: Array) -> Array:
        place = bins.starts[number] + jnp.arange(most)
        there = place < bins.starts[number + 1]
        ids = jnp.where(there, bins.ids.at[place].get(mode="clip"), num)
        each = table[ids]
        x, y = (corners[number] + inside).T[:, :, None] - each[:, :2].T[:, None]  # [pixels,most]
        a, b, c = each[:, 2:5].T
        exponent = -0.5 * (a * x**2 + c * y**2) - b * x * y + jnp.log(jnp.maximum(each[:, 5], 1e-9))
        exponent = jnp.where(ids < num, exponent, -jnp.inf)
        clear = jnp.exp(-jnp.exp(exponent).sum(axis=1))
        chosen = jax.nn.softmax(jnp.maximum(DENSER * exponent - NEARER * behind[ids], -1e4), axis=1)
        mean = jnp.matmul(chosen, each[:, 6:], precision="highest")
        return jnp.concatenate([(1 - clear)[:, None] * mean, clear[:, None]], axis=1).T

    drawing = lax.map(draw_tile, jnp.arange(rows * columns), batch_size=GROUP)
    image = join_tiles(drawing, height=height, width=width, tile=TILE)[0]
    return image[..., :-1], image[..., -1]
