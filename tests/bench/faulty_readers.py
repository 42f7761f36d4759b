"""Readers that do what no reader may, under the harness: prints what it finds as JSON.

A program of its own, because the harness forks, which a process with a started device must not do.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from bench.fuzz.cases import Reader, find_seeds
from bench.fuzz.harness import Limits, fuzz
from dimo_jax.core.errors import UserError


def write_seed(folder):
    (folder / "one").mkdir()
    (folder / "one" / "a.txt").write_text("walk: It walks.\n")


def refuse(source, out):
    raise UserError(f"{source}: is damaged, expected a list")


def refuse_many(source, out):
    raise UserError(f"{source}: " + "x" * 10_000)


def refuse_nameless(source, out):
    raise UserError("it is damaged")


def crash(source, out):
    raise ValueError("no number")


def hang(source, out):
    time.sleep(60)


def eat(source, out):
    np.ones(300 << 20, np.uint8)


def die(source, out):
    os._exit(7)


def warn(source, out):
    np.float32(1e30) * np.float32([1e30])


def litter(source, out):
    (out.parent / ".half.tmp").write_text("half")
    refuse(source, out)


def write_half(source, out):
    out.mkdir()
    refuse(source, out)


def change_source(source, out):
    (source / "b.txt").write_text("new")


def write(source, out):
    out.mkdir()
    (out / "a").write_text("whole")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    functions = [refuse, refuse_many, refuse_nameless, crash, hang, eat, die, warn, litter, write_half, change_source]
    readers = [Reader(function.__name__, function, write_seed) for function in (*functions, write)]
    seeds = {}
    for reader in readers:
        (folder / reader.name).mkdir()
        reader.write_seeds(folder / reader.name)
        seeds[reader.name] = find_seeds(reader, folder / reader.name)
    limits = Limits(seconds=1.0, peak_bytes=256 << 20)
    found = fuzz(readers, seeds, folder, seconds=60, cases=2, jobs=2, limits=limits)
    print(json.dumps({
        name: [tally.inputs, tally.accepted, tally.refused, *sorted(kind for kind, _ in tally.findings)]
        for name, tally in found.items()
    }))  # fmt: skip
