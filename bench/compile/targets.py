"""Hardware to compile for: what its compiler has to know of it, and what a roofline asks for. The only table of either.

Peaks are dense, without sparsity. Looked up on 2026-11-30, and as they stand there:
  h100: glennklockwood.com/garden/processors/h100 (SMs, clock, TF32, FP32, bandwidth; NVLink 900 GB/s, half of it a way)
  a100: hmc-tech.com/gpus/nvidia-a100-sxm-vs-nvidia-b200 (SMs, clock, TF32, FP32, bandwidth)
  b200: the same page (SMs, TF32, FP32, bandwidth; 1.98 GHz there); glennklockwood.com/garden/processors/B200 says 1,100
    and 80 TFLOP/s and 8 TB/s, docs.vultr.com/inference-cookbook 179 GB and 8.0 TB/s; links: 1.8 TB/s, half of it a way
  v5e, v6e: docs.cloud.google.com/tpu/docs/v5e and v6e (bf16, memory, bandwidth; a fourth of half the interconnect's
    400 and 800 GB/s a link and way)
Not looked up, from memory of data sheets: l4, v5p, the links of a100, the caches of all GPUs, clocks of TPUs.
Limits of a multiprocessor: CUDA C++ programming guide, table of technical specifications per compute capability.
"""

from __future__ import annotations

from dataclasses import dataclass

from dimo_jax.core.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Multiprocessor:
    """What limits how many warps of a kernel a multiprocessor of a GPU holds, and how fast it issues."""

    capability: tuple[int, int]
    count: int
    threads: int
    blocks: int
    shared_bytes: int
    shared_bytes_of_block: int
    l2_bytes: int
    clock_hz: float  # boost
    registers: int = 65_536
    schedulers: int = 4  # each issues an instruction of a warp per cycle


@dataclass(frozen=True)
class Target:
    """A kind of device."""

    name: str
    kind: str  # as jax calls it
    platform: str  # "gpu" or "tpu"
    memory_bytes: int
    usable_share: float  # of it, for programs and their data
    bandwidth: float  # bytes/s
    matmul_flops: float  # at jax's default precision for float32: TF32 on GPUs, one bfloat16 pass on TPUs
    vector_flops: float  # float32, outside of matrix units
    link: float  # bytes/s to another device, one direction
    launch_s: float  # of one kernel; an assumption
    multiprocessor: Multiprocessor | None = None

    @property
    def usable_bytes(self) -> int:
        """Memory that a program and its data may take."""
        return int(self.memory_bytes * self.usable_share)


# jax reserves three quarters of a GPU for itself (XLA_PYTHON_CLIENT_MEM_FRACTION); of a TPU, libtpu keeps a little.
_GPU_SHARE, _TPU_SHARE = 0.75, 0.98
# What CUDA takes to launch a small kernel from a stream, by common measurement; none here.
_LAUNCH_S = 2e-6


def _gpu(
    name: str, kind: str, memory: int, bandwidth: float, tf32: float, fp32: float, link: float, sm: Multiprocessor
) -> Target:
    return Target(name, kind, "gpu", memory, _GPU_SHARE, bandwidth, tf32, fp32, link, _LAUNCH_S, sm)


def _tpu(name: str, kind: str, memory: int, bandwidth: float, bf16: float, vector: float, link: float) -> Target:
    return Target(name, kind, "tpu", memory, _TPU_SHARE, bandwidth, bf16, vector, link, 0.0)


TARGETS = {
    target.name: target
    for target in (
        _gpu(
            "h100", "NVIDIA H100 80GB HBM3", 84_942_979_072, 3.35e12, 494.7e12, 66.9e12, 450e9,
            Multiprocessor((9, 0), 132, 2_048, 32, 233_472, 232_448, 52_428_800, 1.98e9),
        ),
        _gpu(
            "a100", "NVIDIA A100-SXM4-80GB", 85_098_233_856, 2.039e12, 156e12, 19.5e12, 300e9,
            Multiprocessor((8, 0), 108, 2_048, 32, 167_936, 166_912, 41_943_040, 1.41e9),
        ),
        _gpu(
            "l4", "NVIDIA L4", 23_655_874_560, 300e9, 60e12, 30.3e12, 32e9,
            Multiprocessor((8, 9), 58, 1_536, 24, 102_400, 101_376, 50_331_648, 2.04e9),
        ),
        _gpu(
            "b200", "NVIDIA B200", 180 * 10**9, 7.7e12, 1_125e12, 75e12, 900e9,
            Multiprocessor((10, 0), 148, 2_048, 32, 233_472, 232_448, 132_644_864, 1.965e9),
        ),
        # The vector unit of a TPU: 8 x 128 lanes, 4 operations a cycle; clocks of 1.5, 0.94 and 1.75 GHz.
        _tpu("v5e", "TPU v5 lite", 16 * GIB, 819e9, 197e12, 6.1e12, 50e9),
        _tpu("v6e", "TPU v6 lite", 32 * GIB, 1.638e12, 918e12, 3.9e12, 100e9),
        _tpu("v5p", "TPU v5", 95 * GIB, 2.765e12, 459e12, 14.3e12, 100e9),
    )
}  # fmt: skip
# How libtpu calls boards of so many chips; it knows no smaller one of some kinds.
TPU_TOPOLOGIES = {
    "v5e": {1: "v5e:1x1", 8: "v5e:2x4"},
    "v6e": {1: "v6e:1x1", 8: "v6e:2x4"},
    "v5p": {1: "v5p:1x1x1", 8: "v5p:2x2x2"},
}


def find_target(name: str) -> Target:
    """Raises UserError where there is none of this name."""
    if name not in TARGETS:
        raise UserError(f"--target={name}: expected one of {', '.join(TARGETS)}")
    return TARGETS[name]


def describe_gpu(target: Target) -> str:
    """What XLA has to know of a GPU that is not there, as the text of a GpuTargetConfigProto."""
    sm = target.multiprocessor
    assert sm is not None
    major, minor = sm.capability
    device = {
        "threads_per_block_limit": 1_024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49_152,
        "shared_memory_per_core": sm.shared_bytes,
        "shared_memory_per_block_optin": sm.shared_bytes_of_block,
        "threads_per_core_limit": sm.threads,
        "registers_per_core_limit": sm.registers,
        "registers_per_block_limit": sm.registers,
        "core_count": sm.count,
        "fpus_per_core": 64 if target.name == "a100" else 128,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535,
        "memory_bandwidth": int(target.bandwidth),
        "l2_cache_size": sm.l2_bytes,
        "clock_rate_ghz": sm.clock_hz / 1e9,
        "device_memory_size": target.memory_bytes,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in device.items())
    return (
        f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {major} minor: {minor} }}\n}}\n"
        'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 patch: 2 }\n'
        f'runtime_version {{ major: 12 minor: 9 }}\ndevice_description_str: "{target.kind}"\n'
    )
