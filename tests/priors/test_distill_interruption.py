"""A run that is killed at every line of its manifest, before or after it is written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dimo_jax.data.formats.native import read_dataset


@pytest.mark.slow
def test_a_run_killed_at_every_step_ends_like_an_unbroken_one(server, tmp_path):
    script = Path(__file__).with_name("interrupted.py")
    command = [sys.executable, str(script), str(tmp_path), server.url]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr[-3000:]
    whole = (tmp_path / "unbroken/manifest.jsonl").read_bytes()
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == whole
    assert int(done.stdout) == whole.count(b"\n") >= 20
    first, second = (read_dataset(tmp_path / name / "dataset") for name in ("unbroken", "out"))
    np.testing.assert_array_equal(first.frames, second.frames)
    # Two videos; at most the one of a line that was killed before it was written is made twice.
    assert (tmp_path / "calls.txt").read_text().count("\n") <= 3
