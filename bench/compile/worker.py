"""What `supervise` starts in the compilers' environment: compiles programs, a line of JSON for each."""

from __future__ import annotations

import importlib
import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

MARK = "@compile "


def say(**event: Any) -> None:
    """One event on a line of its own."""
    print(MARK + json.dumps(event), flush=True)


def fit(program: Any, devices: list[Any], target: Any, found: dict[str, Any]) -> Any:
    """The compiled program; a step is cut into as many parts as training would, and `found` says into how many."""
    from bench.compile import compiler
    from dimo_jax.training import memory

    compiled: dict[Any, Any] = {}

    def compile_it(each: Any) -> Any:
        traced = compiler.trace_program(each, devices)
        # Kept where the compiler refuses them, as it does for a GPU that is not there.
        found["host_calls"] = list(traced.operations.host)
        return compiler.compile_program(traced, target)

    cut = program.cut
    if cut is None:
        return compile_it(program)

    def measure(layout: Any) -> memory.Need:
        compiled.clear()
        compiled[layout] = compile_it(program if layout == cut.layout else cut.again(layout))
        return memory.need_of(compiled[layout].executable)

    limit = int(cut.limit_gib * memory.GIB or memory.SHARE * target.usable_bytes)
    layout, _ = memory.choose_parts(measure, cut.layout, cut.sizes, limit, what="a step")
    found["parts"] = layout.accumulate
    return compiled[layout]


def main(job: dict[str, Any]) -> None:
    """Compiles the programs that `job["source"]` lists, but for those in `job["done"]`."""
    from bench.compile import compiler
    from bench.compile.targets import find_target
    from dimo_jax.core.errors import UserError

    target = find_target(job["target"])
    module, _, function = job["source"].partition(":")
    with compiler.tracing_for(target):
        try:
            programs = getattr(importlib.import_module(module), function)(**job["arguments"])
            devices = compiler.find_devices(target, job["num_devices"])
        except (UserError, ValueError) as error:
            say(kind="refused", message=str(error))
            return
        say(kind="programs", names=[program.name for program in programs])
        tools = Path(sysconfig.get_paths()["purelib"]) / "nvidia/cu13/bin" if target.platform == "gpu" else None
        for program in programs:
            if program.name in job["done"] or (job["names"] and program.name not in job["names"]):
                continue
            say(kind="begins", name=program.name, is_step=program.is_step)
            found: dict[str, Any] = dict(is_step=program.is_step)
            try:
                found |= compiler.describe(fit(program, devices, target, found), target, tools)
            # A compiler may raise anything; what it says is the result.
            except Exception as error:
                found["error"] = compiler.explain(error)
            say(kind="ends", name=program.name, found=found)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
