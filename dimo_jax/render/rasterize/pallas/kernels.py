"""The kernels: one program per tile walks the tile's Gaussians front to back, each of them over all its pixels.

The bodies are written in `jax.numpy` on the P pixels of a tile and the numbers of one Gaussian, and touch memory only
through `ref[...]` reads and writes of numbers and of rows of P pixels: no masks, no atomics, no operation of one
compiler. What belongs to a compiler is in `_call_triton` and `_call_mosaic`. Triton asks for sizes that are powers of
two; Mosaic GPU has no layout for rows shorter than a warpgroup, and none for booleans that are combined.

A pixel that has stopped, or that lies outside the image, carries its transmittance as a negative number.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.render.project import MIN_ALPHA
from dimo_jax.render.rasterize.tiling import MAX_ALPHA, MIN_TRANSMITTANCE, NUM_ATTRIBUTES, NUM_FEATURES
from dimo_jax.runtime.platforms import current_capability

Compiler = Literal["triton", "mosaic"]
Ref = Any  # Pallas has no public name for what a kernel reads and writes
ROW = 16  # attributes of a Gaussian, and their cotangents, filled up to a power of two
WARPGROUP = 4  # warps of a Mosaic kernel
HOPPER = (9, 0)  # compute capability
FIRST_MOSAIC = (0, 12)  # the jax from which on Triton's way is deprecated
CHANNELS = 8  # of a pixel: the features, then one more number

State = TypeVar("State")
_Features = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """Sizes of the kernels. `choose_plan` is the one place that sets them."""

    tile: int  # pixels on a side
    block: int  # Gaussians per turn of a program's loop
    num_warps: int  # of 32 threads, per program; of Mosaic GPU 4, a warpgroup
    interpret: bool  # runs the bodies on a CPU instead of compiling them for a GPU
    compiler: Compiler = "triton"

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


def choose_plan(*, tile: int = 16, interpret: bool, compiler: Compiler | None = None) -> KernelPlan:
    """Tiles of 16 pixels, four Gaussians a turn; four pixels per thread by Triton, two by Mosaic GPU.

    Most of the backward kernel is sums over the pixels, to which a thread with several pixels adds most of its own
    without asking others: half the instructions of a pixel per thread (docs/hardware.md).

    Args:
      tile: pixels on a side.
      interpret: see `KernelPlan`.
      compiler: None takes `choose_compiler`, or where kernels are interpreted Pallas's own interpreter.
    """
    compiler = compiler or ("triton" if interpret else choose_compiler())
    num_warps = WARPGROUP if compiler == "mosaic" else max(1, tile * tile // 128)
    return KernelPlan(tile=tile, block=4, num_warps=num_warps, interpret=interpret, compiler=compiler)


def choose_compiler() -> Compiler:
    """Mosaic GPU on Hopper and newer GPUs from jax 0.12 on, which deprecates the other; else Triton.

    `$DIMO_JAX_PALLAS` names another.

    Raises:
      UserError: it names none of them.
    """
    asked = os.environ.get("DIMO_JAX_PALLAS", "")
    if asked:
        if asked not in get_args(Compiler):
            raise UserError(f"$DIMO_JAX_PALLAS: found {asked}, expected one of {', '.join(get_args(Compiler))}")
        return cast(Compiler, asked)
    capability = current_capability()
    newer = capability is not None and capability >= HOPPER
    return "mosaic" if newer and jax.__version_info__ >= FIRST_MOSAIC else "triton"


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
        plan,
        starts,
        table,
        tiled=0,
        out=jax.ShapeDtypeStruct((num_tiles, CHANNELS, plan.num_pixels), jnp.float32),
        out_tiled=True,
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
    return _call(
        functools.partial(_differentiate_tile, image=image, plan=plan),
        "rasterize_backward",
        plan,
        starts,
        table,
        d_pixels,
        tiled=1,
        out=jax.ShapeDtypeStruct(table.shape, jnp.float32),
        out_tiled=False,
    )


def _call(
    body: Callable[..., None], name: str, plan: KernelPlan, *arguments: Array, tiled: int, out: Any, out_tiled: bool
) -> Array:
    """Runs a body over all tiles.

    Args:
      body: (tile, references to the arguments, reference to the result), those with an axis over tiles at the tile.
      name: of the kernel.
      plan: sizes, and the compiler.
      arguments: the first says where tiles begin; the last `tiled` have a leading axis over the tiles.
      tiled: see there.
      out: shape and type of the result.
      out_tiled: whether it has that axis.
    """
    call = _call_mosaic if plan.compiler == "mosaic" else _call_triton
    return call(body, name, plan, *arguments, tiled=tiled, out=out, out_tiled=out_tiled)


def _call_triton(
    body: Callable[..., None], name: str, plan: KernelPlan, *arguments: Array, tiled: int, out: Any, out_tiled: bool
) -> Array:
    from jax.experimental.pallas import triton

    # There is nothing to pipeline: whether a step loads at all depends on the one before.
    params = None if plan.interpret else triton.CompilerParams(num_warps=plan.num_warps, num_stages=1)
    call: Callable[..., Array] = pl.pallas_call(
        lambda *refs: body(pl.program_id(0), *refs),
        grid=(len(arguments[0]) - 1,),
        name=name,
        interpret=plan.interpret,
        compiler_params=params,
        in_specs=[_whole()] * (len(arguments) - tiled) + [_per_tile(plan)] * tiled,
        out_specs=_per_tile(plan) if out_tiled else _whole(),
        out_shape=out,
    )
    return call(*arguments)


def _call_mosaic(
    body: Callable[..., None], name: str, plan: KernelPlan, *arguments: Array, tiled: int, out: Any, out_tiled: bool
) -> Array:
    """A warpgroup a tile, which reads and writes global memory: `pl.pallas_call` with its blocks is not for it."""
    from jax.experimental.pallas import mosaic_gpu

    def run(*refs: Ref) -> None:
        tile = lax.axis_index("tile")
        *given, result = refs
        cut = [ref.at[tile] if index >= len(given) - tiled else ref for index, ref in enumerate(given)]
        body(tile, *cut, result.at[tile] if out_tiled else result)

    run.__name__ = name
    # Public from jax 0.12 on, by which kernels compile this way; mypy looks at the jax that is installed.
    interpret = getattr(mosaic_gpu, "InterpretGPUParams")() if plan.interpret else None  # noqa: B009
    call: Callable[..., Array] = mosaic_gpu.kernel(
        run, out_type=out, grid=(len(arguments[0]) - 1,), grid_names=("tile",), interpret=interpret
    )
    return call(*arguments)


def _whole() -> pl.BlockSpec:
    return pl.BlockSpec(memory_space=pl.ANY)


def _per_tile(plan: KernelPlan) -> pl.BlockSpec:
    return pl.BlockSpec((None, CHANNELS, plan.num_pixels), lambda tile: (tile, 0, 0))


def _composite_tile(
    tile: Array, starts_ref: Ref, table_ref: Ref, out_ref: Ref, *, image: Image, plan: KernelPlan
) -> None:
    """Body of `composite`."""

    def step(row: Array, splat: _Splat, transmittance: Array, features: _Features) -> tuple[Array, _Features]:
        transmittance, weight = _attenuate(splat.alpha, transmittance)
        colors = zip(features, splat.colors)
        return transmittance, tuple(feature + weight * color for feature, color in colors)

    features = (jnp.zeros(plan.num_pixels, jnp.float32),) * NUM_FEATURES
    transmittance, features = _walk(
        tile, starts_ref, table_ref, features, step, lambda index: None, image=image, plan=plan
    )
    for channel, values in enumerate((*features, jnp.abs(transmittance))):
        out_ref[channel, :] = values


def _differentiate_tile(
    tile: Array, starts_ref: Ref, table_ref: Ref, d_pixels_ref: Ref, rows_ref: Ref, *, image: Image, plan: KernelPlan
) -> None:
    """Body of `differentiate`."""
    d_colors = tuple(d_pixels_ref[channel, :] for channel in range(NUM_FEATURES))

    def step(row: Array, splat: _Splat, transmittance: Array, remaining: Array) -> tuple[Array, Array]:
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
        for k, terms in enumerate((*moments, *(weight * d_color for d_color in d_colors))):
            rows_ref[row, k] = jnp.sum(terms)
        for k in range(NUM_ATTRIBUTES, ROW):
            rows_ref[row, k] = 0.0
        return transmittance, behind

    def skip(index: Array) -> None:
        for within in range(plan.block):
            for k in range(ROW):
                rows_ref[index * plan.block + within, k] = 0.0

    # What all Gaussians and the background behind them contribute to the scalar being differentiated.
    remaining = d_pixels_ref[NUM_FEATURES, :]
    _walk(tile, starts_ref, table_ref, remaining, step, skip, image=image, plan=plan)


def _walk(
    tile: Array,
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

    transmittance = _begin(tile, x, y, image=image, plan=plan)
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


def _locate_pixels(plan: KernelPlan) -> tuple[Array, Array]:
    """Pixel centres [P] of a tile, relative to its centre."""
    pixel, tile = lax.iota(jnp.int32, plan.num_pixels), jnp.int32(plan.tile)
    offset = plan.tile / 2 - 0.5
    return lax.rem(pixel, tile).astype(jnp.float32) - offset, lax.div(pixel, tile).astype(jnp.float32) - offset


def _begin(tile: Array, x: Array, y: Array, *, image: Image, plan: KernelPlan) -> Array:
    """The transmittance [P] before anything is drawn: 1 for the pixels of a tile that lie in the image, else -1."""
    number = lax.rem(tile, jnp.int32(image.rows * image.columns))
    row, column = lax.div(number, jnp.int32(image.columns)), lax.rem(number, jnp.int32(image.columns))
    center_x = (column * plan.tile).astype(jnp.float32) + plan.tile / 2
    center_y = (row * plan.tile).astype(jnp.float32) + plan.tile / 2
    within = jnp.where(y + center_y < image.height, 1.0, -1.0)
    return jnp.where(x + center_x < image.width, within, -1.0)
