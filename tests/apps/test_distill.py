"""`--app=distill`: its flags, its plan, and what it refuses. The chain itself is tested in tests/distill."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dimo_jax.apps.distill import load_default, run
from dimo_jax.core.errors import UserError
from dimo_jax.priors.video_models import PACKAGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "toy.png")
    return tmp_path / "toy.png"


def test_the_plan_costs_nothing_and_says_what_is_missing(picture, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    config = load_default()
    config.takes = 2
    config.estimate.update(video_seconds=36.0, views_seconds=72.0)
    run(image=str(picture), out=str(tmp_path / "out"), config=config, dry_run=True)
    said = capsys.readouterr().out
    assert "2 videos   100 of 49 frames, 720x480, by THUDM/CogVideoX-5b-I2V: 1.0 GPU hours" in said
    assert "together at most 3.0 GPU hours" in said
    assert "missing: config.client: the environment has no OPENAI_API_KEY" in said
    assert "missing: config.views.checkout: not given" in said
    assert not (tmp_path / "out").exists()


def test_the_plan_through_the_command_line(picture, tmp_path):
    (tmp_path / "motions.txt").write_text("waves\njumps\n")
    command = [
        sys.executable,
        str(ROOT / "launch.py"),
        "--app=distill",
        f"--image={picture}",
        f"--out={tmp_path / 'o'}",
    ]
    command += [f"--config={ROOT}/configs/distill.py:wan", f"--prompts={tmp_path / 'motions.txt'}", "--dry_run"]
    command += ["--config.score.fn=", "--config.views.fn=dimo_jax.priors.novel_views:input_view_only"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 prompts  2 motions, read from" in done.stdout
    assert "by Wan-AI/Wan2.1-I2V-14B-480P-Diffusers" in done.stdout
    assert "input_view_only: 0.0 GPU hours" in done.stdout
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    missing = [line for line in done.stdout.splitlines() if line.startswith("missing")]
    assert [line.split(" not found")[0] for line in missing] == [
        f"missing: config.video: package {name}" for name in absent[:1]
    ]


def test_what_it_refuses(picture, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match=r"--image=.*absent.png: cannot be read"):
        run(image=str(tmp_path / "absent.png"), out=out)
    with pytest.raises(UserError, match=r"--prompts=.*absent.txt: cannot be read"):
        run(image=str(picture), out=out, prompts=str(tmp_path / "absent.txt"))
    with pytest.raises(UserError, match=r"--out=.*: found a folder with other files"):
        run(image=str(picture), out=str(tmp_path))
    for key, value, expected in (
        ("num_prompts", 0, "an integer of at least 1"),
        ("takes", 0, "an integer of at least 1"),
        ("framing.num_frames", 50, "at most config.video.num_frames, 49"),
        ("framing.margin", 0.5, "0 to 0.4"),
        ("image.share", 0.1, "0.2 to 1"),
    ):
        config = load_default()
        config.update_from_flattened_dict({key: value})
        with pytest.raises(UserError, match=rf"config\.{key}: found {value}, expected {expected}"):
            run(image=str(picture), out=out, config=config, dry_run=True)
    config = load_default()
    del config.views
    with pytest.raises(UserError, match=r"--config: found a config without views"):
        run(image=str(picture), out=out, config=config)
    assert not (tmp_path / "out").exists()
