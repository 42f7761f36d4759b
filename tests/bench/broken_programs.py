"""Programs with a fault each, for tests of `bench.compile` that have to find it."""

import functools
import time

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bench.compile.programs import Cut, Program
from dimo_jax.render.rasterize.pallas import kernels
from dimo_jax.render.rasterize.pallas.plan import CHANNELS, ROW, choose_plan
from dimo_jax.training.parallel import Layout

ROWS, COLUMNS = 128, 256


def _center(x_ref, out_ref):
    """Every value is needed until the sum of all is known: a thousand of them for each thread of a warp."""
    x = x_ref[...]
    out_ref[...] = x - jnp.sum(x)


def spill(x):
    """A kernel with too few threads for what it holds."""
    from jax.experimental.pallas import triton

    params = triton.CompilerParams(num_warps=1, num_stages=1)
    return pl.pallas_call(_center, out_shape=x, name="center_all", compiler_params=params)(x)


def fill(x):
    """Temporaries of 149 GiB: all differences of 200,000 numbers, sorted."""
    return jnp.sort(x[:, None] - x[None, :], axis=0)[0]


def fill_in_parts(layout):
    """The same as a step whose parts take the memory of one."""
    rows = 200_000 // layout.accumulate

    def step(x):
        return jnp.sort(x[:rows, None] - x[None, :], axis=0)[0]

    return Program(
        "cutting",
        lambda devices: jax.jit(step),
        (jax.ShapeDtypeStruct((200_000,), jnp.float32),),
        is_step=True,
        cut=Cut(layout, (4, 3, 2), fill_in_parts, 0.0),
    )


def call(x):
    """Calls the host."""
    jax.debug.callback(lambda value: None, x[0])
    return 2 * x


def wait(x):
    """Takes a minute to trace."""
    time.sleep(60)
    return x


def list_broken(*, names):
    """The programs of these names."""
    block = jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.float32)
    many = jax.ShapeDtypeStruct((200_000,), jnp.float32)
    few = jax.ShapeDtypeStruct((8,), jnp.float32)
    programs = [
        Program("spilling", lambda devices: jax.jit(spill), (block,)),
        Program("filling", lambda devices: jax.jit(fill), (many,)),
        Program("waiting", lambda devices: jax.jit(wait), (few,)),
        fill_in_parts(Layout()),
        Program("calling", lambda devices: jax.jit(call), (few,), is_step=True),
    ]
    return [program for program in programs if program.name in names]


def list_kernels(*, compiler):
    """The rasterizer's kernels, for an image of 64 px; nothing is wrong with them."""
    plan = choose_plan(interpret=False, compiler=compiler)
    image = kernels.Image(height=64, width=64, rows=4, columns=4)
    starts = jax.ShapeDtypeStruct((17,), jnp.int32)
    table = jax.ShapeDtypeStruct((1024, ROW), jnp.float32)
    pixels = jax.ShapeDtypeStruct((16, CHANNELS, plan.num_pixels), jnp.float32)
    forward = functools.partial(kernels.composite, image=image, plan=plan)
    backward = functools.partial(kernels.differentiate, image=image, plan=plan)
    return [
        Program("forward", lambda devices: jax.jit(forward), (starts, table)),
        Program("backward", lambda devices: jax.jit(backward), (starts, table, pixels)),
    ]
