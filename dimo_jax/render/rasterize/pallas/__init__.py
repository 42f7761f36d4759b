"""Compositing on GPUs and TPUs by kernels of Pallas; RGB, depth, normal and transmittance in one pass.

The pairs of every tile are laid out in blocks, so that each kernel reads and writes whole aligned blocks that belong to
its tile alone: work follows the real lists, nothing is masked, nothing is atomic. See `kernels` for what runs per tile
and docs/decisions.md for the choice of compiler.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dimo_jax.core.types import Array, Splats
from dimo_jax.render import tiles
from dimo_jax.render.rasterize.pallas import kernels
from dimo_jax.render.rasterize.pallas.plan import ROW, KernelPlan, choose_plan
from dimo_jax.render.rasterize.rows import differentiate_shape, gather_cotangents
from dimo_jax.render.rasterize.tiling import (
    NUM_ATTRIBUTES,
    NUM_FEATURES,
    choose_capacity,
    join_tiles,
    make_table,
    split_tiles,
)
from dimo_jax.render.rasterize.vjp import Outputs, Plan, differentiate
from dimo_jax.runtime.platforms import current_platform


def why_unavailable() -> str | None:
    """None on GPUs and TPUs, and on CPUs, where kernels are interpreted: slow, for tests; `None` never chooses that.

    Else one sentence that says why not.
    """
    platform = current_platform()
    if platform not in ("cpu", "gpu", "tpu"):
        return f"its kernels compile for GPUs and TPUs, and the default device is a {platform}; use 'xla'"
    return None


def tile_size() -> int:
    """Pixels on a side of the tiles that a capacity counts in."""
    return _choose_plan().tile


def _choose_plan() -> KernelPlan:
    return choose_plan(interpret=current_platform() == "cpu")


def rasterize(
    splats: Splats, *, height: int, width: int, capacity: int | None = None, kernel_plan: KernelPlan | None = None
) -> Outputs:
    """Composites splats front to back into one image; see `dimo_jax.core.types.Rasterize`.

    Args:
      splats: N projected Gaussians; N may be 0.
      height, width: image size in pixels.
      capacity: room for pairs of a Gaussian and a tile of `tile_size()` pixels. None counts them where the splats are
        concrete, and takes `tiles.default_capacity` under tracing.
      kernel_plan: sizes of the kernels. None takes `choose_plan`: compiled on GPUs, interpreted on CPUs.

    Returns:
      features [H,W,7], transmittance [H,W], overflow [] int32 (pairs of the farthest Gaussians that found no room).
    """
    if kernel_plan is None:
        kernel_plan = _choose_plan()
    if capacity is None:
        capacity = choose_capacity(splats, height=height, width=width, tile=kernel_plan.tile)
    return _compile(kernel_plan)(splats, Plan(height=height, width=width, capacity=max(capacity, 1)))


@functools.cache
def _compile(kernel_plan: KernelPlan) -> Callable[[Splats, Plan], Outputs]:
    """The differentiable function of a kernel plan, as one program where the caller does not compile."""
    forward = functools.partial(_forward, kernel_plan=kernel_plan)
    backward = functools.partial(_backward, kernel_plan=kernel_plan)
    return jax.jit(differentiate(forward, backward), static_argnums=1)


class _Residuals(NamedTuple):
    ids: Array  # [I,capacity]
    starts: Array  # [I,tiles+1]


class _Blocks(NamedTuple):
    """The pairs of all images' tiles in blocks of Gaussians that belong to one tile."""

    starts: Array  # [I*tiles+1] int32, tile t owns the blocks starts[t]:starts[t+1]
    ids: Array  # [S] int32 row of `tiling.make_table`, S a multiple of the block's size
    table: Array  # [S,16] those rows, means relative to the tile's centre, filled up with zeros


def _forward(splats: Splats, plan: Plan, *, kernel_plan: KernelPlan) -> tuple[Outputs, _Residuals]:
    tile = kernel_plan.tile
    bins = jax.vmap(
        lambda s: tiles.bin_splats(s, height=plan.height, width=plan.width, tile=tile, capacity=plan.capacity)
    )(splats)
    residuals = _Residuals(bins.ids, bins.starts)
    blocks = _list_blocks(splats, residuals, plan, kernel_plan)
    pixels = kernels.composite(blocks.starts, blocks.table, _measure(plan, tile), kernel_plan)
    pixels = join_tiles(pixels, height=plan.height, width=plan.width, tile=tile)
    return (pixels[..., :NUM_FEATURES], pixels[..., NUM_FEATURES], bins.overflow), residuals


def _backward(
    splats: Splats,
    residuals: _Residuals,
    outputs: tuple[Array, Array],
    cotangents: tuple[Array, Array],
    plan: Plan,
    *,
    kernel_plan: KernelPlan,
) -> Splats:
    blocks = _list_blocks(splats, residuals, plan, kernel_plan)
    # Of each pixel, what all Gaussians and the background behind them contribute to the scalar being differentiated.
    totals = jnp.sum(outputs[0] * cotangents[0], axis=-1) + outputs[1] * cotangents[1]
    d_pixels = split_tiles(jnp.concatenate([cotangents[0], totals[..., None]], axis=-1), tile=kernel_plan.tile)
    image = _measure(plan, kernel_plan.tile)
    rows = kernels.differentiate(blocks.starts, blocks.table, d_pixels, image, kernel_plan)
    rows = jnp.concatenate([differentiate_shape(blocks.table, rows), rows[:, 6:NUM_ATTRIBUTES]], axis=-1)
    # Blocks that no tile owns are not written, and may hold anything.
    num_rows = splats.depths.shape[0] * splats.depths.shape[1]
    rows = jnp.where(blocks.ids[:, None] < num_rows, rows, 0.0)
    return gather_cotangents(rows, blocks.ids, splats)


def _list_blocks(splats: Splats, residuals: _Residuals, plan: Plan, kernel_plan: KernelPlan) -> _Blocks:
    (num_images, num), block = splats.depths.shape, kernel_plan.block
    image = _measure(plan, kernel_plan.tile)
    num_tiles = image.rows * image.columns
    # Every tile fills up its last block.
    num_blocks = num_images * (plan.capacity // block + min(num_tiles, plan.capacity))
    offsets = lax.iota(jnp.int32, num_images)[:, None]
    first = (residuals.starts[:, :-1] + offsets * plan.capacity).reshape(-1)
    counts = (residuals.starts[:, 1:] - residuals.starts[:, :-1]).reshape(-1)
    starts = jnp.append(0, jnp.cumsum((counts + block - 1) // block)).astype(jnp.int32)

    owner = jnp.repeat(lax.iota(jnp.int32, num_images * num_tiles), jnp.diff(starts), total_repeat_length=num_blocks)
    within = (lax.iota(jnp.int32, num_blocks) - starts[owner])[:, None] * block + lax.iota(jnp.int32, block)
    drawn = within < counts[owner][:, None]
    ids = (residuals.ids + offsets * num).reshape(-1)
    ids = jnp.where(drawn, ids.at[first[owner][:, None] + within].get(mode="clip"), num_images * num).reshape(-1)

    number = owner % num_tiles
    centers = jnp.stack([number % image.columns, number // image.columns], axis=-1) * kernel_plan.tile
    centers = jnp.repeat(centers.astype(jnp.float32) + kernel_plan.tile / 2, block, axis=0)
    # Relative to the tile's centre numbers stay small, so squares lose no digits.
    table = jnp.pad(make_table(splats), ((0, 0), (0, ROW - NUM_ATTRIBUTES)))[ids].at[:, :2].add(-centers)
    return _Blocks(starts=starts, ids=ids, table=table)


def _measure(plan: Plan, tile: int) -> kernels.Image:
    rows, columns = tiles.count_tiles(plan.height, plan.width, tile=tile)
    return kernels.Image(height=plan.height, width=plan.width, rows=rows, columns=columns)
