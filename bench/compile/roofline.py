"""How long a program takes at least, from what it does and what the device could: an estimate, nothing measured."""

from __future__ import annotations

from dataclasses import dataclass

from bench.compile.targets import Target


@dataclass(frozen=True)
class Work:
    """What one call of a program does on one device."""

    matmul_flops: float
    other_flops: float
    bytes: float  # without kernels'
    launches: int = 0
    collective_bytes: float = 0.0
    kernels: tuple[tuple[str, float], ...] = ()  # names and seconds, by `time_kernel`


@dataclass(frozen=True)
class Estimate:
    """Seconds, and the arithmetic that gave them."""

    seconds: float
    lines: tuple[str, ...]


def time_kernel(target: Target, *, warp_instructions: float, bytes: float, occupancy: float) -> float:
    """Seconds of a kernel: what is longer, issuing its instructions or moving its bytes.

    Args:
      target: a GPU.
      warp_instructions: of all warps.
      bytes: that it reads and writes.
      occupancy: 0..1; a scheduler with fewer than four warps is taken to issue every other cycle (latency of 4 cycles
        each), which is an assumption.
    """
    sm = target.multiprocessor
    assert sm is not None
    warps = occupancy * sm.threads / 32 / sm.schedulers
    rate = sm.count * sm.schedulers * sm.clock_hz * (1.0 if warps >= 4 else 0.5)
    return max(warp_instructions / rate, bytes / target.bandwidth)


def estimate(work: Work, target: Target) -> Estimate:
    """Compute and memory overlap, so the longer of them counts; kernels, launches and collectives are added."""
    compute = work.matmul_flops / target.matmul_flops + work.other_flops / target.vector_flops
    memory = work.bytes / target.bandwidth
    kernels = sum(seconds for _, seconds in work.kernels)
    launching = work.launches * target.launch_s
    exchange = work.collective_bytes / target.link
    # A stream launches ahead, so launches cost only what the work does not hide.
    busy = max(compute, memory) + kernels
    total = max(busy, launching) + exchange
    lines = [
        f"compute  {work.matmul_flops:.3g} / {target.matmul_flops:.3g} + {work.other_flops:.3g} / "
        f"{target.vector_flops:.3g} flop/s = {_ms(compute)}",
        f"memory   {work.bytes:.3g} / {target.bandwidth:.3g} B/s = {_ms(memory)}",
    ]
    lines += [f"kernel   {name} {_ms(seconds)}" for name, seconds in work.kernels]
    if work.launches and target.launch_s:
        lines.append(f"launches {work.launches} x {1e6 * target.launch_s:g} us = {_ms(launching)}")
    if work.collective_bytes:
        lines.append(f"exchange {work.collective_bytes:.3g} / {target.link:.3g} B/s = {_ms(exchange)}")
    hidden = "max(max(compute, memory) + kernels, launches) + exchange"
    lines.append(f"total    {hidden} = {_ms(total)}")
    return Estimate(total, tuple(lines))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
