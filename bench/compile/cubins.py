"""What a kernel's machine code says: registers, spills, shared memory, its loop; and how many warps of it fit."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.compile.targets import Multiprocessor

_USAGE = re.compile(r"Function ([\w$.\-]+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+)")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)(.*);")
_LABEL = re.compile(r"^(\.L\w+):")
_JUMP = re.compile(r"`\((\.L\w+)\)")
_LAUNCH = re.compile(
    r"(\S+) grid: \[(\d+), (\d+), (\d+)\] threads: \[(\d+), (\d+), (\d+)\]\s+shared_memory: (\d+) bytes"
)
_WORD = 4
_WIDTHS = {"64": 8, "128": 16}
# Registers are given to warps by 256, shared memory to blocks by 128 bytes and one KiB for the system from Ampere on.
_REGISTER_UNIT, _SHARED_UNIT, _SHARED_OF_SYSTEM, _WARP = 256, 128, 1_024, 32


@dataclass(frozen=True)
class Usage:
    """What a kernel takes."""

    registers: int  # of a thread
    stack_bytes: int  # of a thread
    shared_bytes: int  # of a block, static


@dataclass(frozen=True)
class Code:
    """What its instructions tell."""

    spill_bytes: int  # of a thread, that its instructions store to and load from local memory, each counted once
    loop_instructions: int  # of its longest loop; 0 without one


def parse_usage(text: str) -> dict[str, Usage]:
    """Reads what `cuobjdump -res-usage` prints."""
    return {name: Usage(int(reg), int(stack), int(shared)) for name, reg, stack, shared in _USAGE.findall(text)}


def parse_code(text: str) -> Code:
    """Reads what `nvdisasm` prints of a file with one kernel."""
    labels: dict[str, int] = {}
    count = spilled = longest = 0
    for line in text.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = count
        elif found := _INSTRUCTION.match(line):
            name, rest = found[1], found[2]
            count += 1
            op, *details = name.split(".")
            if op in ("STL", "LDL"):
                spilled += next((_WIDTHS[detail] for detail in details if detail in _WIDTHS), _WORD)
            if op == "BRA" and (target := _JUMP.search(rest)) and target[1] in labels:
                length = count - labels[target[1]]
                longest = max(longest, length if length > 1 else 0)  # a jump to itself guards the end of the code
    return Code(spilled, longest)


def parse_launches(text: str) -> dict[str, tuple[int, int, int]]:
    """Name -> blocks, threads of a block, dynamic shared bytes, from XLA's dump of a thunk sequence."""
    found = {}
    for name, *numbers in _LAUNCH.findall(text):
        x, y, z, a, b, c, shared = map(int, numbers)
        found[name] = (x * y * z, a * b * c, shared)
    return found


def occupancy(sm: Multiprocessor, *, registers: int, threads: int, shared_bytes: int) -> float:
    """Share of the warps that a multiprocessor can hold that blocks of such a kernel fill: 0 where none fits."""
    warps = -(-threads // _WARP)
    of_warp = -(-registers * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    # Each scheduler has its own quarter of the registers, and a warp stays with its scheduler.
    by_registers = sm.registers // sm.schedulers // max(of_warp, 1) * sm.schedulers // warps
    taken = -(-(shared_bytes + _SHARED_OF_SYSTEM) // _SHARED_UNIT) * _SHARED_UNIT
    by_shared = sm.shared_bytes // taken if shared_bytes <= sm.shared_bytes_of_block else 0
    blocks = min(sm.blocks, sm.threads // (warps * _WARP), by_registers, by_shared)
    return blocks * warps / (sm.threads // _WARP)


def inspect(cubin: bytes, tools: Path) -> tuple[dict[str, Usage], Code]:
    """Runs NVIDIA's tools, which lie in `tools`, on a file with one kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage, code = (
            subprocess.run(
                [str(tools / command[0]), *command[1:], str(path)], capture_output=True, text=True, check=True
            )
            for command in (("cuobjdump", "-res-usage"), ("nvdisasm",))
        )
    return parse_usage(usage.stdout), parse_code(code.stdout)
