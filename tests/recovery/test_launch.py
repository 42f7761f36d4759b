"""A run from the command line: watched, defended against a second one, and stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def launch(folder, *arguments):
    command = [sys.executable, str(ROOT / "launch.py"), "--workdir=run", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | VARIABLES, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_run_is_watched_defended_and_stopped(tmp_path):
    flags = [f"--config={ROOT}/configs/dimo.py:smoke", "--config.stage1.num_steps=1000000"]
    flags += ["--config.checkpoint_every=1000", "--config.log_every=10", "--config.image_every=0"]
    run = launch(tmp_path, *flags)
    end = time.monotonic() + 300
    while not (tmp_path / "run/metrics.jsonl").exists() or not (tmp_path / "run/metrics.jsonl").stat().st_size:
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.2)

    status, _ = launch(tmp_path, "--app=status").communicate()
    assert status.startswith(f"state:       running, training (process {run.pid} on ")
    assert "of 1000004 (stage1, 32 px)" in status

    second = launch(tmp_path, *flags)
    said = second.communicate()[1].splitlines()[-1]
    assert said.startswith(f"error: --workdir=run: in use by process {run.pid} on ")
    assert second.returncode == 2

    run.send_signal(signal.SIGTERM)
    said = run.communicate()[1].splitlines()
    assert run.returncode == 75
    assert said[-1].startswith("stopped: SIGTERM after step ")
    assert said[-1].endswith(", which is saved; the same command goes on from there")
    assert not any("\r" in line or "it/s" in line for line in said)  # no progress bar where nobody looks
    step = said[-1].split()[4].rstrip(",")
    assert (tmp_path / "run/checkpoints" / step / "manifest.json").is_file()
    status, _ = launch(tmp_path, "--app=status").communicate()
    assert status.startswith(f"state:       stopped: SIGTERM after step {step}, which is saved")
