"""Two processes over loopback equal one; their checkpoint goes on elsewhere; one that dies takes the other along."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Instructions that are cheap to compile are good enough here.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def start(workdir, *, num_devices=1, accumulate=1, port=None, process=0):
    """Starts one process of `check_hosts.py`; one of two where there is a port."""
    command = [sys.executable, str(Path(__file__).parent / "check_hosts.py"), str(workdir), str(num_devices)]
    command += [str(accumulate)] + ([f"127.0.0.1:{port}", "2", str(process)] if port else [])
    flags = f"{FLAGS} --xla_force_host_platform_device_count={num_devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1]), out


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The workdir of a run by two processes, and what each of them printed."""
    workdir, port = tmp_path_factory.mktemp("two") / "run", free_port()
    processes = [start(workdir, port=port, process=index) for index in range(2)]
    return workdir, [finish(process)[0] for process in processes]


@pytest.mark.slow
def test_two_processes_equal_one_with_two_devices(two, tmp_path):
    _, (first, second) = two
    assert first == second
    one, _ = finish(start(tmp_path / "one", num_devices=2))
    assert len(one["losses"]) == 20
    assert first == one


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_goes_on_in_one_with_one_device(two, tmp_path):
    workdir, (first, _) = two
    shutil.copytree(workdir, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {"5", "10", "15", "16", "20"} <= {path.name for path in checkpoints.iterdir()}
    for step in ("10", "15", "16", "20"):
        shutil.rmtree(checkpoints / step)
    one, out = finish(start(tmp_path / "run", accumulate=2))
    assert "resumed 5" in out
    assert one["losses"] == first["losses"][5:]
    assert one["hashes"] == first["hashes"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_within_a_minute(tmp_path, victim):
    port = free_port()
    processes = [start(tmp_path / "run", port=port, process=index) for index in range(2)]
    try:
        for line in processes[victim].stdout:
            if line.startswith("step"):
                break
        processes[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, err = processes[1 - victim].communicate(timeout=120)
        assert time.monotonic() - began < 60
        assert processes[1 - victim].returncode not in (0, None)
        assert "error: process" in err or "coordinat" in err.lower(), err[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
