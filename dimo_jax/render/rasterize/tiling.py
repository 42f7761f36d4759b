"""What the backends that are written in JAX share: constants of the contract, and images cut into tiles."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array, Splats
from dimo_jax.render import tiles

MAX_ALPHA = 0.99
MIN_TRANSMITTANCE = 1e-4  # a pixel stops before it would fall under this
NUM_FEATURES = 7
NUM_ATTRIBUTES = 6 + NUM_FEATURES


def choose_capacity(splats: Splats, *, height: int, width: int, tile: int) -> int:
    """The room for Gaussian-tile pairs that `capacity=None` stands for.

    The number of pairs with headroom where the splats are concrete, `tiles.default_capacity` under tracing.
    """
    rows, columns = tiles.count_tiles(height, width, tile=tile)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(splats)):
        return tiles.default_capacity(splats.depths.shape[0], rows * columns)
    return tiles.round_capacity(int(tiles.count_pairs(splats, height=height, width=width, tile=tile)))


def make_table(splats: Splats) -> Array:
    """Attributes of the Gaussians of all images, [I*N+1,13]: mean (2), conic (3), opacity, features (7).

    Args:
      splats: with a leading axis I of images.

    Returns:
      A row per Gaussian, and a last one of zeros that draws nothing.
    """
    columns = [splats.means2d, splats.conics, splats.opacities[..., None], splats.features]
    table = jnp.concatenate(columns, axis=-1).reshape(-1, NUM_ATTRIBUTES)
    return jnp.append(table, jnp.zeros((1, NUM_ATTRIBUTES), jnp.float32), axis=0)


def split_tiles(images: Array, *, tile: int) -> Array:
    """Images [I,H,W,C] -> tiles, row-major, and their pixels, row-major: [I*tiles,C,tile^2], zero beyond the image."""
    num_images, height, width, channels = images.shape
    rows, columns = tiles.count_tiles(height, width, tile=tile)
    images = jnp.pad(images, ((0, 0), (0, rows * tile - height), (0, columns * tile - width), (0, 0)))
    images = images.reshape(num_images, rows, tile, columns, tile, channels).transpose(0, 1, 3, 5, 2, 4)
    return images.reshape(-1, channels, tile * tile)


def join_tiles(tiled: Array, *, height: int, width: int, tile: int) -> Array:
    """The inverse of `split_tiles`: [I*tiles,C,tile^2] -> [I,H,W,C]."""
    rows, columns = tiles.count_tiles(height, width, tile=tile)
    channels = tiled.shape[1]
    images = tiled.reshape(-1, rows, columns, channels, tile, tile).transpose(0, 1, 4, 2, 5, 3)
    return images.reshape(-1, rows * tile, columns * tile, channels)[:, :height, :width]
