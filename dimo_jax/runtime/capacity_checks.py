"""Whether memory and disk hold what is about to be made, asked before it is begun."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from dimo_jax.core.errors import UserError

_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_SPARE = 0.9  # share of the memory that is free which one array may take


def in_bytes(count: float) -> str:
    """A number of bytes for people: "112 GB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def free_memory() -> float:
    """Bytes that this process can still take: of the machine, of its container, and of its own limit."""
    found = [float("inf")]
    if sys.platform.startswith("linux"):
        found += [_machine(), _container(), _own()]
    return min(found)


def _machine() -> float:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return float("inf")


def _container() -> float:
    """What a control group, version 2 or 1, leaves."""
    for folder, limit, used in _GROUPS:
        bound, taken = _lines(f"{folder}/{limit}"), _lines(f"{folder}/{used}")
        if bound and taken and bound[0].isdigit() and taken[0].isdigit():
            # What the system keeps of files counts as taken, and is given up when it is asked for.
            facts = dict(line.split(" ", 1) for line in _lines(f"{folder}/memory.stat"))
            cached = facts.get("inactive_file") or facts.get("total_inactive_file") or 0
            return float(bound[0]) - float(taken[0]) + float(cached)
    return float("inf")


def _own() -> float:
    """What a limit of this process's address space (`ulimit -v`) leaves."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    size = _lines("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not size:
        return float("inf")
    return float(limit) - float(size[0].split()[0]) * resource.getpagesize()


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().splitlines()
    except OSError:
        return []


def check_memory(num_bytes: float, what: str, *, otherwise: str) -> None:
    """Checks that memory holds what is about to be made.

    Linux hands out more than there is, and then ends a process without a word.

    Args:
      num_bytes: of it.
      what: names it, for the error.
      otherwise: what to do about it.

    Raises:
      UserError: it does not.
    """
    free = free_memory()
    if num_bytes > _SPARE * free:
        raise UserError(
            f"{what} do not fit into memory, of which {in_bytes(max(free, 0))} are free, expected "
            f"{in_bytes(num_bytes)} ({otherwise})"
        )


def check_disk(target: Path, num_bytes: float, *, otherwise: str) -> None:
    """Checks that the disk of a folder that may not exist yet holds what is about to be written there.

    Raises:
      UserError: it does not; `otherwise` says what to do about it.
    """
    nearest = next(each for each in (target.absolute(), *target.absolute().parents) if each.exists())
    free = shutil.disk_usage(nearest).free
    if free < num_bytes:
        raise UserError(
            f"{target}: found {in_bytes(free)} free on its disk, expected {in_bytes(num_bytes)} ({otherwise})"
        )
