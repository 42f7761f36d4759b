"""`--app=status` says how a run stands, without loading jax; the recorder writes what it reads."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from dimo_jax.apps.status import FACTS_FILE, report
from dimo_jax.core.errors import UserError
from dimo_jax.io.metrics_log import Board, MetricsLog, read_metrics
from dimo_jax.runs import restore
from dimo_jax.runs.recorder import LOG_FILE, Recorder, log_line, log_to
from dimo_jax.runtime.durations import format_span
from dimo_jax.runtime.lock import LOCK_FILE, hold
from dimo_jax.runtime.manifest import write_manifest
from dimo_jax.runtime.status import read_status, write_status

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 100
VALUES = {"loss": 2.5, "psnr": 21.0, "resolution": 64, "overflow": 0, "loss/rgb": 0.125}


@pytest.fixture
def folder(tmp_path, informed):
    """A run after 30 of 100 steps, as its recorder left it."""
    config = ConfigDict(dict(stage1=dict(num_steps=40), stage2=dict(num_steps=60)))
    config.batch = dict(motions=2, views=3, frames=4)
    now = [0.0]
    (tmp_path / "config.json").write_text("{}")
    for step in (10, 20):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    with MetricsLog(tmp_path / "metrics.jsonl") as log, Board(tmp_path / "board") as board, log_to(tmp_path):
        recorder = Recorder(config, tmp_path, log, board, num_steps=NUM_STEPS, clock=lambda: now[0])
        for step in (10, 20, 30):
            now[0] += 40.0
            recorder.scalars(step, "stage1", VALUES)
    return tmp_path


def test_rows_and_a_line_a_minute(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    assert [(row["steps_per_second"], row["images_per_second"]) for row in rows] == [(0.25, 6.0)] * 3
    lines = (folder / LOG_FILE).read_text().splitlines()
    assert [line.split(" step ")[1].split()[0] for line in lines] == ["10", "30"]
    assert "left at" not in lines[0]  # the time of the first steps is that of compiling them
    for part in ("30 of 100 (stage1, 64 px): loss 2.5 (rgb 0.125), PSNR 21.00 dB, 6 images/s, ", " 5 min left"):
        assert part in lines[1]


def test_running(folder):
    write_status(folder, "training")
    with hold(folder):
        lines = report(folder, time.time())
    assert lines[0].startswith(f"state:       running, training (process {os.getpid()} on ")
    assert lines[1:3] == [
        "step:        30 of 100 (stage1, 64 px)",
        "loss:        2.5, PSNR 21.00 dB of the training batch",
    ]
    assert lines[3].startswith("speed:       0.25 steps/s, 6 images/s, ")
    assert lines[3].endswith("; 5 min left at this speed")
    assert lines[5] == "checkpoints: 10, 20"


def test_a_copy_of_a_run_is_as_old_as_the_run(folder, tmp_path_factory):
    for step in (10, 20):
        write_manifest(folder / "checkpoints" / str(step))
    copy = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    now = time.time()
    for path in (copy, *copy.rglob("*")):
        os.utime(path, (now + 3600, now + 3600))
    lines = [line for line in report(copy, now + 3600) if line.startswith(("updated", "checkpoints"))]
    assert lines == ["updated:     60 min ago", "checkpoints: 10, 20 (the last 60 min ago)"]


def test_motions_are_listed_by_the_names_that_apps_take(folder):
    facts = dict(names=["walk", "star_jump"], captions=["Walks.", "Jumps, arms out."], splits=["train", "test"])
    (folder / FACTS_FILE).write_text(json.dumps(facts))
    assert report(folder, 0)[-3:] == [
        "motions:     2 (1 train, 1 test)",
        "  walk       train  Walks.",
        "  star_jump  test   Jumps, arms out.",
    ]
    assert restore.FACTS_FILE == FACTS_FILE


def test_compilation_is_no_steps_time(tmp_path, informed):
    config = ConfigDict(dict(stage1=dict(num_steps=40), stage2=dict(num_steps=60)))
    config.batch = dict(motions=2, views=3, frames=4)
    now = [0.0]
    with MetricsLog(tmp_path / "metrics.jsonl") as log, Board(tmp_path / "board") as board:
        recorder = Recorder(config, tmp_path, log, board, num_steps=NUM_STEPS, clock=lambda: now[0])
        recorder.resumed(0)
        for step, compiling in ((10, 900.0), (20, 0.0), (30, 300.0)):
            now[0] += 40.0 + compiling
            recorder.scalars(step, "stage1", VALUES | dict(compile_seconds=compiling))
            left = read_status(tmp_path)["seconds_left"]
            assert left is None if step == 10 else left == 4.0 * (100 - step)
    assert [row["steps_per_second"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0.25] * 3


def test_killed_stopped_failed_and_finished(folder):
    (folder / LOCK_FILE).write_text(json.dumps({"host": "far", "pid": 7, "since": 0}))
    assert "ended without a word, as after kill -9 or a power cut (process 7 on far" in report(folder, 0)[0]
    (folder / LOCK_FILE).write_text("")
    for state, message in (("stopped", "SIGTERM after step 30"), ("failed", "step 31: the loss is nan")):
        write_status(folder, state, message=message)
        assert report(folder, 0)[0] == f"state:       {state}: {message}"
    (folder / "summary.json").write_text(json.dumps({"held_out_views": {"psnr": 30.25, "num_images": 4}}))
    write_status(folder, "finished")
    lines = report(folder, 0)
    assert lines[0] == "state:       finished"
    assert lines[-1] == "held out views:    psnr 30.25"
    assert read_status(folder)["step"] == 30


def test_motions_are_listed_and_the_worst_named(folder):
    def row(value):
        return dict(psnr=30.0, psnr_foreground=value, psnr_foreground_undefined=0)

    views = dict(
        psnr=30.25, psnr_undefined=0, psnr_foreground_undefined=3, lpips_images=[[0, 1, 2]], worst_motion="run"
    )
    views["motions"] = dict(walk=row(21.5), hide=row(None), run=row(9.25))
    frames = dict(psnr=28.0, motions=dict(walk=row(1.0)))
    summary = dict(held_out_views=views, held_out_frames=frames, static_baseline=None)
    (folder / "summary.json").write_text(json.dumps(summary))
    assert report(folder, 0)[-6:] == [
        "held out views:    psnr 30.25, psnr_foreground_undefined 3",
        "held out frames:   psnr 28",
        "worst motion:      run; PSNR of each motion's figure, held out views:",
        "  run    9.25 dB",
        "  walk  21.50 dB",
        "  hide  undefined",
    ]
    summary["held_out_views"] = None
    (folder / "summary.json").write_text(json.dumps(summary))
    assert report(folder, 0)[-2].endswith("held out frames:")


def test_the_objects_of_a_list(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("list")
    (place / "logs").mkdir()
    write_status(folder, "stopped", message="SIGTERM after step 30")
    folder.rename(place / "owl")
    (place / "fox").mkdir()
    (place / "fox" / "config.json").write_text("{}")
    assert report(place, 0) == [
        "fox: not finished; the same command goes on",
        "owl: stopped: SIGTERM after step 30",
    ]


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no such folder, expected the workdir of a training run"):
        report(tmp_path / "none", 0)
    with pytest.raises(UserError, match=r"no config\.json in it"):
        report(tmp_path, 0)


def test_command_loads_no_jax(folder):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['launch.py', '--app=status', '--workdir={folder}']\n"
        "try:\n    runpy.run_path('launch.py', run_name='__main__')\n"
        "finally:\n    print('loaded:', *({'jax', 'numpy', 'orbax'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("state: "), done.stderr
    assert done.stdout.endswith("loaded:\n")
    assert done.returncode == 0


def test_lines_for_a_terminal_go_to_the_file_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with log_to(tmp_path):
        log_line("step 1")
    assert (tmp_path / LOG_FILE).read_text().endswith("INFO step 1\n")
    assert "step 1" not in capsys.readouterr().err


def test_spans():
    spans = [format_span(seconds) for seconds in (-1, 40, 89, 90, 600, 5400, 11100)]
    assert spans == ["0 s", "40 s", "89 s", "2 min", "10 min", "1 h 30 min", "3 h 05 min"]


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"num_steps": None}, "TypeError|KeyError"),
        ({"resolution": "16.0"}, "ValueError"),
        ({"psnr": [1, 2]}, "TypeError"),
        ({"time": ".."}, "TypeError"),
        ({"stage": "-"}, ""),
    ],
)
def test_a_damaged_status_is_one_line(folder, changed, says):
    facts = dict(step=10, num_steps=20, stage="stage1", resolution=16.0, loss=1.0, psnr=20.0, time=0.0)
    found = {name: value for name, value in (facts | changed).items() if value is not None}
    (folder / "status.json").write_text(json.dumps(found))
    (folder / "summary.json").write_text(json.dumps({"held_out_views": {"psnr": [1], "ssim": 0.5}}))
    if not says:
        assert "held out views:    ssim 0.5" in report(folder, 60.0)
        return
    with pytest.raises(UserError, match=rf"status\.json: is damaged \(({says})") as caught:
        report(folder, 60.0)
    assert "\n" not in str(caught.value)


def test_files_of_another_kind_are_as_none(folder):
    for name in ("status.json", "summary.json"):
        (folder / name).write_text(DEEP)
    for pid, since in (("x", []), (float("inf"), float("nan")), (2, float("inf")), (None, 10**400)):
        (folder / LOCK_FILE).write_text(json.dumps({"host": 3, "pid": pid, "since": since}))
        assert report(folder, 0.0)[0].startswith("state:       ended without a word")
