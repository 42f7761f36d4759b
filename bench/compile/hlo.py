"""What the text of an optimized program says: kernels launched, collectives, sorts, and where it calls the host."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast",
)  # fmt: skip
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_CALLS_BODY = {"while", "conditional", "call", "async-start"}
_HOST = re.compile(r"callback|SendToHost|RecvFromHost|infeed|outfeed", re.IGNORECASE)
_TO_HOST = ("infeed", "outfeed", "send", "recv")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\]")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
BODY = re.compile(r"\b(?:body|to_apply|true_computation|false_computation)=%([\w.\-]+)")
_FUSED = re.compile(r"\bcalls=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_OPERAND = re.compile(r"%([\w.\-]+)")
_GRID = re.compile(r"\bgrid_([xyz]) = (\d+)")
_WARPS = re.compile(r"\bnum_warps = (\d+)")
_NAME = re.compile(r'\bname = "([^"]+)"')
_OP_NAME = re.compile(r'\bop_name="(?:[^"]*/)?([^"/]+)/[^"/]+"')
_MOSAIC = "mosaic_gpu"
_WARPGROUP = 4  # warps, of which Mosaic's kernels here have one


@dataclass(frozen=True)
class KernelCall:
    """A kernel of Pallas as the program calls it."""

    name: str
    symbol: str  # of it in the machine code
    grid: int  # blocks of threads; 0 where the program does not say
    num_warps: int  # of a block
    bytes: int  # of operands and results
    table_rows: int  # of its largest operand or result with two axes: the list of pairs that it walks


@dataclass
class Summary:
    """What a program does, loops unrolled where their length is known."""

    launches: int = 0
    sorts: int = 0
    collectives: Counter[str] = field(default_factory=Counter)
    collective_bytes: int = 0
    host: list[str] = field(default_factory=list)
    kernels: list[KernelCall] = field(default_factory=list)
    unknown_loops: int = 0  # loops of unknown length, counted as one turn


@dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    op: str
    rest: str


def count_bytes(shape: str) -> int:
    """Bytes of "f32[8,4]{1,0}" or of a tuple of such."""
    total = 0
    for kind, sizes in _SHAPE.findall(shape):
        if kind in _BYTES:
            total += _BYTES[kind] * math.prod(int(size) for size in sizes.split(",") if size)
    return total


def _rows(shape: str) -> int:
    return max((int(sizes.split(",")[0]) for _, sizes in _SHAPE.findall(shape) if sizes.count(",") == 1), default=0)


def parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of each computation of a module, and the name of the one that it begins with."""
    computations: dict[str, list[_Instruction]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif line.startswith("}"):
            current = ""
        elif current and (found := _INSTRUCTION.match(line)):
            computations[current].append(_Instruction(*found.groups()))
    return computations, entry


def summarize(text: str) -> Summary:
    """Reads the text of an optimized, scheduled HLO module."""
    computations, entry = parse(text)
    summary = Summary()
    sorting = {name for name, body in computations.items() if any(each.op == "sort" for each in body)}
    for instruction, shapes, times in _walk(computations, entry, 1, summary):
        _add(summary, instruction, shapes, times)
        fused = _FUSED.search(instruction.rest)
        summary.sorts += times * (instruction.op == "fusion" and fused is not None and fused[1] in sorting)
    return summary


def _walk(
    computations: dict[str, list[_Instruction]], name: str, times: int, summary: Summary
) -> Iterator[tuple[_Instruction, dict[str, str], int]]:
    """What runs, and how often; not what is fused into a kernel."""
    instructions = computations.get(name, [])
    shapes = {instruction.name: instruction.shape for instruction in instructions}
    for instruction in instructions:
        if instruction.op not in _CALLS_BODY:
            yield instruction, shapes, times
            continue
        turns = times
        if instruction.op == "while":
            known = TRIPS.search(instruction.rest)
            summary.unknown_loops += known is None
            turns *= int(known[1]) if known else 1
        branches = _BRANCHES.search(instruction.rest)
        bodies = _OPERAND.findall(branches[1])[:1] if branches else BODY.findall(instruction.rest)[:1]
        for body in bodies:
            yield from _walk(computations, body, turns, summary)


def _add(summary: Summary, instruction: _Instruction, shapes: dict[str, str], times: int) -> None:
    op = instruction.op.removesuffix("-start")
    if op in _FREE or op.endswith("-done"):
        return
    target = _TARGET.search(instruction.rest)
    if op in _TO_HOST or (target and _HOST.search(target[1])):
        summary.host.append(target[1] if target else op)
        return
    summary.launches += times
    summary.sorts += times * (op == "sort" or "sort" in (target[1].lower() if target else ""))
    if op in COLLECTIVES:
        summary.collectives[op] += times
        summary.collective_bytes += times * count_bytes(instruction.shape) // (2 if "-start" in instruction.op else 1)
    if target and (kernel := _read_kernel(target[1], instruction)):
        operands = [shapes[name] for name in _OPERAND.findall(instruction.rest.split(")")[0]) if name in shapes]
        everything = [*operands, instruction.shape]
        moved, rows = sum(map(count_bytes, everything)), max(map(_rows, everything))
        summary.kernels += [KernelCall(*kernel, bytes=moved, table_rows=rows)] * times


def _read_kernel(target: str, instruction: _Instruction) -> tuple[str, str, int, int] | None:
    """Name, symbol, grid and warps of a kernel of Pallas; None for other calls."""
    if "triton" in target and (grid := dict(_GRID.findall(instruction.rest))):
        warps, found = _WARPS.search(instruction.rest), _NAME.search(instruction.rest)
        name = found[1] if found else instruction.name
        return name, name, math.prod(int(size) for size in grid.values()), int(warps[1]) if warps else 4
    if target.startswith(_MOSAIC):
        found = _OP_NAME.search(instruction.rest)
        name = found[1] if found else instruction.name
        return name, f"{name}_{_MOSAIC}_kernel", 0, _WARPGROUP
    return None
