"""The kernels: one program per tile walks the tile's Gaussians front to back, a block of them over all its pixels.

The bodies are written in `jax.numpy` on blocks [B,P] (B Gaussians, P pixels of the tile) and touch memory only through
`ref[...]` reads and writes of whole aligned blocks: no masks, no atomics, no operation of one compiler. What belongs to
a compiler is `_make_compiler_params`. Sizes are powers of two, which Triton asks for.

Inside a block, transmittance before and after each Gaussian is a running sum of log(1 - alpha). A pixel that has
stopped, or that lies outside the image, carries its transmittance as a negative number.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from dimo_jax.core.types import Array
from dimo_jax.render.project import MIN_ALPHA
from dimo_jax.render.rasterize.tiling import MAX_ALPHA, MIN_TRANSMITTANCE, NUM_ATTRIBUTES, NUM_FEATURES

Ref = Any  # Pallas has no public name for what a kernel reads and writes
ROW = 16  # attributes of a Gaussian, and their cotangents, filled up to a power of two
CHANNELS = 8  # of a pixel: the features, then one more number

State = TypeVar("State")
_Features = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """Sizes of the kernels. `choose_plan` is the one place that sets them."""

    tile: int  # pixels on a side
    block: int  # Gaussians per step of a program
    num_warps: int  # of 32 threads, per program
    interpret: bool  # runs the bodies as XLA operations instead of compiling them for a GPU

    @property
    def num_pixels(self) -> int:
        """Pixels of a tile."""
        return self.tile * self.tile


class _Block(NamedTuple):
    """A block of Gaussians over the pixels of a tile."""

    dx: Array  # [B,P] from the mean to the pixel
    dy: Array  # [B,P]
    alpha: Array  # [B,P]
    clamped: Array  # [B,P] bool
    colors: tuple[Array, ...]  # 7 of [B,1]


@dataclasses.dataclass(frozen=True)
class Image:
    """The size of one image, in pixels and in tiles."""

    height: int
    width: int
    rows: int
    columns: int


def choose_plan(*, tile: int = 16, interpret: bool) -> KernelPlan:
    """Tiles of 16 pixels, blocks of 16 Gaussians (the smallest side of a Triton matrix product), a pixel per thread.

    With as many threads as pixels, Triton's layout of a [B,P] block gives a thread all Gaussians of its pixel, so the
    running sums over the block need no exchange between threads. Interpreted, larger blocks mean fewer operations.
    """
    return KernelPlan(tile=tile, block=32 if interpret else 16, num_warps=tile * tile // 32, interpret=interpret)


def composite(starts: Array, table: Array, image: Image, plan: KernelPlan) -> Array:
    """Runs the forward kernel over the tiles of all images.

    Args:
      starts: [T+1] int32, tile t owns the blocks starts[t]:starts[t+1] of the table; T is a multiple of rows x columns.
      table: [S,16] attributes in drawing order (see `tiling.make_table`; filled up with zeros), S a multiple of
        `plan.block`; rows that belong to no Gaussian have an opacity of 0.

    Returns:
      [T,8,P]: 7 features and the transmittance of every pixel; 1 beyond the image.
    """
    num_tiles = starts.shape[0] - 1
    return _call(
        functools.partial(_composite_tile, image=image, plan=plan),
        "rasterize_forward",
        num_tiles,
        plan,
        in_specs=[_whole(), _whole()],
        out_specs=_per_tile(plan),
        out_shape=jax.ShapeDtypeStruct((num_tiles, CHANNELS, plan.num_pixels), jnp.float32),
    )(starts, table)


def differentiate(starts: Array, table: Array, d_pixels: Array, image: Image, plan: KernelPlan) -> Array:
    """Runs the backward kernel over the tiles of all images.

    Args:
      starts, table: as in `composite`.
      d_pixels: [T,8,P] cotangents of the 7 features, then the sum of every output of the pixel times its cotangent.

    Returns:
      [S,16], a row per row of the table: 6 moments of d_log_alpha (see `rows.differentiate_shape`), the cotangents of
      the 7 features, 3 zeros. Rows that no tile owns are not written.
    """
    return _call(
        functools.partial(_differentiate_tile, image=image, plan=plan),
        "rasterize_backward",
        starts.shape[0] - 1,
        plan,
        in_specs=[_whole(), _whole(), _per_tile(plan)],
        out_specs=_whole(),
        out_shape=jax.ShapeDtypeStruct(table.shape, jnp.float32),
    )(starts, table, d_pixels)


def _call(body: Callable[..., None], name: str, num_tiles: int, plan: KernelPlan, **specs: Any) -> Callable[..., Array]:
    params = None if plan.interpret else _make_compiler_params(plan)
    call: Callable[..., Array] = pl.pallas_call(
        body, grid=(num_tiles,), name=name, interpret=plan.interpret, compiler_params=params, **specs
    )
    return call


def _make_compiler_params(plan: KernelPlan) -> Any:
    """Chooses the compiler: the one place that knows which."""
    from jax.experimental.pallas import triton

    # There is nothing to pipeline: whether a step loads at all depends on the one before.
    return triton.CompilerParams(num_warps=plan.num_warps, num_stages=1)


def _whole() -> pl.BlockSpec:
    return pl.BlockSpec(memory_space=pl.ANY)


def _per_tile(plan: KernelPlan) -> pl.BlockSpec:
    return pl.BlockSpec((None, CHANNELS, plan.num_pixels), lambda tile: (tile, 0, 0))


def _composite_tile(starts_ref: Ref, table_ref: Ref, out_ref: Ref, *, image: Image, plan: KernelPlan) -> None:
    """Body of `composite`."""

    def step(index: Array, block: _Block, transmittance: Array, features: _Features) -> tuple[Array, _Features]:
        transmittance, weights = _attenuate(block.alpha, transmittance)
        colors = zip(features, block.colors)
        return transmittance, tuple(feature + jnp.sum(weights * color, axis=0) for feature, color in colors)

    features = (jnp.zeros(plan.num_pixels, jnp.float32),) * NUM_FEATURES
    transmittance, features = _walk(starts_ref, table_ref, features, step, lambda index: None, image=image, plan=plan)
    for channel, values in enumerate((*features, jnp.abs(transmittance))):
        out_ref[channel, :] = values


def _differentiate_tile(
    starts_ref: Ref, table_ref: Ref, d_pixels_ref: Ref, rows_ref: Ref, *, image: Image, plan: KernelPlan
) -> None:
    """Body of `differentiate`."""
    d_colors = tuple(d_pixels_ref[channel, :] for channel in range(NUM_FEATURES))
    row, column = lax.iota(jnp.int32, ROW)[:, None], lax.iota(jnp.int32, ROW)[None, :]
    d_features = jnp.zeros((ROW, plan.num_pixels), jnp.float32)
    for k, d_color in enumerate(d_colors):
        d_features = jnp.where(row == NUM_ATTRIBUTES - NUM_FEATURES + k, d_color, d_features)

    def step(index: Array, block: _Block, transmittance: Array, remaining: Array) -> tuple[Array, Array]:
        gains = sum(color * d_color for color, d_color in zip(block.colors, d_colors))
        transmittance, weights = _attenuate(block.alpha, transmittance)
        parts = weights * gains
        behind = remaining - jnp.cumsum(parts, axis=0)
        # Less of a Gaussian's own part, what is behind it scales with 1 - alpha.
        d_power = parts - behind * block.alpha / (1.0 - block.alpha)
        d_power = jnp.where((weights > 0) & ~block.clamped, d_power, 0.0)
        rows = _sum_products(weights, d_features)
        # About the mean itself: moments about the tile's centre, one more product, would lose two digits of a Gaussian
        # as small as a pixel.
        d_x, d_y = d_power * block.dx, d_power * block.dy
        for k, terms in enumerate((d_power, d_x, d_y, d_x * block.dx, d_x * block.dy, d_y * block.dy)):
            rows = jnp.where(column == k, jnp.sum(terms, axis=1)[:, None], rows)
        rows_ref[_slice_block(index, plan), :] = rows
        return transmittance, remaining - jnp.sum(parts, axis=0)

    def skip(index: Array) -> None:
        rows_ref[_slice_block(index, plan), :] = jnp.zeros((plan.block, ROW), jnp.float32)

    # What all Gaussians and the background behind them contribute to the scalar being differentiated.
    remaining = d_pixels_ref[NUM_FEATURES, :]
    _walk(starts_ref, table_ref, remaining, step, skip, image=image, plan=plan)


def _walk(
    starts_ref: Ref,
    table_ref: Ref,
    state: State,
    step: Callable[[Array, _Block, Array, State], tuple[Array, State]],
    skip: Callable[[Array], None],
    *,
    image: Image,
    plan: KernelPlan,
) -> tuple[Array, State]:
    """Takes `step` over the blocks of the program's tile, front to back, while a pixel is left to draw on, then `skip`.

    Returns the transmittance and the state.
    """
    tile = pl.program_id(0)
    x, y = _locate_pixels(plan)

    def visit(index: Array, carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
        def draw(carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
            _, transmittance, state = carry
            block = _load_block(table_ref, _slice_block(index, plan), x, y)
            transmittance, state = step(index, block, transmittance, state)
            return jnp.max(transmittance), transmittance, state

        def pass_by(carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
            skip(index)
            return carry

        # Not a while loop that ends here: Triton's compiler crashes on those whose results are not all used (see
        # docs/decisions.md), and the rest of the list costs no more than the count.
        return lax.cond(carry[0] > 0, draw, pass_by, carry)

    transmittance = jnp.where(_find_inside(tile, x, y, image=image, plan=plan), 1.0, -1.0)
    start = (jnp.max(transmittance), transmittance, state)
    _, transmittance, state = lax.fori_loop(starts_ref[tile], starts_ref[tile + 1], visit, start)
    return transmittance, state


def _load_block(table_ref: Ref, where: Any, x: Array, y: Array) -> _Block:
    mean_x, mean_y, a, b, c, opacity, *colors = (table_ref[where, k][:, None] for k in range(NUM_ATTRIBUTES))
    dx, dy = x - mean_x, y - mean_y
    alpha = opacity * jnp.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = jnp.where(alpha >= MIN_ALPHA, alpha, 0.0)
    return _Block(dx, dy, jnp.minimum(alpha, MAX_ALPHA), clamped=alpha > MAX_ALPHA, colors=tuple(colors))


def _attenuate(alpha: Array, transmittance: Array) -> tuple[Array, Array]:
    """Transmittance [P] after a block, and the weights [B,P] in it; a weight is 0 where nothing is drawn."""
    log_keep = jnp.log(1.0 - alpha)
    log_kept = jnp.cumsum(log_keep, axis=0)
    after = transmittance * jnp.exp(log_kept)
    drawn = after >= MIN_TRANSMITTANCE
    weights = jnp.where(drawn, transmittance * jnp.exp(log_kept - log_keep) * alpha, 0.0)
    # Transmittance only falls, so the smallest one of those drawn is the last.
    reached = jnp.min(jnp.where(drawn, after, jnp.abs(transmittance)), axis=0)
    return jnp.where(jnp.min(after, axis=0) >= MIN_TRANSMITTANCE, reached, -reached), weights


def _sum_products(values: Array, factors: Array) -> Array:
    """Sums over pixels of values [B,P] times factors [16,P]: [B,16], in full float32."""
    return lax.dot_general(values, factors, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST)


def _slice_block(index: Array, plan: KernelPlan) -> Any:
    return pl.ds(pl.multiple_of(index * plan.block, plan.block), plan.block)


def _locate_pixels(plan: KernelPlan) -> tuple[Array, Array]:
    """Pixel centres [P] of a tile, relative to its centre."""
    pixel, tile = lax.iota(jnp.int32, plan.num_pixels), jnp.int32(plan.tile)
    offset = plan.tile / 2 - 0.5
    return lax.rem(pixel, tile).astype(jnp.float32) - offset, lax.div(pixel, tile).astype(jnp.float32) - offset


def _find_inside(tile: Array, x: Array, y: Array, *, image: Image, plan: KernelPlan) -> Array:
    """[P] bool: the pixels of a tile that lie in the image."""
    number = lax.rem(tile, jnp.int32(image.rows * image.columns))
    row, column = lax.div(number, jnp.int32(image.columns)), lax.rem(number, jnp.int32(image.columns))
    center_x = (column * plan.tile).astype(jnp.float32) + plan.tile / 2
    center_y = (row * plan.tile).astype(jnp.float32) + plan.tile / 2
    return (x + center_x < image.width) & (y + center_y < image.height)
