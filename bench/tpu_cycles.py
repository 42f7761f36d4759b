"""What a Gaussian costs on a TPU, by the schedule that its compiler made: Pallas beside `xla`; nothing runs.

    python -m bench.tpu_cycles --target=v6e

The kernels' figure is the length of the loop over a line of Gaussians in the compiler's final bundles, one a cycle, for
tiles of 32 pixels; that of `xla` what the compiler expects of one turn of its loop, for 64 tiles of 8 pixels and 32
Gaussians each. Neither waits for memory. Larger tiles draw more pixels in vain, so both are also given for a Gaussian
whose extent is a square: it touches (extent + tile)^2 / tile^2 tiles on average.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from bench.compile import hlo
from bench.compile.environment import make_environment
from bench.compile.supervise import ENVIRONMENT, ROOT
from bench.compile.targets import TARGETS, find_target
from dimo_jax.core.errors import UserError
from dimo_jax.render.rasterize import xla
from dimo_jax.render.rasterize.pallas.plan import PER_LINE, TPU_TILE

KERNELS = ("forward", "backward")
PROGRAMS = (*KERNELS, "xla_forward", "xla_backward")
EXTENTS = (6, 12, 24)  # pixels on a side
TURN = (xla.GROUP_ELSEWHERE, xla.BLOCK, xla.TILE)  # tiles, and Gaussians of each, of a turn; pixels on a side
MARK = "@cycles "
_BUNDLE = re.compile(r"^\s*(?:\d+:)?\s*0x[0-9a-f]+\s+(?:[A-Z]{2})?:?\s*:?\s*(>*)\s*\{")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NEVER = 10**12  # what the compiler says of a loop
_LIMIT = re.compile(r"constant\((\d+)\)")


def count_line(text: str) -> int:
    """Bundles of the longest innermost loop of a program's final bundles."""
    depths = [len(found[1]) for line in text.splitlines() if (found := _BUNDLE.match(line))]
    deepest = max(depths, default=0)
    return max((len(list(run)) for depth, run in groupby(depths) if depth == deepest), default=0)


def count_turn(text: str) -> int:
    """Cycles of one turn of the costliest loop that no other loop is around but one of tiles, loops in it at length.

    Args:
      text: of an optimized program.
    """
    computations, entry = hlo.parse(text)

    def cost(name: str) -> int:
        total = 0
        for each in computations[name]:
            if each.op == "while":
                body = hlo.BODY.search(each.rest)
                total += length(each.rest) * cost(body[1]) if body else 0
            elif (found := _CYCLES.search(each.rest)) and int(found[1]) < _NEVER:
                total += int(found[1])
        return total

    def length(rest: str) -> int:
        known = hlo.TRIPS.search(rest)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%([\w.\-]+)", rest)
        limits = [_LIMIT.search(f"{each.op}({each.rest}") for each in computations[condition[1]]] if condition else []
        return max((int(found[1]) for found in limits if found), default=1)

    loops = [each for each in computations[entry] if each.op == "while"]
    return max(cost(body[1]) for each in loops if (body := hlo.BODY.search(each.rest)))


def compile_them(target_name: str, names: Sequence[str], folder: Path) -> dict[str, int]:
    """In the compilers' environment: bundles of a line, and cycles of a turn of `xla`, of what `names` says."""
    import jax
    import jax.numpy as jnp

    from bench.compile import compiler
    from bench.compile.programs import Program
    from dimo_jax.core.types import Splats
    from dimo_jax.render.rasterize.pallas import kernels
    from dimo_jax.render.rasterize.pallas.plan import CHANNELS, ROW, choose_plan

    def numbers(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    target, found = find_target(target_name), dict[str, int]()
    with compiler.tracing_for(target):
        devices = compiler.find_devices(target, 1)
        plan, image = choose_plan(interpret=False), kernels.Image(512, 512, 16, 16)
        starts, table = numbers(257, dtype=jnp.int32), numbers(65_536, ROW)
        pixels = numbers(256, CHANNELS, plan.num_pixels)
        shapes = dict(means2d=(2,), conics=(3,), opacities=(), depths=(), extents=(2,), features=(7,))
        splats = Splats(**{name: cast(Any, numbers(64, *shape)) for name, shape in shapes.items()})

        def draw(splats: Splats) -> Any:
            features, transmittance, _ = xla.rasterize(splats, height=64, width=64, capacity=4_096)
            return jnp.sum(features**2) + jnp.sum(transmittance)

        forward = functools.partial(kernels.composite, image=image, plan=plan)
        backward = functools.partial(kernels.differentiate, image=image, plan=plan)
        programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
            "forward": (forward, (starts, table)),
            "backward": (backward, (starts, table, pixels)),
            "xla_forward": (draw, (splats,)),
            "xla_backward": (jax.grad(draw), (splats,)),
        }
        for name in names:
            function, arguments = programs[name]
            built = jax.jit(function)
            program = Program(name, functools.partial(_take, built), arguments)
            compiled = compiler.compile_program(compiler.trace_program(program, devices), target)
            if name in KERNELS:
                dumped = max(folder.glob(f"*rasterize_{name}*-final_bundles.txt"), key=lambda path: path.stat().st_size)
                found[name] = count_line(dumped.read_text())
            else:
                found[name] = count_turn(compiled.executable.as_text())
    return found


def _take(built: Any, devices: Sequence[Any]) -> Any:
    return built


def tell(found: dict[str, int], gaussians: int, tile: int) -> list[str]:
    """A table in Markdown."""
    tiles, turn, small = TURN
    lines = ["| | Pallas, cycles a pair | a pixel | `xla`, a pixel | " + " | ".join(f"{e} px" for e in EXTENTS) + " |"]
    lines.append("|---|" + "---:|" * (3 + len(EXTENTS)))
    for name in KERNELS:
        pair = found[name] / gaussians
        pixel, other = pair / tile**2, found[f"xla_{name}"] / (tiles * turn * small**2)
        ratios = [other * (extent + small) ** 2 / (pixel * (extent + tile) ** 2) for extent in EXTENTS]
        shown = " | ".join(f"{ratio:.1f}" for ratio in ratios)
        lines.append(f"| {name} | {pair:.1f} | {pixel:.4f} | {other:.3f} | {shown} |")
    return lines


def ask(python: Path, target: str, names: Sequence[str]) -> dict[str, int]:
    """Runs `compile_them` by the compilers' `python`.

    Raises:
      UserError: a compiler that ends without an answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        dump = dict(LIBTPU_INIT_ARGS=f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true", PYTHONPATH=str(ROOT))
        command = [str(python), "-m", "bench.tpu_cycles", f"--target={target}", f"--dump={folder}"]
        command.append(f"--names={','.join(names)}")
        done = subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT | dump, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not said:
        raise UserError(f"the compiler ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
    found: dict[str, int] = json.loads(said[0].removeprefix(MARK))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--target", default="v6e", choices=[name for name in TARGETS if TARGETS[name].platform == "tpu"]
    )
    parser.add_argument("--dump", type=Path, help=argparse.SUPPRESS)  # of the process that compiles
    parser.add_argument("--names", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.dump:
        print(MARK + json.dumps(compile_them(options.target, options.names.split(","), options.dump)))
        return
    try:
        found = ask(make_environment("tpu"), options.target, PROGRAMS)
    except UserError as error:
        sys.exit(f"error: {error}")
    print("\n".join(tell(found, PER_LINE, TPU_TILE)))


if __name__ == "__main__":
    main()
