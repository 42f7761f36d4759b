"""`--app=articulate --motion=...`: a motion that was seen tells the joint, and what is none is said."""

import json

import numpy as np
import pytest

from bench.seen_motions import Case, make_points, make_video
from dimo_jax.apps.articulate import run
from dimo_jax.core.errors import UserError
from dimo_jax.data.cabinet import TRUE_JOINTS, make_cabinet
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats.native import write_dataset
from dimo_jax.geometry.joint import move_points
from dimo_jax.meshes.cuts import cut_object
from dimo_jax.meshes.parts import find_part


def make_case(name, values):
    thing = make_cabinet()
    return Case(name, *cut_object(thing, find_part(thing, name)), TRUE_JOINTS[name], np.asarray(values))


def read_joint(folder):
    return json.loads((folder / "joint.json").read_text())


def check(found, truth, far):
    assert found["type"] == truth.type
    assert np.dot(found["axis"], truth.axis) > np.cos(np.deg2rad(1))
    np.testing.assert_allclose(found["range"], [0, far], rtol=0.03, atol=0.01)


def test_points_give_the_joint_without_a_sentence(tmp_path, capsys):
    case = make_case("door", np.linspace(0, 0.8, 5))
    points = make_points(case, seed=0, noise=0.002, count=500).points
    np.savez(tmp_path / "door.npz", points=np.stack(points))
    run(source="cabinet", part="door", motion=str(tmp_path / "door.npz"), out=str(tmp_path / "out"), size=64)
    check(read_joint(tmp_path / "out"), case.joint, 0.8)
    assert (tmp_path / "out" / "object.xml").is_file()
    assert "doubtful" not in capsys.readouterr().out


def test_meshes_of_the_part_give_the_joint_and_a_sentence_may_contradict(tmp_path):
    case = make_case("door", np.linspace(0, 0.8, 4))
    (tmp_path / "door").mkdir()
    for frame, vertices in enumerate(move_points(case.joint, case.values, case.part.vertices)):
        lines = [f"v {x} {y} {z}" for x, y, z in vertices]
        lines += [f"f {a} {b} {c}" for a, b, c in case.part.triangles + 1]
        (tmp_path / "door" / f"{frame}.obj").write_text("\n".join(lines) + "\n")
    given = dict(source="cabinet", part="door", prompt="slide the window", motion=str(tmp_path / "door"), size=64)
    run(**given, out=str(tmp_path / "out"))
    found = read_joint(tmp_path / "out")
    check(found, case.joint, 0.8)
    assert found["doubts"] == ["the sentence asks for sliding, the motion shows turning"]


@pytest.mark.slow
def test_videos_give_the_joint(tmp_path):
    case = make_case("drawer", np.linspace(0, 0.2, 4))
    video = make_video(case, seed=0, side=64)
    views = tuple(f"view{index}" for index in range(4))
    given = dict(names=("open",), captions=("it opens",), splits=("train",), view_names=views)
    dataset = Dataset(video.frames[None], video.cameras, **given, view_splits=("train",) * 4, frame_rate=10.0,
                      object_name="cabinet")  # fmt: skip
    write_dataset(dataset, tmp_path / "videos")
    run(source="cabinet", part="drawer", motion=str(tmp_path / "videos"), out=str(tmp_path / "out"), size=64)
    check(read_joint(tmp_path / "out"), case.joint, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(motion="none"), r"none: no such file or folder, expected a motion"),
        (dict(motion="far.npz"), r"--motion=far\.npz: .*% of the object's diagonal away from the part"),
        (dict(motion="far.npz", parts="parts.json", part=""), r"--motion=far\.npz: found beside --parts"),
        (dict(motion="empty"), r"empty: found none of"),
        (dict(draw="metaballs", prompt="open it"), r"--draw=metaballs: found beside --motion=geometry"),
        (dict(motion="far.npz", draw="splats"), r"--draw=splats: found beside --motion=far\.npz"),
    ],
)
def test_what_shows_no_motion_is_said_in_one_line(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.savez("far.npz", points=np.random.default_rng(0).normal(size=(3, 50, 3)) + 9)
    with pytest.raises(UserError, match=message) as error:
        run(**(dict(source="cabinet", part="door", out="out") | options))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
