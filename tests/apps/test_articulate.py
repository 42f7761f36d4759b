import json

import numpy as np
import pytest
from PIL import Image

from dimo_jax.apps.articulate import foretell, run
from dimo_jax.core.errors import UserError
from dimo_jax.data.cabinet import TRUE_JOINTS, make_cabinet
from dimo_jax.io.gltf.articulated import write_object_glb

PARTS = [
    {"part": "door", "sentence": "open the door"},
    {"part": "knob", "parent": "door", "sentence": "turn the knob"},
    {"part": "drawer", "sentence": "pull out the drawer"},
]
FILES = {"joint.json", "object.urdf", "object.xml", "object.glb", "picture.png", "meshes"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All parts of the cabinet, found and written by one call, from a file."""
    folder = tmp_path_factory.mktemp("articulate")
    source = write_object_glb(make_cabinet(), folder / "cabinet.glb")
    (folder / "parts.json").write_text(json.dumps(PARTS))
    run(source=str(source), parts=str(folder / "parts.json"), out=str(folder / "out"), size=96)
    return folder


def test_the_joints_of_the_cabinet_are_found(folder):
    assert {path.name for path in (folder / "out").iterdir()} == FILES
    joints = {joint["name"]: joint for joint in json.loads((folder / "out" / "joint.json").read_text())["joints"]}
    assert [joints[name]["parent"] for name in ("door", "knob", "drawer")] == ["body", "door", "body"]
    for name, truth in TRUE_JOINTS.items():
        found = joints[name]
        assert found["type"] == truth.type, name
        assert abs(np.dot(found["axis"], truth.axis)) > np.cos(np.deg2rad(5)), name
        assert 0 <= found["confidence"] <= 1
        assert found["runners_up"]
    between = np.cross(np.subtract(joints["door"]["origin"], TRUE_JOINTS["door"].origin), TRUE_JOINTS["door"].axis)
    assert np.linalg.norm(between) < 0.05


def test_masses_and_their_source_are_told(folder):
    links = json.loads((folder / "out" / "joint.json").read_text())["links"]
    assert [link["name"] for link in links] == ["body", "door", "knob", "drawer"]
    assert all(link["mass"] > 0 and link["inertia_from"] == "volume" for link in links)


def test_the_picture_shows_the_parts_moved(folder):
    picture = np.asarray(Image.open(folder / "out" / "picture.png").convert("RGB")).astype(int)
    width = 96 + 8
    rest, moved = (picture[-100:-8, 8 + k * width : 8 + k * width + 96] for k in (0, 2))
    assert (np.abs(rest - moved).max(axis=2) > 30).mean() > 0.1


def test_parts_are_listed_and_drawn(tmp_path, capsys):
    run(source="cabinet", list_parts=True, out=str(tmp_path / "out"), size=64)
    assert "node:door  (216 triangles)" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["parts.json", "parts.png"]
    listed = json.loads((tmp_path / "out" / "parts.json").read_text())["parts"]
    assert {"number": 1, "part": "node:door", "triangles": 216} in listed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(part="dor"), r"no part 'dor'.*did you mean 'door'\?"),
        (dict(part="node:*"), "is the whole object"),
        (dict(part=""), "--part: not given"),
        (dict(prompt="  "), "--prompt: empty"),
        (dict(source="no.glb"), r"no\.glb: no such file"),
        (dict(source="."), "a folder, expected"),
        (dict(out=""), "--out: not given"),
        (dict(density=0.0), "--density: found 0"),
        (dict(friction=-1.0), "friction"),
        (dict(parts="none.json"), "--part: found 'door' beside --parts"),
        (dict(parts="none.json", part="", prompt=""), r"--parts=none\.json: No such file"),
    ],
)
def test_bad_input_is_said_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    given = dict(source="cabinet", part="door", prompt="open the door", out="out") | options
    with pytest.raises(UserError, match=message) as error:
        run(**given)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_results_are_replaced_only_where_asked_and_ours(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "joint.json").write_text("{}")
    given = dict(source="cabinet", part="door", prompt="open the door", out=str(out))
    with pytest.raises(UserError, match="exists, expected a new folder, or --overwrite"):
        run(**given)
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"found 'thesis\.tex' in it"):
        run(**given, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["joint.json", "thesis.tex"]


def test_a_file_that_is_no_model_is_said(tmp_path):
    (tmp_path / "bad.glb").write_bytes(b"glTF nonsense")
    with pytest.raises(UserError, match=r"bad\.glb"):
        run(source=str(tmp_path / "bad.glb"), part="door", prompt="open", out=str(tmp_path / "out"))


def test_the_wait_for_a_large_mesh_is_said_beforehand():
    assert foretell(360) == []
    (line,) = foretell(2_000_000)
    assert "2000000 triangles take about 80 s of one core and 3.2 GB" in line
