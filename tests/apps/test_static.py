"""A run of another system than DIMO: trained by the same command, and told apart by the apps that cannot read it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dimo_jax.apps import train
from dimo_jax.configs.static import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.io.ply import read_gaussians
from dimo_jax.runs.restore import restore

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static") / "run"
    train.run(config=get_config("smoke"), workdir=str(folder))
    return folder


def test_it_ends_with_scores_pictures_and_gaussians(workdir):
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["held_out_views"]["num_images"] == 1
    assert np.isfinite(summary["held_out_views"]["psnr"])
    assert summary["num_gaussians"] == len(read_gaussians(workdir / "gaussians.ply").means) > 0
    for name in ("report.html", "views.png", "turntable.mp4", "metrics.jsonl"):
        assert (workdir / name).stat().st_size > 0, name
    assert "a static object" in (workdir / "report.html").read_text()


def test_apps_of_motion_spaces_refuse_it_in_a_line(workdir):
    says = "holds a run of dimo_jax.systems.static.system:Static, expected a motion space"
    with pytest.raises(UserError, match=says):
        restore(workdir)
    command = [sys.executable, str(ROOT / "launch.py"), "--app=sample", f"--workdir={workdir}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


def test_the_same_command_goes_on_and_ends_at_once(workdir):
    before = (workdir / "metrics.jsonl").read_text()
    train.run(config=get_config("smoke"), workdir=str(workdir))
    assert (workdir / "metrics.jsonl").read_text() == before
