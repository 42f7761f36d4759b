"""`python -m bench.fuzz`: tries every reader with damaged files, prints a table, and ends with 1 where one fails.

python -m bench.fuzz --seconds=600
python -m bench.fuzz --readers=gltf,ply --seconds=60 --out=findings.json
python -m bench.fuzz --case=gltf:17              # one input again, kept in ./fuzz_case
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from bench.fuzz.cases import Reader, Seed, find_seeds, make_case
from bench.fuzz.harness import Limits, Tally, fuzz
from bench.fuzz.readers import READERS
from bench.fuzz.verdict import judge

SECONDS = flags.DEFINE_float("seconds", 60.0, "how long to try")
SEED = flags.DEFINE_integer("seed", 0, "of all cases: the same seed makes the same inputs, from the same sound files")
CASES = flags.DEFINE_integer("cases", 1 << 62, "inputs of each reader at most")
NAMES = flags.DEFINE_list("readers", [], "which readers; default: all")
JOBS = flags.DEFINE_integer("jobs", 1, "processes")
OUT = flags.DEFINE_string("out", "", "JSON file for the table and the findings")
CASE = flags.DEFINE_string("case", "", "READER:NUMBER, one input to try in this process, with its traceback")


def choose(names: Sequence[str]) -> tuple[Reader, ...]:
    """The readers of these names; all for none."""
    known = {reader.name: reader for reader in READERS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise app.UsageError(f"--readers: found {unknown[0]!r}, expected some of {', '.join(known)}")
    return tuple(known[name] for name in names) or READERS


def write_seeds(readers: Sequence[Reader], folder: Path) -> dict[str, tuple[Seed, ...]]:
    """Makes the sound inputs, in a process of its own: a device that is started here would not survive a fork."""

    def write() -> None:
        for reader in readers:
            (folder / reader.name).mkdir(parents=True)
            reader.write_seeds(folder / reader.name)

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the sound inputs could not be made (exit code {process.exitcode})")
    return {reader.name: find_seeds(reader, folder / reader.name) for reader in readers}


def describe(tallies: Mapping[str, Tally]) -> list[str]:
    """The table, then one line for each finding."""
    rows: list[tuple[str, ...]] = [("reader", "inputs", "accepted", "refused", "findings", "slowest s", "peak MiB")]
    for name, tally in tallies.items():
        numbers = (tally.inputs, tally.accepted, tally.refused, len(tally.findings))
        rows.append((name, *map(str, numbers), f"{tally.slowest:.1f}", str(tally.peak_bytes >> 20)))
    sums = (sum(int(row[column]) for row in rows[1:]) for column in range(1, 5))
    rows.append(("all", *map(str, sums), "", ""))
    lines = [f"{row[0]:<14}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows]
    for found in listing(tallies):
        name = f"{found['reader']}:{found['case']} ({found['count']}x)"
        lines.append(f"{name} {found['kind']}: {found['said']} | {found['what']} | {found['place']}")
    return lines


def listing(tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
    """All findings."""
    return [
        {"reader": name, "kind": kind, "place": place, **found}
        for name, tally in tallies.items()
        for (kind, place), found in tally.findings.items()
    ]


def to_json(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """The table and the findings as JSON has them."""
    table = {
        name: dict(
            inputs=tally.inputs,
            accepted=tally.accepted,
            refused=tally.refused,
            findings=len(tally.findings),
            seconds=round(tally.seconds, 1),
            slowest=round(tally.slowest, 2),
            peak_bytes=tally.peak_bytes,
        )
        for name, tally in tallies.items()
    }
    return dict(seed=SEED.value, readers=table, findings=listing(tallies))


def repeat(case: str, folder: Path) -> None:
    """Reads one input here, where an exception other than a refusal keeps its traceback; the input stays."""
    name, _, number = case.partition(":")
    (reader,) = choose([name])
    seeds = write_seeds([reader], folder / "seeds")
    kept = Path("fuzz_case").absolute()
    shutil.rmtree(kept, ignore_errors=True)
    source, what = make_case(reader, seeds[name], SEED.value, int(number), kept / "in")
    print(f"{source}: {what}", flush=True)
    print(judge(reader.read, source, kept / "out", leaves=reader.leaves))


def main(_: list[str]) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        if CASE.value:
            repeat(CASE.value, Path(temporary))
            return
        readers = choose(NAMES.value)
        seeds = write_seeds(readers, Path(temporary) / "seeds")
        tallies = fuzz(
            readers, seeds, Path(temporary), seconds=SECONDS.value, seed=SEED.value, cases=CASES.value,
            jobs=JOBS.value, limits=Limits(),
        )  # fmt: skip
    print("\n".join(describe(tallies)))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(to_json(tallies), indent=1))
    if any(tally.findings for tally in tallies.values()):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
