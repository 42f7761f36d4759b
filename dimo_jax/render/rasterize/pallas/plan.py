"""Sizes of the kernels, and which of Pallas's compilers takes them."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal, cast

import jax

from dimo_jax.core.errors import UserError
from dimo_jax.runtime.platforms import current_capability, current_platform

Compiler = Literal["triton", "mosaic", "tpu"]  # Triton and Mosaic GPU for GPUs, Mosaic for TPUs
OF_GPUS = ("triton", "mosaic")
TILE, TPU_TILE = 16, 32  # pixels on a side
ROW = 16  # attributes of a Gaussian, and their cotangents, filled up to a power of two
LANES = 128  # of a TPU's vectors
PER_LINE = 8  # Gaussians that a TPU's kernel has written out, one after the other
CHANNELS = 8  # of a pixel: the features, then one more number
WARPGROUP = 4  # warps
HOPPER = (9, 0)  # compute capability
FIRST_MOSAIC = (0, 12)  # the jax from which on Triton's way is deprecated


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """Sizes of the kernels. `choose_plan` is the one place that sets them."""

    tile: int  # pixels on a side
    block: int  # Gaussians per turn of a program's loop
    num_warps: int  # of 32 threads, per program; by Mosaic GPU 4, a warpgroup; without meaning on a TPU
    interpret: bool  # runs the bodies on a CPU instead of compiling them for another device
    compiler: Compiler = "triton"

    @property
    def num_pixels(self) -> int:
        """Pixels of a tile."""
        return self.tile * self.tile

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the arrays of a tile's pixels: a TPU's registers have lanes in rows of 128."""
        return (self.num_pixels // LANES, LANES) if self.compiler == "tpu" else (self.num_pixels,)


def choose_plan(*, tile: int | None = None, interpret: bool, compiler: Compiler | None = None) -> KernelPlan:
    """Tiles of 16 pixels and four Gaussians a turn on GPUs: four pixels per thread by Triton, two by Mosaic GPU.

    Most of the backward kernel is sums over the pixels, to which a thread with several pixels adds most of its own
    without asking others: half the instructions of a pixel per thread (docs/hardware.md). On TPUs tiles of 32 pixels
    fill a register, and a turn takes as many Gaussians as lie in one piece of memory.

    Args:
      tile: pixels on a side; None takes that of the compiler.
      interpret: see `KernelPlan`.
      compiler: None takes `choose_compiler`, or where kernels are interpreted Pallas's own interpreter.
    """
    compiler = compiler or ("triton" if interpret else choose_compiler())
    if compiler == "tpu":
        return KernelPlan(tile or TPU_TILE, block=LANES, num_warps=1, interpret=interpret, compiler=compiler)
    tile = tile or TILE
    num_warps = WARPGROUP if compiler == "mosaic" else max(1, tile * tile // 128)
    return KernelPlan(tile, block=4, num_warps=num_warps, interpret=interpret, compiler=compiler)


def choose_compiler() -> Compiler:
    """Mosaic on TPUs; Mosaic GPU on Hopper and newer GPUs from jax 0.12 on, which deprecates the other; else Triton.

    `$DIMO_JAX_PALLAS` names another for GPUs.

    Raises:
      UserError: it names none of them.
    """
    if current_platform() == "tpu":
        return "tpu"
    asked = os.environ.get("DIMO_JAX_PALLAS", "")
    if asked:
        if asked not in OF_GPUS:
            raise UserError(f"$DIMO_JAX_PALLAS: found {asked}, expected one of {', '.join(OF_GPUS)}")
        return cast(Compiler, asked)
    capability = current_capability()
    newer = capability is not None and capability >= HOPPER
    return "mosaic" if newer and jax.__version_info__ >= FIRST_MOSAIC else "triton"
