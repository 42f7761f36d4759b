"""The kernels: one program per tile walks the tile's Gaussians front to back, each of them over all its pixels.

The bodies are written in `jax.numpy` on the P pixels of a tile and the numbers of one Gaussian, and touch memory only
through `ref[...]` reads and writes of numbers and whole rows: no masks, no atomics, no operation of one compiler. What
belongs to a compiler is `_make_compiler_params`. Sizes are powers of two, which Triton asks for.

A pixel that has stopped, or that lies outside the image, carries its transmittance as a negative number.
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
    block: int  # Gaussians per turn of a program's loop
    num_warps: int  # of 32 threads, per program
    interpret: bool  # runs the bodies as XLA operations instead of compiling them for a GPU

    @property
    def num_pixels(self) -> int:
        """Pixels of a tile."""
        return self.tile * self.tile


class _Splat(NamedTuple):
    """A Gaussian over the pixels of a tile."""

    dx: Array  # [P] from the mean to the pixel
    dy: Array  # [P]
    alpha: Array  # [P]
    clamped: Array  # [P] bool
    colors: tuple[Array, ...]  # 7 of []


@dataclasses.dataclass(frozen=True)
class Image:
    """The size of one image, in pixels and in tiles."""

    height: int
    width: int
    rows: int
    columns: int


def choose_plan(*, tile: int = 16, interpret: bool) -> KernelPlan:
    """Tiles of 16 pixels, four pixels per thread, four Gaussians a turn.

    Most of the backward kernel is sums over the pixels, to which a thread with several pixels adds most of its own
    without asking others: half the instructions of a pixel per thread (docs/hardware.md).
    """
    return KernelPlan(tile=tile, block=4, num_warps=max(1, tile * tile // 128), interpret=interpret)


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

    def step(row: Array, splat: _Splat, transmittance: Array, features: _Features) -> tuple[Array, _Features]:
        transmittance, weight = _attenuate(splat.alpha, transmittance)
        colors = zip(features, splat.colors)
        return transmittance, tuple(feature + weight * color for feature, color in colors)

    features = (jnp.zeros(plan.num_pixels, jnp.float32),) * NUM_FEATURES
    transmittance, features = _walk(starts_ref, table_ref, features, step, lambda index: None, image=image, plan=plan)
    for channel, values in enumerate((*features, jnp.abs(transmittance))):
        out_ref[channel, :] = values


def _differentiate_tile(
    starts_ref: Ref, table_ref: Ref, d_pixels_ref: Ref, rows_ref: Ref, *, image: Image, plan: KernelPlan
) -> None:
    """Body of `differentiate`."""
    d_colors = tuple(d_pixels_ref[channel, :] for channel in range(NUM_FEATURES))
    column = lax.iota(jnp.int32, ROW)

    def step(row: Array, splat: _Splat, transmittance: Array, remaining: Array) -> tuple[Array, Array]:
        gain = sum(color * d_color for color, d_color in zip(splat.colors, d_colors))
        transmittance, weight = _attenuate(splat.alpha, transmittance)
        part = weight * gain
        behind = remaining - part
        # Less of a Gaussian's own part, what is behind it scales with 1 - alpha.
        d_power = part - behind * splat.alpha / (1.0 - splat.alpha)
        d_power = jnp.where((weight > 0) & ~splat.clamped, d_power, 0.0)
        # About the mean itself: moments about the tile's centre, a matrix product, would lose two digits of a Gaussian
        # as small as a pixel.
        d_x, d_y = d_power * splat.dx, d_power * splat.dy
        moments = d_power, d_x, d_y, d_x * splat.dx, d_x * splat.dy, d_y * splat.dy
        values = jnp.zeros(ROW, jnp.float32)
        for k, terms in enumerate((*moments, *(weight * d_color for d_color in d_colors))):
            values = jnp.where(column == k, jnp.sum(terms), values)
        rows_ref[row, :] = values
        return transmittance, behind

    def skip(index: Array) -> None:
        rows_ref[_slice_block(index, plan), :] = jnp.zeros((plan.block, ROW), jnp.float32)

    # What all Gaussians and the background behind them contribute to the scalar being differentiated.
    remaining = d_pixels_ref[NUM_FEATURES, :]
    _walk(starts_ref, table_ref, remaining, step, skip, image=image, plan=plan)


def _walk(
    starts_ref: Ref,
    table_ref: Ref,
    state: State,
    step: Callable[[Array, _Splat, Array, State], tuple[Array, State]],
    skip: Callable[[Array], None],
    *,
    image: Image,
    plan: KernelPlan,
) -> tuple[Array, State]:
    """Takes `step` over the Gaussians of the program's tile, front to back, while a pixel is left to draw on.

    That is looked at once a block; blocks that come after are given to `skip`. Returns the transmittance and the state.
    """
    tile = pl.program_id(0)
    x, y = _locate_pixels(plan)

    def visit(index: Array, carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
        def draw(carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
            _, transmittance, state = carry
            for within in range(plan.block):
                row = index * plan.block + within
                transmittance, state = step(row, _load_splat(table_ref, row, x, y), transmittance, state)
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


def _load_splat(table_ref: Ref, row: Array, x: Array, y: Array) -> _Splat:
    mean_x, mean_y, a, b, c, opacity, *colors = (table_ref[row, k] for k in range(NUM_ATTRIBUTES))
    dx, dy = x - mean_x, y - mean_y
    alpha = opacity * jnp.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = jnp.where(alpha >= MIN_ALPHA, alpha, 0.0)
    return _Splat(dx, dy, jnp.minimum(alpha, MAX_ALPHA), clamped=alpha > MAX_ALPHA, colors=tuple(colors))


def _attenuate(alpha: Array, transmittance: Array) -> tuple[Array, Array]:
    """Transmittance [P] behind a Gaussian, and its weight [P]; 0 where it is not drawn."""
    after = transmittance * (1.0 - alpha)
    drawn = after >= MIN_TRANSMITTANCE
    weight = jnp.where(drawn, transmittance * alpha, 0.0)
    return jnp.where(drawn, after, -jnp.abs(transmittance)), weight


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
