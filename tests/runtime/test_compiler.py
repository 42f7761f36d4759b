"""The flag is set where XLA knows it, beside a user's own flags, and jax runs with it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from dimo_jax.native import library
from dimo_jax.runtime import compiler
from dimo_jax.runtime.compiler import _NATIVE as NATIVE
from dimo_jax.runtime.compiler import leave_reductions_to_xla


@pytest.fixture(autouse=True)
def compiled(monkeypatch, tmp_path):
    """As where the native code is."""
    monkeypatch.setattr(compiler, "_NATIVE", tmp_path)


RUN = """
import sys
from pathlib import Path
from dimo_jax.runtime import compiler
from dimo_jax.runtime.compiler import leave_reductions_to_xla
compiler._NATIVE = Path(".")
chosen = sys.argv[1] == "leave" and leave_reductions_to_xla()
import jax, jax.numpy as jnp
compiled = jax.jit(lambda x: x.sum(axis=0)).lower(jnp.ones((8, 20_000, 3))).compile()
print(chosen, "ynn" in compiled.as_text(), float(compiled(jnp.ones((8, 20_000, 3)))[0, 0]))
"""


@pytest.mark.parametrize("before", ["", "--xla_force_host_platform_device_count=2"])
def test_adds_to_the_flags_that_are_there(before: str) -> None:
    environment = {"XLA_FLAGS": before}
    assert leave_reductions_to_xla(environment, jaxlib="0.10.2")
    assert environment["XLA_FLAGS"].split() == [*before.split(), "--xla_cpu_experimental_ynn_fusion_type="]


@pytest.mark.parametrize(
    ("before", "jaxlib"), [("", "0.11.0"), ("--xla_cpu_experimental_ynn_fusion_type=+reduce", "0.10.2")]
)
def test_leaves_other_versions_and_own_choices_alone(before: str, jaxlib: str) -> None:
    environment = {"XLA_FLAGS": before}
    assert not leave_reductions_to_xla(environment, jaxlib=jaxlib)
    assert environment["XLA_FLAGS"] == before


def test_leaves_a_machine_without_native_code_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "_NATIVE", tmp_path / "missing.so")
    environment = {"XLA_FLAGS": ""}
    assert not leave_reductions_to_xla(environment, jaxlib="0.10.2")
    assert environment == {"XLA_FLAGS": ""}


def test_the_native_code_is_looked_for_where_it_is_built():
    assert library.PATH == NATIVE


def test_the_flag_takes_reductions_from_the_library() -> None:
    """Without it they go there, so that it is known to matter; later versions of jax are left alone."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    outcomes = {}
    for mode in ("leave", "default"):
        run = subprocess.run([sys.executable, "-c", RUN, mode], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        outcomes[mode] = run.stdout.split()
    known = version("jaxlib").startswith("0.10.")
    assert outcomes["leave"] == [str(known), "False", "8.0"] or not known
    assert outcomes["default"] == ["False", "True", "8.0"] or not known
    assert {outcome[2] for outcome in outcomes.values()} == {"8.0"}
