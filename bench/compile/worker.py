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
                traced = compiler.trace_program(program, devices)
                # Kept where the compiler refuses them, as it does for a GPU that is not there.
                found["host_calls"] = list(traced.operations.host)
                found |= compiler.describe(compiler.compile_program(traced, target), target, tools)
            # A compiler may raise anything; what it says is the result.
            except Exception as error:
                found["error"] = compiler.explain(error)
            say(kind="ends", name=program.name, found=found)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
