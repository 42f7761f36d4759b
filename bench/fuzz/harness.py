"""Runs readers on damaged inputs, each in a process that may die, and judges how every input ends."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bench.fuzz.cases import Reader, Seed, make_case
from bench.fuzz.verdict import ACCEPTED, REFUSED, Outcome, judge, place_of

_FORK = multiprocessing.get_context("fork")  # starting a process takes milliseconds, importing jax seconds


@dataclass(frozen=True)
class Limits:
    """What an input may take."""

    seconds: float = 20.0
    peak_bytes: int = 2 << 30  # of the whole process
    fresh_bytes: int = 5 << 28  # that a process holds after an input, from which on it is replaced by a fresh one


@dataclass
class Tally:
    """The outcomes of one reader."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    peak_bytes: int = 0
    findings: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # by kind and place

    @property
    def inputs(self) -> int:
        """How many were tried."""
        return self.accepted + self.refused + sum(found["count"] for found in self.findings.values())

    def add(self, number: int, outcome: Outcome) -> None:
        """Counts an outcome; of equal findings the first is kept."""
        self.accepted += outcome.kind == ACCEPTED
        self.refused += outcome.kind == REFUSED
        self.seconds += outcome.seconds
        self.slowest = max(self.slowest, outcome.seconds)
        self.peak_bytes = max(self.peak_bytes, outcome.peak_bytes)
        if outcome.kind not in (ACCEPTED, REFUSED):
            first = {"case": number, "what": outcome.what, "said": outcome.said, "count": 0}
            found = self.findings.setdefault((outcome.kind, outcome.place), first)
            found["count"] += 1


def _memory(name: str) -> int:
    """Bytes of this process's VmRSS, VmHWM or VmSize."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status: no {name}")


def serve(
    connection: Connection, readers: Mapping[str, Reader], seeds: Mapping[str, tuple[Seed, ...]], seed: int,
    folder: Path, limits: Limits,
) -> None:  # fmt: skip
    """A worker process: takes (reader, number) and answers with the outcome, until it is told to end."""
    os.setsid()  # so that the programs that a reader starts can be ended with it
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    trace = (folder / "trace.txt").open("w")
    faulthandler.enable(trace)
    base, case = _memory("VmRSS"), folder / "case"
    size = _memory("VmSize") + 3 * limits.peak_bytes  # above the limit, only so that the machine does not suffer
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    while (job := connection.recv()) is not None:
        reader = readers[job[0]]
        shutil.rmtree(case, ignore_errors=True)
        source, what = make_case(reader, seeds[reader.name], seed, job[1], case / "in")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        trace.seek(0)
        trace.truncate()  # of what was slow before
        held, begin = _memory("VmRSS"), time.perf_counter()
        faulthandler.dump_traceback_later(max(0.1, limits.seconds - 0.5), file=trace)
        outcome = judge(reader.read, source, case / "out", leaves=reader.leaves)
        faulthandler.cancel_dump_traceback_later()
        seconds = time.perf_counter() - begin
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
        peak = max(_memory("VmHWM") - held + base, children)
        if peak > limits.peak_bytes:
            outcome = Outcome("memory", f"{peak >> 20} MiB at its peak; {outcome.kind}: {outcome.said}", outcome.place)
        elif seconds > limits.seconds:
            outcome = Outcome("slow", f"{seconds:.1f} s; {outcome.kind}: {outcome.said}", outcome.place)
        full = _memory("VmRSS") > limits.fresh_bytes
        facts = dict(what=what, seconds=seconds, peak_bytes=peak)
        connection.send((Outcome(outcome.kind, outcome.said, outcome.place, **facts), full))  # type: ignore[arg-type]


class Worker:
    """A process that serves, and what it does at present."""

    def __init__(self, folder: Path, limits: Limits, start: Callable[[Connection, Path], None]) -> None:
        """Args:
        folder: its own, which it makes.
        limits: what an input may take.
        start: runs in the process.
        """
        self.folder, self.limits, self._start = folder, limits, start
        folder.mkdir(parents=True, exist_ok=True)
        self.job: tuple[str, int] | None = None
        self._launch()

    def _launch(self) -> None:
        self.connection, other = _FORK.Pipe()
        self._process = _FORK.Process(target=self._start, args=(other, self.folder), daemon=True)
        self._process.start()
        other.close()

    def give(self, job: tuple[str, int]) -> None:
        """Sends it an input."""
        self.job, self._begin = job, time.monotonic()
        self.connection.send(job)

    def take(self) -> Outcome | None:
        """The outcome; None while there is none. A process that has died or hangs is replaced."""
        late = time.monotonic() - self._begin > self.limits.seconds + 2
        if not self.connection.poll() and not late:
            return None
        try:
            outcome, full = self.connection.recv() if self.connection.poll() else (None, True)
        except (EOFError, OSError):
            outcome, full = None, True
        if outcome is None:
            self._process.join(0 if late else 5)
            kind = "hang" if self._process.is_alive() else f"death by {self._process.exitcode}"
            outcome = Outcome(kind, "", self._read_trace(), seconds=time.monotonic() - self._begin)
        if full:
            self.end()
            self._launch()
        self.job = None
        return outcome

    def _read_trace(self) -> str:
        """Where the process was, as its fault handler has noted."""
        lines = (self.folder / "trace.txt").read_text().splitlines()
        own = [line.strip() for line in lines if "/dimo_jax/" in line or "/third_party/" in line]
        return (own or lines or [""])[0].strip()

    def end(self) -> None:
        """Ends the process and what it has started."""
        if self._process.is_alive() and self._process.pid:
            os.killpg(self._process.pid, signal.SIGKILL) if os.getpgid(self._process.pid) == self._process.pid else None
            self._process.kill()
        self._process.join()
        self.connection.close()


def _choose(readers: Sequence[Reader], tallies: Mapping[str, Tally], counts: Mapping[str, int], most: int) -> Reader:
    """The reader that has had the least of its share of the time, of those that have inputs left."""
    left = [reader for reader in readers if counts[reader.name] < most]
    return min(left, key=lambda reader: tallies[reader.name].seconds / reader.weight)


def fuzz(
    readers: Sequence[Reader], seeds: Mapping[str, tuple[Seed, ...]], folder: Path, *, seconds: float, seed: int = 0,
    cases: int = 1 << 62, jobs: int = 1, limits: Limits | None = None,
) -> dict[str, Tally]:  # fmt: skip
    """Tries the readers in turn, each with its share of the time.

    Args:
      readers: what to try.
      seeds: their sound inputs.
      folder: to work in.
      seconds: after which no further input begins.
      seed: of all cases; the same gives the same inputs.
      cases: inputs of a reader at most.
      jobs: processes.
      limits: what an input may take.
    """
    limits = limits or Limits()
    tallies = {reader.name: Tally() for reader in readers}
    counts = {reader.name: 0 for reader in readers}
    table = {reader.name: reader for reader in readers}

    def start(connection: Connection, place: Path) -> None:
        try:
            serve(connection, table, seeds, seed, place, limits)
        except Exception as error:  # of the harness itself: said where the parent looks
            (place / "trace.txt").write_text(f"{place_of(error)} {type(error).__name__}: {error}"[:500])
            raise

    workers = [Worker(folder / f"worker{index}", limits, start) for index in range(jobs)]
    end = time.monotonic() + seconds
    try:
        while True:
            more = time.monotonic() < end and min(counts.values()) < cases
            for worker in workers:
                if worker.job is None and more and min(counts.values()) < cases:
                    name = _choose(readers, tallies, counts, cases).name
                    worker.give((name, counts[name]))
                    counts[name] += 1
            busy = [worker for worker in workers if worker.job]
            if not busy:
                return tallies
            wait([worker.connection for worker in busy], timeout=0.5)
            for job, outcome in _finished(busy):
                tallies[job[0]].add(job[1], outcome)
    finally:
        for worker in workers:
            worker.end()


def _finished(workers: Sequence[Worker]) -> Iterator[tuple[tuple[str, int], Outcome]]:
    for worker in workers:
        job = worker.job
        if job is not None and (outcome := worker.take()) is not None:
            yield job, outcome
