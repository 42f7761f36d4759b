"""The script for a machine with an accelerator: its commands parse, and what fails is said and stops no other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands for the interpreter: takes the flags of a bench and ends, lets pytest collect, and fails where it is asked to.
STAND_IN = f"""#!{sys.executable}
import importlib, os, sys
from absl import flags
if sys.argv[1] == "-c":
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
module, arguments = sys.argv[2], sys.argv[3:]
if module == os.environ.get("FAILING"):
    sys.exit("error: it fails")
if module == "pytest":
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "--collect-only", *arguments])
importlib.import_module(module)
assert flags.FLAGS([module, *arguments]) == [module]
print("parsed", module)
"""


def run(tmp_path, *arguments, **environment):
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    environment = os.environ | {"PYTHON": str(python), "PYTHONPATH": str(ROOT)} | environment
    command = ["bash", str(ROOT / "bench/on_device.sh"), *arguments]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)


def test_every_command_can_be_parsed_and_finds_its_tests(tmp_path):
    done = run(tmp_path, "out")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = (tmp_path / "out/summary.md").read_text()
    parts = ["machine", "contract", "triton", "rasterize", "train", "step"]
    assert re.findall(r"^## (\w+)", summary, re.MULTILINE) == parts
    assert [name for name in ("rasterize", "train", "step") if f"parsed bench.{name}" not in summary] == []
    contract = (tmp_path / "out/contract.txt").read_text()
    for backend in ("xla", "pallas"):
        assert f"test_random_scenes[{backend}-40-56-1]" in contract
        assert f"test_thousands_in_one_pixel[{backend}]" in contract
    assert "test_random_scenes[pallas-40-56-1]" in (tmp_path / "out/triton.txt").read_text()
    assert "every part ended well." in summary
    assert "jax " in summary


def test_a_part_that_fails_is_said_and_stops_no_other(tmp_path):
    done = run(tmp_path, "out", "--small", FAILING="bench.train")
    assert done.returncode == 1
    summary = (tmp_path / "out/summary.md").read_text()
    assert "failed: train." in summary
    assert summary.index("error: it fails") < summary.index("parsed bench.step")


@pytest.mark.parametrize(
    ("arguments", "found"), [([], "no folder"), (["--small"], "--small"), (["out", "fast"], "fast")]
)
def test_bad_arguments_are_one_line(tmp_path, arguments, found):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr == f"error: found {found}; expected OUT [--small]\n"
    assert not (tmp_path / "out").exists()
