"""The compiler for hardware that is not there: what it reads of programs, and that it finds what is wrong with them."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from support.compilers import find_compilers

from bench.compile import cubins, executables, hlo, operations, report, roofline, supervise
from bench.compile.programs import list_programs
from bench.compile.targets import GIB, TARGETS, describe_gpu, find_target
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.runtime.platforms import building_for, current_platform
from dimo_jax.training import parallel

H100 = TARGETS["h100"]
BROKEN = "tests.bench.broken_programs:list_broken"
ROOT = Path(__file__).resolve().parents[2]

USAGE = """
Resource usage:
 Common:
  GLOBAL:0
 Function rasterize_backward:
  REG:255 STACK:456 SHARED:1024 LOCAL:0 CONSTANT[0]:560 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/               @P0 BRA `(.L_x_2) ;
.L_x_0:
        /*0020*/                   STL.64 [R1+0x8], R2 ;
.L_x_1:
        /*0030*/                   LDL R4, [R1+0x8] ;
        /*0040*/               @P1 BRA `(.L_x_1) ;
        /*0050*/              @!P0 BRA `(.L_x_0) ;
.L_x_2:
        /*0060*/                   EXIT ;
.L_x_3:
        /*0070*/                   BRA `(.L_x_3);
"""
LAUNCHES = """002: kCustomKernel [prev=1 | next=3 ] rasterize_backward grid: [32, 2, 1] threads: [256, 1, 1]  shared_memory: 16384 bytes
003: kSort sort.5
"""  # noqa: E501
PROGRAM = """HloModule jit_step, is_scheduled=true

%body (arg: (s32[], f32[4])) -> (s32[], f32[4]) {
  %arg = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%arg), index=1
  %more = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused
  ROOT %pair = (s32[], f32[4]{0}) tuple(%x, %more)
}

%fused.3 (q: u32[64]) -> (u32[64], s32[64]) {
  %q = u32[64]{0} parameter(0)
  %i = s32[64]{0} iota(), iota_dimension=0
  ROOT %pairs = (u32[64]{0}, s32[64]{0}) sort(%q, %i), dimensions={0}, is_stable=true, to_apply=%less
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %first = (s32[], f32[4]{0}) tuple(%p, %p)
  %loop = (s32[], f32[4]{0}) while(%first), condition=%end, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %rows = f32[64,16]{1,0} fusion(%p), kind=kLoop, calls=%fused.1
  %kernel = f32[2,8,256]{2,1,0} custom-call(%p, %rows), custom_call_target="__gpu$xla.gpu.triton", backend_config={grid_x = 2 : i32, grid_y = 1 : i32, grid_z = 1 : i32, ir = "...", name = "rasterize_forward", num_stages = 1 : i32, num_warps = 8 : i32}
  %sorted = u32[8,64]{1,0} sort(%p), dimensions={1}, to_apply=%less
  %order = (u32[64]{0}, s32[64]{0}) fusion(%p), kind=kCustom, calls=%fused.3
  %many = (f32[4]{0}, f32[4]{0}, f32[4]{0}, f32[4]{0}, f32[4]{0}, /*index=5*/f32[4]{0}) fusion(%p), calls=%fused.4
  %start = f32[4]{0} collective-permute(%p), channel_id=1
  %told = () custom-call(%p), custom_call_target="xla_ffi_python_gpu_callback"
  ROOT %sum = f32[4]{0} fusion(%start), kind=kLoop, calls=%fused.2
}
"""  # noqa: E501


def test_reads_what_nvidias_tools_say():
    assert cubins.parse_usage(USAGE) == {"rasterize_backward": cubins.Usage(255, 456, 1024)}
    assert cubins.parse_code(SASS) == cubins.Code(spill_bytes=8 + 4, loop_instructions=4)
    assert cubins.parse_launches(LAUNCHES) == {"rasterize_backward": (64, 256, 16384)}


@pytest.mark.parametrize(
    ("target", "registers", "threads", "shared", "expected"),
    # As NVIDIA's occupancy calculator has it.
    [
        ("h100", 32, 256, 0, 1.0),
        ("h100", 64, 256, 0, 0.5),
        ("h100", 255, 256, 16_384, 0.125),
        ("h100", 32, 256, 100_000, 0.25),
        ("a100", 40, 128, 0, 0.75),
        ("l4", 32, 256, 0, 1.0),
        ("l4", 32, 32, 0, 0.5),
        ("h100", 32, 256, 300_000, 0.0),
    ],
)
def test_occupancy(target, registers, threads, shared, expected):
    sm = TARGETS[target].multiprocessor
    assert cubins.occupancy(sm, registers=registers, threads=threads, shared_bytes=shared) == expected


def test_reads_a_program_with_its_loops():
    found = hlo.summarize(PROGRAM)
    assert found.launches == 5 + 5 + 2
    assert found.sorts == 2
    assert found.collectives == {"collective-permute": 1}
    assert found.collective_bytes == 16
    assert found.host == ["xla_ffi_python_gpu_callback"]
    assert found.unknown_loops == 0
    rows, result = 64 * 16 * 4, 2 * 8 * 256 * 4
    assert found.kernels == [hlo.KernelCall("rasterize_forward", "rasterize_forward", 2, 8, 16 + rows + result, 64)]
    assert hlo.summarize(PROGRAM.replace("known_trip_count", "unknown")).unknown_loops == 1


def riegeli(*records):
    """A container of plain records, a chunk each, as the format's description has it."""
    chunks = b"\0" * 40
    for record in records:
        body = b"\0\1\0" + record
        chunks += struct.pack("<QQQQQ", 0, len(body), 0, ord("r") | 1 << 8, len(record)) + body
    header = bytes.fromhex("83af70d10d884a3f") + b"\0" * 16
    pieces = [chunks[start : start + 65_512] for start in range(0, len(chunks), 65_512)]
    return b"".join((header if i == 0 else b"\0" * 24) + piece for i, piece in enumerate(pieces))


def elf(name):
    body = b"\7" * 70_000 + b".text." + name + b"\0"
    tables = struct.pack("<QQ", 64, 64 + len(body)) + b"\0" * 6 + struct.pack("<4H", 0, 0, 64, 1)
    return b"\x7fELF\2\1\1".ljust(0x20, b"\0") + tables.ljust(32, b"\0") + body + b"\0" * 64


def test_finds_machine_code_across_blocks_and_containers():
    first, second = elf(b"rasterize_forward"), elf(b"fusion_3")
    data = b"jax's own" + riegeli(b"kind", riegeli(b"a" + first + b"b" + second))
    found = executables.find_cubins(data, lambda x: x)
    assert found == {"rasterize_forward": first, "fusion_3": second}
    with pytest.raises(ValueError, match="no Riegeli container"):
        executables.find_cubins(b"something else", lambda x: x)


def test_counts_operations_of_loops_and_sees_calls_of_the_host():
    def step(x, kernel):
        image = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME")
        total, _ = jax.lax.scan(lambda a, _: (a @ a, None), jnp.ones((8, 8)), length=3)
        jax.debug.callback(lambda value: None, total)
        return image.sum() + total.sum()

    found = operations.count(jax.make_jaxpr(step)(jnp.ones((2, 5, 16, 16)), jnp.ones((7, 5, 3, 3))))
    assert found.matmul == 2 * (2 * 7 * 16 * 16) * (5 * 9) + 3 * 2 * 8**3
    assert found.other == 2 * 7 * 16 * 16 + 64 + 1
    assert found.host == ("debug_callback",)


def test_a_roofline_takes_the_longer_of_computing_and_moving():
    work = roofline.Work(matmul_flops=494.7e12, other_flops=0, bytes=3.35e12 / 2, collective_bytes=450e9)
    assert roofline.estimate(work, H100).seconds == pytest.approx(1 + 1)
    slow = roofline.Work(matmul_flops=0, other_flops=0, bytes=3.35e12 * 3, kernels=(("k", 0.5),))
    found = roofline.estimate(slow, H100)
    assert found.seconds == pytest.approx(3.5)
    assert any("3.35e+12 B/s = 3e+03 ms" in line for line in found.lines)
    issue = 132 * 4 * 1.98e9
    assert roofline.time_kernel(H100, warp_instructions=issue, bytes=0, occupancy=0.5) == pytest.approx(1)
    assert roofline.time_kernel(H100, warp_instructions=issue, bytes=0, occupancy=0.125) == pytest.approx(2)


def found_of(**changes):
    whole = dict(
        compile_s=1, cpu_s=1, arguments_gib=1, temporaries_gib=2, results_gib=0, needed_gib=3, flops=1e9,
        matmul_flops=0, bytes=1e9, kernel_bytes=0, launches=1, sorts=0, collectives={}, collective_bytes=0,
        unknown_loops=0, host_calls=[], kernels=[], is_step=True,
    )  # fmt: skip
    return whole | changes


def test_faults_are_what_does_not_fit_is_not_compiled_or_calls_the_host():
    results = {
        "good": found_of(),
        "huge": found_of(needed_gib=70.5, temporaries_gib=69.5),
        "calling": found_of(host_calls=["debug_callback"]),
        "between": found_of(host_calls=["debug_callback"], is_step=False),
        "refused": dict(error="not compiled in 5 s (--limit)", is_step=True),
    }
    lines = [report.describe(name, found, report.complete(found, H100)) for name, found in results.items()]
    faults = report.find_faults(results)
    assert [fault.partition(":")[0] for fault in faults] == ["huge", "calling", "refused"]
    assert "needs 70.50 GiB" in faults[0]
    assert "59.33" in faults[0]
    assert results["good"]["estimate_s"] == pytest.approx(1e9 / 3.35e12)
    assert faults[0].removeprefix("huge: ") in lines[1][-1]
    assert len(report.table(results)) == 2 + 5


def test_every_target_is_described():
    for target in TARGETS.values():
        assert 0 < target.usable_bytes < target.memory_bytes
        if target.platform == "gpu":
            assert f'device_description_str: "{target.kind}"' in describe_gpu(target)
    with pytest.raises(UserError, match=r"--target=h200: expected one of h100"):
        find_target("h200")


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_programs_are_those_of_a_run(platform):
    with building_for(platform):
        assert current_platform() == platform
        programs = {program.name: program for program in list_programs(get_config("smoke"))}
        mapped = list_programs(get_config("smoke"), num_devices=8)
        with pytest.raises(UserError, match=r"--phase=48: expected one of 32"):
            list_programs(get_config("smoke"), phase=48)
        with pytest.raises(UserError, match=r"--devices=7: .* evenly"):
            list_programs(get_config("smoke"), num_devices=7)
    assert current_platform() == jax.default_backend()
    assert list(programs) == ["stage1_32", "stage2_32", "stage3_32", "densify", "refresh", "play", "evaluate", "sample"]
    assert [program.name for program in mapped] == ["stage1_32", "stage2_32", "stage3_32"]
    state, batch, _, key = mapped[1].arguments
    assert batch.images.shape == (8, 1, 1, 1, 32, 32, 4)
    assert state.alive.shape == (8, 64)
    assert key.shape == ()
    halves = programs["stage2_32"].cut.again(parallel.Layout(accumulate=2, grid=(2, 1, 1)))
    assert halves.arguments[1].images.shape[0] == 2
    assert programs["stage2_32"].arguments[1].images.size == halves.arguments[1].images.size


def run(*arguments):
    command = [sys.executable, "-m", "bench.compile", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--target=h200"], "--target=h200: expected one of h100, a100"),
        (["--devices=3"], "--devices=3: expected 1 or 8"),
        (["--limit=0"], "--limit=0: expected seconds above 0"),
        (["--set=seed"], "--set=seed: expected KEY=VALUE"),
        (["--out=/nowhere/at/all.json"], "--out=/nowhere/at/all.json: no such folder"),
    ],
)
def test_bad_flags_are_one_line(flags, said):
    done = run(*flags)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {said}")


@pytest.fixture(scope="module")
def compilers():
    """The Python of the compilers for GPUs."""
    return find_compilers()


@pytest.fixture(scope="module")
def broken(compilers):
    """What is found of the broken programs."""
    arguments = dict(names=["spilling", "filling", "cutting", "calling"])
    job = supervise.Job(H100, 1, (), arguments, source=BROKEN)
    heard = []
    results = supervise.run(job, compilers, lambda name, found: heard.append(name))
    assert heard == arguments["names"]
    for found in results.values():
        report.complete(found, H100)
    return results


def test_a_kernel_with_too_many_registers_is_seen_to_spill(broken):
    (kernel,) = broken["spilling"]["kernels"]
    assert kernel["name"] == "center_all"
    assert kernel["spill_bytes"] > 1_000
    assert "spills" in report.find_warnings(broken["spilling"])[0]


@pytest.mark.parametrize("compiler", ["triton", "mosaic"])
def test_the_rasterizers_kernels_do_not_spill(compilers, compiler):
    source = BROKEN.replace("list_broken", "list_kernels")
    job = supervise.Job(H100, 1, (), dict(compiler=compiler), source=source)
    found = supervise.run(job, compilers, lambda name, found: None)
    kernels = [kernel for each in found.values() for kernel in each["kernels"]]
    assert [kernel["name"] for kernel in kernels] == ["rasterize_forward", "rasterize_backward"]
    assert [kernel["spill_bytes"] for kernel in kernels] == [0, 0]
    assert min(kernel["occupancy"] for kernel in kernels) >= 0.25


def test_a_program_that_does_not_fit_is_refused_with_the_number(broken):
    assert broken["filling"]["temporaries_gib"] > 200_000**2 * 4 / GIB
    assert "does not fit: needs 298.02 GiB" in report.find_faults(broken)[0]


def test_a_step_that_does_not_fit_is_cut_as_training_cuts_it(broken):
    """298 GiB in one part, and so six where a program may take 53.4."""
    found = broken["cutting"]
    assert found["parts"] == 6
    assert 49 < found["needed_gib"] < 53.4
    assert report.table({"cutting": found})[-1].startswith("| cutting in 6 parts | ")


def test_a_call_of_the_host_in_a_step_is_found(broken):
    assert "calling: calls the host in every step (debug_callback)" in report.find_faults(broken)


def test_a_limit_is_kept_and_the_next_program_is_compiled(compilers):
    arguments = dict(names=["waiting", "calling"])
    job = supervise.Job(H100, 1, (), arguments, source=BROKEN, limit_s=8.0)
    results = supervise.run(job, compilers, lambda name, found: None)
    assert results["waiting"]["error"] == "not compiled in 8 s (--limit)"
    assert results["calling"]["host_calls"] == ["debug_callback"]


def test_the_command_writes_what_it_found(compilers, tmp_path):
    """The command itself, on the program that costs least."""
    out = tmp_path / "play.json"
    done = run("--target=h100", "--preset=smoke", "--programs=play", f"--out={out}")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["programs"]["play"]
    assert found["launches"] > 10
    assert found["matmul_flops"] > 0
    assert not found["host_calls"]
    assert done.stdout.count("play: compiled in") == 1
