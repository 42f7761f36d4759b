"""Compiles the programs of a run for hardware that is not there, and says what they need and would take at least.

    python -m bench.compile --target=h100 --preset=demo                        # all programs, one device
    python -m bench.compile --target=h100 --preset=paper --phase=512 --programs=stage2_512 --out=paper.json
    python -m bench.compile --target=v5e --preset=demo --devices=8             # the steps, under pmap
    python -m bench.compile --target=a100 --system=atop --programs=motion      # ImageDream's size, without its weights

Nothing runs: memory, machine code and counts are those of the compiled program, times are estimates (docs/hardware.md).
The compilers come from PyPI into an environment of their own in $DIMO_JAX_CACHE, on first use.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

from absl import app, flags

from bench.compile import report, supervise
from bench.compile.environment import PACKAGES, make_environment
from bench.compile.supervise import Job
from bench.compile.targets import TARGETS, find_target
from dimo_jax.core.errors import UserError
from dimo_jax.runtime.files import write_json

TARGET = flags.DEFINE_string("target", "h100", f"what to compile for: {', '.join(TARGETS)}")
SYSTEM = flags.DEFINE_enum("system", "dimo", list(supervise.SYSTEMS), "whose configs/SYSTEM.py, and programs")
PRESET = flags.DEFINE_string("preset", "", "preset of it; default: paper, wan or imagedream")
PHASE = flags.DEFINE_integer("phase", 0, "steps of this resolution only, in pixels; 0: of all")
DEVICES = flags.DEFINE_integer("devices", 1, "1 or 8; with several, the steps alone, under pmap")
PROGRAMS = flags.DEFINE_list("programs", [], "some programs by name; default: all")
PAIRS = flags.DEFINE_integer("pairs", 0, "Gaussian-tile pairs that render buffers hold; 0: eight per Gaussian")
SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE of the config, such as batch.accumulate=4")
LIMIT = flags.DEFINE_float("limit", 600.0, "seconds that one program may take to compile")
OUT = flags.DEFINE_string("out", "", "a JSON file to write, anew after every program")


def read_changes(pairs: list[str]) -> dict[str, Any]:
    """ "KEY=VALUE" -> key and value, read as Python where it is that, else as text.

    Raises:
      UserError: no "=" in one.
    """
    changes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set={pair}: expected KEY=VALUE")
        try:
            changes[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            changes[key] = value
    return changes


def main(argv: list[str]) -> None:
    del argv
    target = find_target(TARGET.value)
    if DEVICES.value not in (1, 8):
        raise UserError(f"--devices={DEVICES.value}: expected 1 or 8")
    if LIMIT.value <= 0:
        raise UserError(f"--limit={LIMIT.value:g}: expected seconds above 0")
    if OUT.value and not Path(OUT.value).resolve().parent.is_dir():
        raise UserError(f"--out={OUT.value}: no such folder, expected a file in one that exists")
    changes = read_changes(SET.value)
    source, preset = supervise.SYSTEMS[SYSTEM.value]
    preset = PRESET.value or preset
    arguments = dict(preset=preset, changes=changes, num_devices=DEVICES.value, phase=PHASE.value, pairs=PAIRS.value)
    job = Job(target, DEVICES.value, tuple(PROGRAMS.value), arguments, source, limit_s=LIMIT.value)
    python = make_environment(target.platform)
    what = f"{target.kind} x {DEVICES.value}, preset {preset} of configs/{SYSTEM.value}.py"
    print(f"{what}; compiled by {', '.join(PACKAGES[target.platform])}\n")

    facts = dict(target=target.name, kind=target.kind, devices=DEVICES.value, preset=preset, changes=changes)
    facts |= dict(system=SYSTEM.value, versions=PACKAGES[target.platform])
    known: dict[str, dict[str, Any]] = {}

    def tell(name: str, found: dict[str, Any]) -> None:
        known[name], estimate = found, report.complete(found, target)
        if OUT.value:  # after every program, as one more may take many minutes
            write_json(facts | dict(programs=known, faults=report.find_faults(known)), Path(OUT.value))
        print("\n".join(report.describe(name, found, estimate)), flush=True)

    results = supervise.run(job, python, tell)
    print("\n" + "\n".join(report.table(results)))
    faults = report.find_faults(results)
    if faults:
        raise UserError(faults[0] + (f"; and {len(faults) - 1} more" if len(faults) > 1 else ""))


def _main(argv: list[str]) -> int:
    try:
        main(argv)
    except UserError as error:
        print(f"{error.label}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    app.run(_main)
