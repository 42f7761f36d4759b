"""Compositing in plain XLA operations: runs on every device, and is the readable reference of the contract.

Tiles of all images form one list, sorted by length and cut into groups. A group walks its tiles' Gaussians front to
back, a block of them at a time, until the lists end or every pixel has stopped. The backward pass walks the same way,
recomputing what the forward pass knew, writes one row per Gaussian-tile pair, and sums the rows of each Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from dimo_jax.core.types import Array, Splats
from dimo_jax.render import tiles
from dimo_jax.render.project import MIN_ALPHA
from dimo_jax.render.rasterize.rows import center_moments, differentiate_shape, gather_cotangents
from dimo_jax.render.rasterize.tiling import (
    MAX_ALPHA,
    MIN_TRANSMITTANCE,
    NUM_ATTRIBUTES,
    NUM_FEATURES,
    choose_capacity,
    join_tiles,
    make_table,
    split_tiles,
)
from dimo_jax.render.rasterize.vjp import Outputs, Plan, differentiate
from dimo_jax.runtime.platforms import current_platform

# Smaller tiles than the other backends': a CPU computes every pixel of a tile that a Gaussian reaches, and at 8 pixels
# half as many of them are in vain as at 16.
TILE = 8
BLOCK = 32  # Gaussians per step of a tile
# Tiles that walk together: on a CPU so few that a step's arrays of BLOCK x GROUP x TILE^2 floats, 128 KiB each, stay in
# its cache together (64 tiles take a fifth longer); elsewhere enough of them to fill the device.
GROUP = 16
GROUP_ELSEWHERE = 64
PIXELS = TILE * TILE

State = TypeVar("State")


def why_unavailable() -> str | None:
    """None: this backend runs everywhere."""
    return None


def tile_size() -> int:
    """Pixels on a side of the tiles that a capacity counts in."""
    return TILE


def rasterize(splats: Splats, *, height: int, width: int, capacity: int | None = None) -> Outputs:
    """Composites splats front to back into one image; see `dimo_jax.core.types.Rasterize`.

    Args:
      splats: N projected Gaussians; N may be 0.
      height, width: image size in pixels.
      capacity: room for pairs of a Gaussian and a tile of `TILE` pixels. None counts them where the splats are
        concrete, and takes `tiles.default_capacity` under tracing.

    Returns:
      features [H,W,7], transmittance [H,W], overflow [] int32 (pairs of the farthest Gaussians that found no room).
    """
    if capacity is None:
        capacity = choose_capacity(splats, height=height, width=width, tile=TILE)
    return _composite(splats, Plan(height=height, width=width, capacity=max(capacity, 1)))


class _Residuals(NamedTuple):
    ids: Array  # [I,capacity]
    starts: Array  # [I,tiles+1]


class _Work(NamedTuple):
    """The tiles of all images as one list."""

    table: Array  # [I*N+1,13] mean (2), conic (3), opacity, features (7); the last row draws nothing
    ids: Array  # [I*capacity] row of the table
    groups: Array  # [groups,GROUP] tile, longest first; filled up with the empty tile I*tiles
    first: Array  # [I*tiles+1] where a tile's pairs start in `ids`
    last: Array  # [I*tiles+1] and where they end
    centers: Array  # [I*tiles+1,2] pixels
    transmittance: Array  # [I*tiles+1,PIXELS] at the start: 1, or -1 outside the image


class _Block(NamedTuple):
    """A block of Gaussians over a group of tiles: b in BLOCK, g in GROUP, p in PIXELS."""

    position: Array  # [b,g] in `_Work.ids`; out of range for slots past the tile's end
    attributes: Array  # [b,g,13], means relative to the tile's centre
    alpha: Array  # [b,g,p]
    clamped: Array  # [b,g,p] bool


def _forward(splats: Splats, plan: Plan) -> tuple[Outputs, _Residuals]:
    bins = jax.vmap(
        lambda s: tiles.bin_splats(s, height=plan.height, width=plan.width, tile=TILE, capacity=plan.capacity)
    )(splats)
    residuals = _Residuals(bins.ids, bins.starts)
    return (*_draw(splats, residuals, plan), bins.overflow), residuals


def _draw(splats: Splats, residuals: _Residuals, plan: Plan) -> tuple[Array, Array]:
    """Features [I,H,W,7] and transmittance [I,H,W] of images whose tiles' lists are known."""
    work = _list_work(splats, residuals, plan)

    def composite_group(group: Array) -> tuple[Array, Array]:
        def step(block: _Block, transmittance: Array, features: Array) -> tuple[Array, Array]:
            transmittance, weights = _attenuate(block.alpha, transmittance)
            colors = block.attributes[..., 6:]
            return transmittance, features + jnp.einsum("bgp,bgf->gfp", weights, colors, precision="highest")

        return _walk(work, group, jnp.zeros((group.shape[0], NUM_FEATURES, PIXELS), jnp.float32), step)

    transmittance, features = lax.map(composite_group, work.groups)
    size = dict(height=plan.height, width=plan.width, tile=TILE)
    transmittance = join_tiles(_ungroup(jnp.abs(transmittance)[:, :, None], work), **size)[..., 0]
    return join_tiles(_ungroup(features, work), **size), transmittance


def _push(splats: Splats, residuals: _Residuals, tangents: Splats, plan: Plan) -> tuple[Array, Array]:
    # What is drawn where, and in which order, carries no derivative.
    still = dict(depths=jnp.zeros_like(splats.depths), extents=jnp.zeros_like(splats.extents))
    return jax.jvp(lambda s: _draw(s, residuals, plan), (splats,), (tangents.replace(**still),))[1]


def _backward(
    splats: Splats,
    residuals: _Residuals,
    outputs: tuple[Array, Array],
    cotangents: tuple[Array, Array],
    plan: Plan,
) -> Splats:
    work = _list_work(splats, residuals, plan)
    d_features = split_tiles(cotangents[0], tile=TILE)
    # Of each pixel, what all Gaussians and the background behind them contribute to the scalar being differentiated.
    totals = jnp.sum(outputs[0] * cotangents[0], axis=-1) + outputs[1] * cotangents[1]
    totals = split_tiles(totals[..., None], tile=TILE)[:, 0]
    basis = _make_basis()
    triangle = jnp.tril(jnp.ones((BLOCK, BLOCK), jnp.float32))

    def differentiate_group(rows: Array, group: Array) -> tuple[Array, None]:
        d_colors = d_features.at[group].get(mode="clip")  # a group may be filled up with the empty tile

        def step(block: _Block, transmittance: Array, state: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            remaining, rows = state
            colors = block.attributes[..., 6:]
            gains = sum(colors[..., f, None] * d_colors[:, f] for f in range(NUM_FEATURES))
            transmittance, weights = _attenuate(block.alpha, transmittance)
            parts = weights * gains
            passed = jnp.einsum("ab,bgp->agp", triangle, parts, precision="highest")
            # Less of a Gaussian's own part, what is behind it scales with 1 - alpha.
            d_power = parts - (remaining - passed) * block.alpha / (1.0 - block.alpha)
            d_power = jnp.where((weights > 0) & ~block.clamped, d_power, 0.0)
            remaining = remaining - passed[-1]
            moments = jnp.einsum("bgp,mp->bgm", d_power, basis, precision="highest")
            d_block = jnp.einsum("bgp,gfp->bgf", weights, d_colors, precision="highest")
            d_shape = differentiate_shape(block.attributes, center_moments(block.attributes, moments))
            values = jnp.concatenate([d_shape, d_block], axis=-1)
            return transmittance, (remaining, rows.at[block.position].set(values, mode="drop", unique_indices=True))

        _, (_, rows) = _walk(work, group, (totals.at[group].get(mode="clip"), rows), step)
        return rows, None

    rows = jnp.zeros((work.ids.shape[0], NUM_ATTRIBUTES), jnp.float32)
    rows, _ = lax.scan(differentiate_group, rows, work.groups)
    return gather_cotangents(rows, work.ids, splats)


# Compiled as one program where the caller does not compile.
_composite = jax.jit(differentiate(_forward, _backward, _push), static_argnums=1)


def _list_work(splats: Splats, residuals: _Residuals, plan: Plan) -> _Work:
    num_images, num = splats.depths.shape
    offsets = lax.iota(jnp.int32, num_images)[:, None]
    ids = jnp.where(residuals.ids < num, residuals.ids + offsets * num, num_images * num).reshape(-1)
    first = jnp.append((residuals.starts[:, :-1] + offsets * plan.capacity).reshape(-1), 0)
    last = jnp.append((residuals.starts[:, 1:] + offsets * plan.capacity).reshape(-1), 0)

    num_rows, num_columns = tiles.count_tiles(plan.height, plan.width, tile=TILE)
    num_tiles = num_images * num_rows * num_columns
    order = jnp.argsort(first[:-1] - last[:-1], stable=True).astype(jnp.int32)
    size = GROUP if current_platform() == "cpu" else GROUP_ELSEWHERE
    groups = jnp.pad(order, (0, -num_tiles % size), constant_values=num_tiles).reshape(-1, size)
    tile_id = lax.iota(jnp.int32, num_tiles + 1) % (num_rows * num_columns)
    centers = jnp.stack([tile_id % num_columns, tile_id // num_columns], axis=-1) * TILE + TILE / 2
    inside = jnp.ones((num_images, plan.height, plan.width, 1), jnp.float32)
    inside = jnp.append(split_tiles(inside, tile=TILE)[:, 0], jnp.zeros((1, PIXELS)), axis=0)
    return _Work(
        table=make_table(splats),
        ids=ids,
        groups=groups,
        first=first,
        last=last,
        centers=centers.astype(jnp.float32),
        transmittance=2 * inside - 1,
    )


def _walk(
    work: _Work, group: Array, state: State, step: Callable[[_Block, Array, State], tuple[Array, State]]
) -> tuple[Array, State]:
    """Takes `step` over the blocks of a group of tiles, front to back, while a pixel is left to draw on."""
    first, last, centers = work.first[group], work.last[group], work.centers[group]
    num_blocks = jnp.max(-(-(last - first) // BLOCK))

    def is_open(carry: tuple[Array, Array, State]) -> Array:
        return (carry[0] < num_blocks) & jnp.any(carry[1] > 0)

    def advance(carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
        index, transmittance, state = carry
        block = _load_block(work, first + index * BLOCK, last, centers)
        return index + 1, *step(block, transmittance, state)

    _, transmittance, state = lax.while_loop(is_open, advance, (jnp.int32(0), work.transmittance[group], state))
    return transmittance, state


def _load_block(work: _Work, start: Array, last: Array, centers: Array) -> _Block:
    position = start + lax.iota(jnp.int32, BLOCK)[:, None]
    valid = position < last
    ids = jnp.where(valid, work.ids.at[position].get(mode="clip"), work.table.shape[0] - 1)
    attributes = work.table[ids]
    # Relative to the tile's centre numbers stay small, so squares lose no digits.
    attributes = attributes.at[..., :2].add(-centers)
    x, y, a, b, c, opacity = (attributes[..., k, None] for k in range(6))
    pixel_x, pixel_y = _locate_pixels()
    dx, dy = pixel_x - x, pixel_y - y
    alpha = opacity * jnp.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = jnp.where(alpha >= MIN_ALPHA, alpha, 0.0)
    clamped = alpha > MAX_ALPHA
    return _Block(
        position=jnp.where(valid, position, work.ids.shape[0]),
        attributes=attributes,
        alpha=jnp.minimum(alpha, MAX_ALPHA),
        clamped=clamped,
    )


def _attenuate(alpha: Array, transmittance: Array) -> tuple[Array, Array]:
    """Transmittance [g,p] after a block, and the weights [b,g,p] in it; a weight is 0 where nothing is drawn.

    A pixel that has stopped keeps its transmittance as a negative number.
    """

    def draw(transmittance: Array, alpha: Array) -> tuple[Array, Array]:
        after = transmittance * (1.0 - alpha)
        drawn = after >= MIN_TRANSMITTANCE
        return jnp.where(drawn, after, -jnp.abs(transmittance)), jnp.where(drawn, transmittance * alpha, 0.0)

    return lax.scan(draw, transmittance, alpha)


def _locate_pixels() -> tuple[Array, Array]:
    """Pixel centres [PIXELS] of a tile, relative to its centre."""
    pixel = lax.iota(jnp.int32, PIXELS)
    offset = TILE / 2 - 0.5
    return (pixel % TILE).astype(jnp.float32) - offset, (pixel // TILE).astype(jnp.float32) - offset


def _make_basis() -> Array:
    """The monomials (1, x, y, x^2, xy, y^2) at the pixels of a tile, [6,PIXELS]."""
    x, y = _locate_pixels()
    return jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y])


def _ungroup(grouped: Array, work: _Work) -> Array:
    """[groups,GROUP,C,PIXELS] in the order of `work.groups` -> [I*tiles,C,PIXELS]."""
    num_tiles = work.first.shape[0] - 1
    out = jnp.zeros((num_tiles, *grouped.shape[2:]), grouped.dtype)
    return out.at[work.groups.reshape(-1)].set(
        grouped.reshape(-1, *grouped.shape[2:]), mode="drop", unique_indices=True
    )
