"""Lowers and compiles a program for devices that are not there. Runs in the environment that `environment` makes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh, SingleDeviceSharding, use_abstract_mesh

from bench.compile import cubins, executables, hlo, operations
from bench.compile.programs import Program
from bench.compile.targets import GIB, TPU_TOPOLOGIES, Target, describe_gpu
from dimo_jax.runtime.platforms import building_for
from dimo_jax.training.memory import need_of, refusal

# Said of products too large for XLA's own kernels where no device can try others: those are then left to cuBLAS.
NO_CONFIG = "Failed to get configs"


@dataclasses.dataclass(frozen=True)
class Traced:
    """A program as it is written, ready to be lowered."""

    lower: Callable[[], Any]
    operations: operations.Operations
    seconds: float


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program as its compiler left it, and what it took."""

    executable: Any
    seconds: float  # to trace, lower and compile
    cpu_s: float  # processor time to lower and compile
    operations: operations.Operations
    launches: dict[str, tuple[int, int, int]]  # of XLA's thunks: blocks, threads, dynamic shared bytes


def find_devices(target: Target, num_devices: int) -> list[Any]:
    """Devices that can only be compiled for."""
    if target.platform == "tpu":
        name = TPU_TOPOLOGIES[target.name].get(num_devices)
        if name is None:
            sizes = " or ".join(map(str, TPU_TOPOLOGIES[target.name]))
            raise ValueError(f"found {num_devices} devices, expected {sizes} on {target.name}")
        kwargs = {"chips_per_host_bounds": [1, 1, 1]} if num_devices == 1 else {}
        return list(topologies.get_topology_desc(name, "tpu", **kwargs).devices)
    description = describe_gpu(target)
    return list(
        topologies.get_topology_desc("", "cuda", target_config=description, topology=f"1x1x{num_devices}").devices
    )


@contextlib.contextmanager
def tracing_for(target: Target) -> Iterator[None]:
    """Inside, programs are traced and lowered for the target."""
    with contextlib.ExitStack() as stack:
        sm = target.multiprocessor
        stack.enter_context(building_for(target.platform, sm.capability if sm else None))
        device = AbstractDevice(target.kind, sm.count if sm else 1, target.platform)
        stack.enter_context(use_abstract_mesh(AbstractMesh((), (), abstract_device=device)))
        yield


def trace_program(program: Program, devices: list[Any]) -> Traced:
    """Traces it: a step for all devices, others for the first."""
    start = time.perf_counter()
    function = program.build(devices)
    arguments = program.arguments
    if len(devices) == 1 or not program.is_step:
        sharding = SingleDeviceSharding(devices[0])
        arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arguments)
    if hasattr(function, "trace"):
        traced = function.trace(*arguments, **program.options)
        jaxpr, lower = traced.jaxpr, traced.lower
    else:  # of pmap, whose own trace is kept for `lower`
        jaxpr = jax.make_jaxpr(function)(*arguments)
        lower = functools.partial(function.lower, *arguments, **program.options)
    return Traced(lower, operations.count(jaxpr), time.perf_counter() - start)


def compile_program(traced: Traced, target: Target) -> Compiled:
    """Lowers and compiles it."""
    start, processor = time.perf_counter(), _processor_time()
    with tempfile.TemporaryDirectory() as folder:
        options = {}
        if target.platform == "gpu":
            # Autotuning would run kernels. The dump says with how much shared memory kernels are launched.
            options = {"xla_gpu_autotune_level": "0", "xla_dump_to": folder}
        lowered = traced.lower()
        try:
            executable = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if NO_CONFIG not in str(error):
                raise
            executable = lowered.compile(compiler_options={**options, "xla_gpu_enable_triton_gemm": False})
        seconds = traced.seconds + time.perf_counter() - start
        thunks = "".join(path.read_text() for path in Path(folder).glob("*thunk_sequence.txt"))
    cpu_s = _processor_time() - processor
    return Compiled(executable, seconds, cpu_s, traced.operations, cubins.parse_launches(thunks))


def describe(compiled: Compiled, target: Target, tools: Path | None) -> dict[str, Any]:
    """What the report needs to know, as JSON has it."""
    executable = compiled.executable
    need = need_of(executable)
    summary = hlo.summarize(executable.as_text())
    return dict(
        compile_s=compiled.seconds,
        cpu_s=compiled.cpu_s,
        arguments_gib=need.arguments / GIB,
        temporaries_gib=need.temporaries / GIB,
        results_gib=need.results / GIB,
        needed_gib=need.total / GIB,
        flops=compiled.operations.total,
        matmul_flops=compiled.operations.matmul,
        bytes=max(_count_bytes(executable, target), 0.0) + sum(call.bytes for call in summary.kernels),
        kernel_bytes=sum(call.bytes for call in summary.kernels),
        launches=summary.launches,
        sorts=summary.sorts,
        collectives=dict(summary.collectives),
        collective_bytes=summary.collective_bytes,
        unknown_loops=summary.unknown_loops,
        host_calls=sorted({*compiled.operations.host, *summary.host}),
        kernels=_describe_kernels(compiled, summary, target, tools) if summary.kernels and tools else [],
    )


def _count_bytes(executable: Any, target: Target) -> float:
    """By XLA's own count, which takes one turn of every loop."""
    if target.platform == "tpu":
        cost = executable.cost_analysis()
        return float((cost[0] if isinstance(cost, list) else cost).get("bytes accessed", 0.0))
    from jaxlib import _jax

    client = jax.devices("cpu")[0].client  # any client will do: it counts by the text
    (module,) = executable.runtime_executable().hlo_modules()
    return float(_jax.hlo_module_cost_analysis(client, module).get("bytes accessed", 0.0))


def _describe_kernels(compiled: Compiled, summary: hlo.Summary, target: Target, tools: Path) -> list[dict[str, Any]]:
    import cramjam

    sm = target.multiprocessor
    assert sm is not None
    found = executables.find_cubins(
        compiled.executable.runtime_executable().serialize(), lambda data: bytes(cramjam.snappy.decompress_raw(data))
    )
    kernels = []
    for call in summary.kernels:
        usages, code = cubins.inspect(found[call.symbol], tools)
        usage = usages[call.symbol]
        blocks, threads, dynamic = compiled.launches.get(call.name, (call.grid, 32 * call.num_warps, 0))
        # From Hopper on the tools count the KiB of every block that belongs to the system.
        static = usage.shared_bytes - (1_024 if sm.capability >= (9, 0) else 0)
        shared = dynamic + max(static, 0)
        kernels.append(
            dict(
                name=call.name,
                registers=usage.registers,
                spill_bytes=code.spill_bytes,
                stack_bytes=usage.stack_bytes,
                shared_bytes=shared,
                occupancy=cubins.occupancy(sm, registers=usage.registers, threads=threads, shared_bytes=shared),
                loop_instructions=code.loop_instructions,
                blocks=blocks,
                threads=threads,
                bytes=call.bytes,
                table_rows=call.table_rows,
            )
        )
    return kernels


def _processor_time() -> float:
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])


def explain(error: Exception) -> str:
    """The line of a compiler's error that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    chosen = refusal(error) or (lines[0] if lines else "")
    return (chosen or type(error).__name__)[:300]
