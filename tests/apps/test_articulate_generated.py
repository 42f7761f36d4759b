"""`--app=articulate --motion=generated`: a video model tells the joint, and what cannot be asked is said."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
from support.known_motion import know_motion

from dimo_jax.apps import articulate
from dimo_jax.apps.articulate import run
from dimo_jax.core.errors import UserError
from dimo_jax.data.cabinet import TRUE_JOINTS, make_cabinet
from dimo_jax.meshes.cuts import cut_object
from dimo_jax.meshes.parts import find_part

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def door_opens(monkeypatch, tmp_path):
    """A workdir whose model knows that the cabinet's door opens by 1.2 rad."""
    thing = make_cabinet()
    body, part = cut_object(thing, find_part(thing, "door"))
    generator = know_motion(body, part, TRUE_JOINTS["door"], np.linspace(0, 1.2, 3), size=24)
    monkeypatch.setattr(articulate, "load_generator", lambda source: generator)
    sampling = {"num_steps": 4, "guidance": 1.0}
    monkeypatch.setattr(articulate, "read_sampling", lambda source: sampling)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_the_door_is_found_to_urdf_and_what_was_imagined_is_shown(door_opens, tmp_path, capsys):
    given = dict(source="cabinet", part="door", prompt="slide the window open", motion="generated")
    run(**given, workdir=str(door_opens), out=str(tmp_path / "out"), size=64)
    found = json.loads((tmp_path / "out" / "joint.json").read_text())
    truth = TRUE_JOINTS["door"]
    assert (found["type"], found["source"]) == ("revolute", "generated motion")
    assert np.dot(found["axis"], truth.axis) > np.cos(0.15)
    off = np.cross(np.subtract(found["origin"], truth.origin), truth.axis)
    assert np.linalg.norm(off) < 0.05 * 1.17  # of the diagonal
    np.testing.assert_allclose(found["range"], [0, 1.2], atol=0.25)
    assert found["confidence"] > 0.9
    assert [each["type"] for each in found["runners_up"]] == ["prismatic"]
    assert found["doubts"] == ["the sentence asks for sliding, the motion shows turning"]
    assert "doubtful: the sentence asks for sliding" in capsys.readouterr().out
    yourdfpy = pytest.importorskip("yourdfpy", reason="yourdfpy is not installed: pip install yourdfpy")
    robot = yourdfpy.URDF.load(str(tmp_path / "out" / "object.urdf"))
    assert [robot.joint_map[name].type for name in robot.actuated_joint_names] == ["revolute"]
    frames = iio.imread(tmp_path / "out" / "generated.mp4", plugin="FFMPEG")
    assert len(frames) == 3
    assert frames.shape[2] > 1.5 * frames.shape[1]  # two views beside each other
    changed = np.abs(frames[2].astype(int) - frames[0]).max(axis=-1) > 60
    assert 0.01 < changed.mean() < 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(), "--motion=generated: found neither --workdir nor --config, expected a run of configs/atop.py"),
        (dict(workdir="nowhere"), "--workdir=nowhere: no such file or folder"),
        (dict(workdir=".", prompt=" "), "--prompt: empty, expected what the part shall do"),
        (dict(workdir=".", parts="parts.json"), "--motion=generated: found beside --parts, expected --part"),
        (dict(workdir="."), "config.json"),
        (dict(motion="geometry", seed=3), "--seed: found 3, expected --motion=generated with it"),
        (dict(motion="geometry", workdir="."), "--workdir: found '.', expected --motion=generated with it"),
    ],
)
def test_what_cannot_be_asked_is_said_and_nothing_is_written(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = dict(source="cabinet", part="door", prompt="open the door", motion="generated", out="out") | given
    if "parts" in flags:
        flags |= dict(part="", prompt="")
    with pytest.raises(UserError, match=message):
        run(**flags)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_no_view_sees_is_said(door_opens, tmp_path):
    """Of the cabinet's back wall views from the front see nothing through its closed front."""
    flags = dict(source="cabinet", prompt="open", motion="generated", workdir=str(door_opens), out=str(tmp_path / "o"))
    with pytest.raises(UserError, match=r"--motion=generated: none of the model's views .* sees the part"):
        run(**flags, part="box:-0.2,0.1,-0.21,0.2,0.5,-0.17")
    assert not (tmp_path / "o").exists()
