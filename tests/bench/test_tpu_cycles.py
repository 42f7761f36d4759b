"""What the compiler for TPUs says of loops, and the kernels that it has to take."""

import pytest

from bench import tpu_cycles
from bench.compile import environment

BUNDLES = """
= control target key start
LB: loop body
     0   :  { %s1 = smov 0 }
  25   0xd   :  { %s1236 = smov 0 }
   0xe LB: > { %1601 = sst [smem:[#a]] %s1 }
   0xf LB: >> { %43 = sbr.rel target = $region12 }
  0x10 LB: >>> { %1 = sst }
  0x11   : >>> { %2 = vmul.f32 }
  0x12   : >>> { %3 = sbr.rel }
  0x13 PF: >> { %s2 = sld }
  0x14 LB: >>> { %4 = sst }
  0x15   : > { %5 = sld }
"""
PROGRAM = """HloModule jit_draw, is_scheduled=true

%scan (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %y = f32[4]{0} fusion(%p), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"7"}
  ROOT %t = (s32[], f32[4]{0}) tuple(%p, %y)
}

%until (p: (s32[], f32[4])) -> pred[] {
  %most = s32[]{:T(128)} constant(32), metadata={op_name="while"}
  ROOT %lt = pred[] compare(%p, %most), direction=LT
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} fusion(%p), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"100"}
  %w = (s32[], f32[4]{0}) while(%p), condition=%until, body=%scan, backend_config={"estimated_cycles":"9223372036854775807"}
  ROOT %t = (s32[], f32[4]{0}) tuple(%p, %x)
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %sort = f32[4]{0} fusion(%a), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"900000"}
  %v = (s32[], f32[4]{0}) while(%a), condition=%some, body=%body
  ROOT %out = f32[4]{0} get-tuple-element(%v), index=1
}
"""  # noqa: E501


def test_the_longest_innermost_loop_is_counted():
    assert tpu_cycles.count_line(BUNDLES) == 3
    assert tpu_cycles.count_line("nothing") == 0


def test_a_turn_counts_the_loops_in_it_at_their_length():
    assert tpu_cycles.count_turn(PROGRAM) == 100 + 32 * 7


def test_the_table_says_how_much_further_xla_is_from_the_schedule():
    found = dict(forward=80, backward=800, xla_forward=64 * 32 * 64, xla_backward=2 * 64 * 32 * 64)
    rows = tpu_cycles.tell(found, 8, 32)
    assert rows[2].startswith("| forward | 10.0 | 0.0098 | 1.000 | ")
    assert rows[2].split(" | ")[-1] == f"{1024 / 10 * (24 + 8) ** 2 / (24 + 32) ** 2:.1f} |"


def test_the_compiler_takes_both_kernels(tmp_path):
    """As of a TPU v5e; a line of eight Gaussians stays under a thousand cycles."""
    python = environment.find_made("tpu")
    if python is None:
        pytest.skip("no compiler for TPUs was installed (python -m bench.tpu_cycles does)")
    found = tpu_cycles.ask(python, "v5e", ("forward", "backward"))
    assert 0 < found["forward"] < found["backward"] < 1_000
