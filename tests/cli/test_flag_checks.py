"""Flags' values are checked in the first second: without jax, in every app, by the rules that `run` has itself."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dimo_jax.cli import flag_checks
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.cli.parameters import REQUIRED, list_apps, read_app
from dimo_jax.core.errors import UserError
from dimo_jax.runs.choice import LINES

ROOT = Path(__file__).resolve().parents[2]


def defaults_of(app):
    return {name: parameter.default for name, parameter in read_app(app).parameters.items()}


def test_choices_are_those_of_the_modules_that_serve_them():
    assert (
        read_app("export").parameters["geometry"].choices
        == importlib.import_module("dimo_jax.io.gltf.skinned").GEOMETRIES
    )
    assert tuple(importlib.import_module("dimo_jax.apps.interpolate").LINES) == LINES
    assert importlib.import_module("dimo_jax.data.sources").GLTF_SUFFIXES == flag_checks.GLTF_SUFFIXES


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "a.glb").write_bytes(b"")
    (tmp_path / "taken").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("app", "flags", "says"),
    [
        ("export", dict(format="fbx"), "--format: found 'fbx', expected some of ply, splat, gltf, glb, mesh, video"),
        (
            "export",
            dict(format="video", motion="a", layers="colour"),
            "--layers: found 'colour', expected some of color",
        ),
        ("export", dict(format="npz"), "--motion: found no motion, expected one of --motion=NAME"),
        ("export", dict(format="npz", motions="a"), "--motions: found 'a', expected two names or more"),
        ("export", dict(format="npz", motion="a", frame=-1), "--frame: found -1, expected at least 0"),
        (
            "export",
            dict(format="ply", motion="a", influences=4),
            "--influences: found 4, expected --format=glb or mesh",
        ),
        ("export", dict(format="npz", code="no.npz"), "--code=no.npz: no such file or folder, expected an npz"),
        ("export", dict(format="mesh", motion="a", source="no.glb"), "--source: found 'no.glb', expected the .glb"),
        ("export", dict(format="npz", motion="a", workdir="none"), "--workdir=none: no such folder, expected the"),
        ("sample", dict(num_samples=0), "--num_samples: found 0, expected at least 1"),
        ("sample", dict(camera="orbit", azimuths="0"), "--azimuths: found '0', expected 2 numbers"),
        ("sample", dict(elevation=3.0), "--elevation: found 3.0, which a fixed camera has not"),
        ("sample", dict(checkpoint="first"), "--checkpoint: found 'first', expected one of last, best"),
        ("sample", dict(out="taken"), "--out=taken: found a file, expected a folder"),
        ("interpolate", dict(motions="a,b", num_steps=1), "--num_steps: found 1, expected at least 2"),
        ("interpolate", dict(motions="a"), "--motions: found 'a', expected two names or more"),
        ("reconstruct", dict(start="far"), "--start: found 'far', expected one of nearest, mean"),
        ("reconstruct", dict(source="none"), "--source=none: no such file or folder, expected a dataset folder"),
        ("text", dict(), "--prompt: found --prompt='', expected --prompt="),
        ("evaluate", dict(num_samples=1), "--num_samples: found 1, expected at least 2"),
        ("evaluate", dict(gt="a"), "--gt, --pred: found 'a' and '', expected both or neither"),
        ("view", dict(port=70_000), "--port: found 70000, expected 0 to 65535"),
        ("import_data", dict(source="none.glb", out="o"), "none.glb: no such file or folder, expected data to read"),
        ("import_data", dict(source="a.glb", out="o", num_frames=1), "--num_frames: found 1, expected at least 2"),
        ("import_data", dict(source="a.glb", out="o", fov_deg=180.0), "--fov_deg: found 180, expected 1 to 120"),
        ("import_data", dict(source="a.glb", out="o", azimuths="0,north"), "--azimuths: found '0,north', expected num"),
        ("distill", dict(image="none.png", out="o"), "--image=none.png: no such file or folder, expected a picture"),
        ("train", dict(shard="1/2"), "--shard: found without --object_list"),
        ("train", dict(stretch=0.0), "--stretch: found 0.0, expected a number above 0"),
        ("train", dict(stretch=float("nan")), "--stretch: found nan, expected a number above 0"),
        ("train", dict(object_list="none.txt"), "--object_list=none.txt: cannot be read"),
        ("replay", dict(step=-1), "--step: found -1, expected at least 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_values_are_refused_in_one_line(app, flags, says, place):
    given = defaults_of(app) | {"workdir": "run"} | flags
    with pytest.raises(UserError) as error:
        check_flags(app, given)
    assert says in str(error.value)
    assert sorted(os.listdir(place)) == ["a.glb", "run", "taken"]


@pytest.mark.parametrize("app", [app for app in list_apps() if app not in ("status", "export", "text", "interpolate")])
def test_defaults_are_fine(app, place):
    given = {name: "run" if value is REQUIRED else value for name, value in defaults_of(app).items()}
    if app == "animate":  # which needs a model, and what moves it
        given |= {"source": "a.glb", "poses": "run", "out": "b.glb"}
    if app == "pose_maps":
        given |= {"source": "a.glb", "out": "poses"}
    check_flags(app, given)


def test_a_bad_value_is_said_before_jax_is_loaded(place):
    """In its own process, in which jax cannot be imported at all."""
    (place / "jax.py").write_text("raise SystemExit('jax was loaded')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])}
    for flags, says in (
        (["--app=export", "--format=fbx"], "error: --format: found 'fbx', expected some of ply, "),
        (["--app=sample", "--num_samples=0"], "error: --num_samples: found 0, expected at least 1"),
        (
            ["--app=sample", "--test_clips=Walk"],
            "error: --test_clips: found a flag of import_data that --app=sample does not take",
        ),
        (
            ["--app=interpolate", "--path=sperical"],
            "error: --path: found 'sperical', expected one of linear, spherical; ",
        ),
        (["--app=interpolate"], "error: --motions: not given, expected --motions=..."),
    ):
        command = [sys.executable, str(ROOT / "launch.py"), *flags]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(says)
