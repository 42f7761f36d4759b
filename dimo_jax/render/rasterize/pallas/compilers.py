"""Runs a kernel's body over all tiles: what belongs to one of Pallas's compilers stands here.

Triton asks for sizes that are powers of two. Mosaic GPU has no layout for rows shorter than a warpgroup, and none for
booleans that are combined. Mosaic for TPUs reads single numbers from scalar memory alone, and vectors in rows of 128.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from dimo_jax.core.types import Array

from .pairs import Copied, InPlace, Ref
from .plan import CHANNELS, ROW, KernelPlan

# (tile, reference to where tiles begin, `Pairs`, reference to the pixels of the tile).
Body = Callable[..., None]


def call_kernel(body: Body, name: str, plan: KernelPlan, *arguments: Array, out: Any) -> Array:
    """Runs a body over all tiles.

    Args:
      body: (tile, reference to where tiles begin, `Pairs`, reference to the pixels of the tile).
      name: of the kernel.
      plan: sizes, and the compiler.
      arguments: where tiles begin [T+1]; the table; and for gradients, which have the table's shape, the pixels that
        they are of [T,8,P].
      out: shape and type of the result: pixels [T,8,P], or gradients.
    """
    calls = dict(triton=_call_triton, mosaic=_call_mosaic, tpu=_call_tpu)
    return calls[plan.compiler](body, name, plan, *arguments, out=out)


def _call_tpu(body: Body, name: str, plan: KernelPlan, *arguments: Array, out: Any) -> Array:
    """A core takes a tile after the other; numbers are read from scalar memory, to which blocks are copied."""
    from jax.experimental.pallas import tpu

    starts, table, *d_pixels = arguments
    backward, num_tiles = bool(d_pixels), len(starts) - 1
    far = pl.BlockSpec(memory_space=pl.ANY)
    pixels = pl.BlockSpec((None, CHANNELS, *plan.shape), lambda tile, starts: (tile, 0, 0, 0))
    spec = tpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(num_tiles,),
        in_specs=[far, *[pixels] * backward],
        out_specs=far if backward else pixels,
        scratch_shapes=[tpu.SMEM((2, ROW, plan.block), jnp.float32), tpu.SemaphoreType.DMA((2,))] * (1 + backward),
    )

    def run(starts_ref: Ref, table_ref: Ref, pixels_ref: Ref, *refs: Ref) -> None:
        rows, (near, coming, *more) = (refs[0], refs[1:]) if backward else (None, refs)
        near_rows, going = more or (None, None)
        pairs = Copied(plan.block, table_ref, near, coming, rows, near_rows, going)
        body(pl.program_id(0), starts_ref, pairs, pixels_ref)

    # Columns: rows of 16 numbers would be filled up to 128 in a TPU's memory.
    shape = out.shape[::-1] if backward else (num_tiles, CHANNELS, *plan.shape)
    call = pl.pallas_call(
        run,
        grid_spec=spec,
        out_shape=jax.ShapeDtypeStruct(shape, jnp.float32),
        name=name,
        interpret=plan.interpret,
        compiler_params=tpu.CompilerParams(dimension_semantics=("arbitrary",)),
    )
    found: Array = call(starts, table.T, *(x.reshape(num_tiles, CHANNELS, *plan.shape) for x in d_pixels))
    return found.T if backward else found.reshape(out.shape)


def _call_triton(body: Body, name: str, plan: KernelPlan, *arguments: Array, out: Any) -> Array:
    from jax.experimental.pallas import triton

    backward = len(arguments) == 3

    def run(starts_ref: Ref, table_ref: Ref, *refs: Ref) -> None:
        pixels_ref, *rows_ref = refs
        body(pl.program_id(0), starts_ref, InPlace(plan.block, table_ref, *rows_ref), pixels_ref)

    # There is nothing to pipeline: whether a step loads at all depends on the one before.
    params = None if plan.interpret else triton.CompilerParams(num_warps=plan.num_warps, num_stages=1)
    call: Callable[..., Array] = pl.pallas_call(
        run,
        grid=(len(arguments[0]) - 1,),
        name=name,
        interpret=plan.interpret,
        compiler_params=params,
        in_specs=[_whole(), _whole(), *[_per_tile(plan)] * backward],
        out_specs=_whole() if backward else _per_tile(plan),
        out_shape=out,
    )
    return call(*arguments)


def _call_mosaic(body: Body, name: str, plan: KernelPlan, *arguments: Array, out: Any) -> Array:
    """A warpgroup a tile, which reads and writes global memory: `pl.pallas_call` with its blocks is not for it."""
    from jax.experimental.pallas import mosaic_gpu

    def run(starts_ref: Ref, table_ref: Ref, pixels_ref: Ref, *rows_ref: Ref) -> None:
        tile = lax.axis_index("tile")
        body(tile, starts_ref, InPlace(plan.block, table_ref, *rows_ref), pixels_ref.at[tile])

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
