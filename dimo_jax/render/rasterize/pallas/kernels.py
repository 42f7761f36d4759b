"""The kernels: one program per tile walks the tile's Gaussians front to back, each of them over all its pixels.

The bodies are written in `jax.numpy` on the P pixels of a tile and the numbers of one Gaussian, which they get and give
through `pairs.Pairs`: no masks, no atomics, no operation of one compiler, of which `compilers` knows.

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

from dimo_jax.core.types import Array
from dimo_jax.render.project import MIN_ALPHA
from dimo_jax.render.rasterize.tiling import MAX_ALPHA, MIN_TRANSMITTANCE, NUM_ATTRIBUTES, NUM_FEATURES

from .compilers import call_kernel
from .pairs import Pairs, Ref
from .plan import CHANNELS, LANES, PER_LINE, ROW, KernelPlan

State = TypeVar("State")
_Features = tuple[Array, ...]
_Place = tuple[Array, Any]  # a block, and a row in it


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
    return call_kernel(
        functools.partial(_composite_tile, image=image, plan=plan),
        "rasterize_forward",
        plan,
        starts,
        table,
        out=jax.ShapeDtypeStruct((num_tiles, CHANNELS, plan.num_pixels), jnp.float32),
    )


def differentiate(starts: Array, table: Array, d_pixels: Array, image: Image, plan: KernelPlan) -> Array:
    """Runs the backward kernel over the tiles of all images.

    Args:
      starts, table: as in `composite`.
      d_pixels: [T,8,P] cotangents of the 7 features, then the sum of every output of the pixel times its cotangent.

    Returns:
      [S,16], a row per row of the table: 6 moments of d_log_alpha (see `rows.differentiate_shape`), the cotangents of
      the 7 features, 3 zeros. Rows that no tile owns are not written.
    """
    return call_kernel(
        functools.partial(_differentiate_tile, image=image, plan=plan),
        "rasterize_backward",
        plan,
        starts,
        table,
        d_pixels,
        out=jax.ShapeDtypeStruct(table.shape, jnp.float32),
    )


def _composite_tile(
    tile: Array, starts_ref: Ref, pairs: Pairs, out_ref: Ref, *, image: Image, plan: KernelPlan
) -> None:
    """Body of `composite`."""

    def step(place: _Place, splat: _Splat, transmittance: Array, features: _Features) -> tuple[Array, _Features]:
        transmittance, weight = _attenuate(splat.alpha, transmittance)
        colors = zip(features, splat.colors)
        return transmittance, tuple(feature + weight * color for feature, color in colors)

    features = (jnp.zeros(plan.shape, jnp.float32),) * NUM_FEATURES
    transmittance, features = _walk(tile, starts_ref, pairs, features, step, lambda index: None, image=image, plan=plan)
    for channel, values in enumerate((*features, jnp.abs(transmittance))):
        out_ref[channel] = values


def _differentiate_tile(
    tile: Array, starts_ref: Ref, pairs: Pairs, d_pixels_ref: Ref, *, image: Image, plan: KernelPlan
) -> None:
    """Body of `differentiate`."""
    d_colors = tuple(d_pixels_ref[channel] for channel in range(NUM_FEATURES))

    def step(place: _Place, splat: _Splat, transmittance: Array, remaining: Array) -> tuple[Array, Array]:
        gain = sum(color * d_color for color, d_color in zip(splat.colors, d_colors))
        transmittance, weight = _attenuate(splat.alpha, transmittance)
        part = weight * gain
        behind = remaining - part
        # Less of a Gaussian's own part, what is behind it scales with 1 - alpha.
        d_power = part - behind * splat.alpha / (1.0 - splat.alpha)
        d_power = jnp.where(weight > 0, jnp.where(splat.clamped, 0.0, d_power), 0.0)
        # About the mean itself: moments about the tile's centre, a matrix product, would lose two digits of a Gaussian
        # as small as a pixel.
        d_x, d_y = d_power * splat.dx, d_power * splat.dy
        moments = d_power, d_x, d_y, d_x * splat.dx, d_x * splat.dy, d_y * splat.dy
        for column, terms in enumerate((*moments, *(weight * d_color for d_color in d_colors))):
            pairs.write(*place, column, jnp.sum(terms))
        for column in range(NUM_ATTRIBUTES, ROW):
            pairs.write(*place, column, jnp.float32(0.0))
        return transmittance, behind

    def skip(index: Array) -> None:
        def clear(within: Any) -> None:
            for column in range(ROW):
                pairs.write(index, within, column, jnp.float32(0.0))

        _for_each(plan, lambda within, carry: clear(within), None)
        pairs.close(index)

    # What all Gaussians and the background behind them contribute to the scalar being differentiated.
    remaining = d_pixels_ref[NUM_FEATURES]
    _walk(tile, starts_ref, pairs, remaining, step, skip, image=image, plan=plan)


def _for_each(plan: KernelPlan, visit: Callable[[Any, Any], Any], carry: Any) -> Any:
    """`visit` for each Gaussian of a block: written out, on a TPU a line of them at a time."""

    def visit_line(line: Array, carry: Any) -> Any:
        for place in range(PER_LINE):
            carry = visit(line * PER_LINE + place, carry)
        return carry

    if plan.compiler == "tpu":
        return lax.fori_loop(0, plan.block // PER_LINE, visit_line, carry)
    for within in range(plan.block):
        carry = visit(within, carry)
    return carry


def _walk(
    tile: Array,
    starts_ref: Ref,
    pairs: Pairs,
    state: State,
    step: Callable[[_Place, _Splat, Array, State], tuple[Array, State]],
    skip: Callable[[Array], None],
    *,
    image: Image,
    plan: KernelPlan,
) -> tuple[Array, State]:
    """Takes `step` over the Gaussians of the program's tile, front to back, while a pixel is left to draw on.

    That is looked at once a block; blocks that come after are given to `skip`. Returns the transmittance and the state.
    """
    x, y = _locate_pixels(plan)

    def visit(index: Array, carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
        def draw(carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
            def draw_one(within: Any, carry: tuple[Array, State]) -> tuple[Array, State]:
                return step((index, within), _load_splat(pairs, index, within, x, y), *carry)

            transmittance, state = _for_each(plan, draw_one, carry[1:])
            pairs.close(index)
            return jnp.max(transmittance), transmittance, state

        def pass_by(carry: tuple[Array, Array, State]) -> tuple[Array, Array, State]:
            skip(index)
            return carry

        pairs.open(index)
        # Not a while loop that ends here: Triton's compiler crashes on those whose results are not all used (see
        # docs/decisions.md), and the rest of the list costs no more than the count.
        return lax.cond(carry[0] > 0, draw, pass_by, carry)

    transmittance = _begin(tile, x, y, image=image, plan=plan)
    start = (jnp.max(transmittance), transmittance, state)
    first, last = starts_ref[tile], starts_ref[tile + 1]
    pairs.begin(first, last)
    _, transmittance, state = lax.fori_loop(first, last, visit, start)
    pairs.end()
    return transmittance, state


def _load_splat(pairs: Pairs, index: Array, within: Any, x: Array, y: Array) -> _Splat:
    mean_x, mean_y, a, b, c, opacity, *colors = (pairs.read(index, within, k) for k in range(NUM_ATTRIBUTES))
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


def _locate_pixels(plan: KernelPlan) -> tuple[Array, Array]:
    """Pixel centres [P] of a tile, relative to its centre."""
    pixel = lax.broadcasted_iota(jnp.int32, plan.shape, len(plan.shape) - 1)
    if len(plan.shape) > 1:
        pixel = pixel + LANES * lax.broadcasted_iota(jnp.int32, plan.shape, 0)
    tile, offset = jnp.int32(plan.tile), plan.tile / 2 - 0.5
    return lax.rem(pixel, tile).astype(jnp.float32) - offset, lax.div(pixel, tile).astype(jnp.float32) - offset


def _begin(tile: Array, x: Array, y: Array, *, image: Image, plan: KernelPlan) -> Array:
    """The transmittance [P] before anything is drawn: 1 for the pixels of a tile that lie in the image, else -1."""
    number = lax.rem(tile, jnp.int32(image.rows * image.columns))
    row, column = lax.div(number, jnp.int32(image.columns)), lax.rem(number, jnp.int32(image.columns))
    center_x = (column * plan.tile).astype(jnp.float32) + plan.tile / 2
    center_y = (row * plan.tile).astype(jnp.float32) + plan.tile / 2
    within = jnp.where(y + center_y < image.height, 1.0, -1.0)
    return jnp.where(x + center_x < image.width, within, -1.0)
