"""`bench.rigs` on a small rig: every column is there and small, and a second call measures nothing anew."""

import json
import sys

import pytest
from support.small_rig import write_small_rig

from bench import rigs


@pytest.fixture
def call(tmp_path, monkeypatch, quick_compile):
    """Runs the benchmark on a folder with the small rig and a model without a skin; returns what it wrote."""
    write_small_rig(tmp_path / "rigs_small.glb")
    write_small_rig(tmp_path / "rigs_bare.glb", skin=False)

    def run(*options):
        out = tmp_path / "out.json"
        monkeypatch.setattr(rigs, "TIMED_FRAMES", 6)  # of one size with the others, which compiles once
        monkeypatch.setattr(sys, "argv", ["bench.rigs", f"--data={tmp_path}", f"--out={out}", "--frames=6", *options])
        rigs.main()
        return json.loads(out.read_text())

    return run


def test_a_row_for_every_rig_and_none_measured_twice(call, capsys, monkeypatch):
    found = call()
    row = found["rigs"]["rigs_small.glb"]
    assert set(rigs.COLUMNS) <= set(row)
    assert (row["joints"], row["clips"], row["markers"], row["clip"]) == (8, 1, 10, "Swing")
    assert 0 < row["fk_error"] < 1e-3
    assert 0 < row["ik_floor"] <= row["ik_worst"] < 0.5
    assert row["round_trip_joint"] < 0.1
    assert row["round_trip_vertex"] < 1
    assert 0 < row["ik_cpu_seconds"] < 10
    assert "no skin found" in found["rigs"]["rigs_bare.glb"]["error"]
    assert "rigs_bare.glb" in capsys.readouterr().out

    def refuse(*_):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(rigs, "measure", refuse)
        assert call() == found
    with monkeypatch.context() as patch:
        patch.setattr(rigs, "measure", lambda *options: {"error": str(options[1:])})
        assert call("--clips=2")["rigs"]["rigs_small.glb"] == {"error": "(6, 2)"}  # other options, other figures
