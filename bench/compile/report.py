"""What was found out about programs: completed by estimates, as a table, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.compile.roofline import Estimate, Work, estimate, time_kernel
from bench.compile.targets import GIB, Target
from dimo_jax.render.rasterize.pallas.plan import choose_plan

# Rows of the list of pairs that a turn of a GPU's kernel takes.
_BLOCK = choose_plan(interpret=False, compiler="triton").block


def complete(found: dict[str, Any], target: Target) -> Estimate | None:
    """Adds `estimate_s`, and `error` where the program does not fit; returns the estimate of what was compiled."""
    if "error" in found:
        return None
    kernels = []
    for kernel in found["kernels"]:
        # Every row is taken by all warps of one block of threads.
        instructions = kernel["loop_instructions"] * kernel["table_rows"] / _BLOCK * kernel["threads"] / 32
        seconds = time_kernel(
            target, warp_instructions=instructions, bytes=kernel["bytes"], occupancy=kernel["occupancy"]
        )
        kernels.append((kernel["name"], seconds))
    work = Work(
        matmul_flops=found["matmul_flops"],
        other_flops=found["flops"] - found["matmul_flops"],
        bytes=found["bytes"] - found["kernel_bytes"],
        launches=found["launches"],
        collective_bytes=found["collective_bytes"],
        kernels=tuple(kernels),
    )
    result = estimate(work, target)
    found["estimate_s"] = result.seconds
    if found["needed_gib"] * GIB > target.usable_bytes:
        found["error"] = (
            f"does not fit: needs {found['needed_gib']:.2f} GiB (arguments {found['arguments_gib']:.2f}, temporaries "
            f"{found['temporaries_gib']:.2f}), and of {target.memory_bytes / GIB:.2f} GiB a program may "
            f"take {target.usable_bytes / GIB:.2f}"
        )
    return result


def describe(name: str, found: Mapping[str, Any], result: Estimate | None) -> list[str]:
    """The lines of one program."""
    if result is None:
        return [f"{name}: {found['error']}"]
    collectives = ", ".join(f"{count} {kind}" for kind, count in found["collectives"].items()) or "none"
    lines = [
        f"{name}{_parts(found)}: compiled in {found['compile_s']:.0f} s ({found['cpu_s']:.0f} s of processor time)",
        f"  memory   arguments {found['arguments_gib']:.3f}, temporaries {found['temporaries_gib']:.3f}, results "
        f"{found['results_gib']:.3f} GiB",
        f"  work     {found['flops']:.3g} flops, {found['bytes']:.3g} bytes; {found['launches']} kernels launched, "
        f"{found['sorts']} sorts; collectives: {collectives}",
    ]
    lines += [
        f"  kernel   {kernel['name']}: {kernel['registers']} registers, {kernel['spill_bytes']} bytes spilled, "
        f"{kernel['shared_bytes']} bytes shared, occupancy {kernel['occupancy']:.0%}, {kernel['loop_instructions']} "
        f"instructions in its loop"
        for kernel in found["kernels"]
    ]
    lines += [f"  estimate {line}" for line in result.lines]
    return (
        lines
        + [f"  {warning}" for warning in find_warnings(found)]
        + ([f"  {found['error']}"] if "error" in found else [])
    )


def find_warnings(found: Mapping[str, Any]) -> list[str]:
    """What slows a program down without breaking it."""
    spilled = [kernel for kernel in found.get("kernels", ()) if kernel["spill_bytes"]]
    warnings = [
        f"warning: {kernel['name']} spills {kernel['spill_bytes']} bytes ({kernel['registers']} registers)"
        for kernel in spilled
    ]
    loops = found.get("unknown_loops", 0)
    return warnings + ([f"warning: {loops} loops of unknown length count as one turn"] if loops else [])


def find_faults(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each program that a run cannot have: not compiled, too large, or a step that calls the host."""
    faults = []
    for name, found in results.items():
        if found.get("host_calls") and found["is_step"]:
            faults.append(f"{name}: calls the host in every step ({', '.join(found['host_calls'])})")
        elif "error" in found:
            faults.append(f"{name}: {found['error']}")
    return faults


def table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All programs in Markdown, for docs/hardware.md."""
    heads = ["s to compile (of processor time)", "arguments GiB", "temporaries GiB", "GFLOP", "GB moved"]
    heads += ["launches", "sorts", "estimate"]
    lines = [f"| program | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, found in results.items():
        if "estimate_s" not in found:
            lines.append(f"| {name}{_parts(found)} | {found['error']} |" + " |" * (len(heads) - 1))
            continue
        cells = (
            f"{found['compile_s']:.0f} ({found['cpu_s']:.0f})",
            f"{found['arguments_gib']:.3f}",
            f"{found['temporaries_gib']:.3f}",
            f"{found['flops'] / 1e9:.4g}",
            f"{found['bytes'] / 1e9:.3g}",
            f"{found['launches']}",
            f"{found['sorts']}",
            f"{1e3 * found['estimate_s']:.3g} ms",
        )
        lines.append(f"| {name}{_parts(found)} | " + " | ".join(cells) + " |")
    return lines


def _parts(found: Mapping[str, Any]) -> str:
    """What is added to a step's name where its batch is cut."""
    return f" in {found['parts']} parts" if found.get("parts", 1) > 1 else ""
