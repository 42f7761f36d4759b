"""Which objects the measurement of joints takes, and what it tells."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.articulate import find_objects, leave_out, main, read_rows, summarize
from bench.simulators import is_good, try_object
from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.articulated import write_object_glb
from dimo_jax.meshes.objects import join_objects
from tests.support.objects import make_cabinet, make_drawer


def _write_drawer(folder):
    body, part = make_cabinet(), make_drawer()
    kinds = np.r_[np.zeros(len(body.triangles)), np.ones(len(part.triangles))].astype(np.int32)
    thing = replace(
        join_objects([body, part]), triangle_nodes=kinds, node_names=("body", "part"), node_parents=(-1, -1)
    )
    write_object_glb(thing, folder / "object.glb")
    truth = {"joint": "prismatic", "axis": [0, 0, 1], "origin": [0, 0, 0], "range": [0, 0.4], "part_node": "part"}
    (folder / "truth.json").write_text(json.dumps(truth))


def test_objects_are_taken_by_name_and_a_mistyped_name_is_said(tmp_path):
    for name in ("drawer", "door", "knob"):
        (tmp_path / name).mkdir()
        for file in ("object.glb", "truth.json"):
            (tmp_path / name / file).touch()
    assert [folder.name for folder in find_objects(tmp_path)] == ["door", "drawer", "knob"]
    assert [folder.name for folder in find_objects(tmp_path, "knob, door")] == ["door", "knob"]
    with pytest.raises(UserError, match=r"--names: found 'dor'.*did you mean 'door'"):
        find_objects(tmp_path, "knob,dor")
    with pytest.raises(UserError, match=r"found no NAME/object\.glb"):
        find_objects(tmp_path / "door")


def test_success_is_told_with_each_maker_left_out():
    def row(origin, *successes):
        errors = dict(type_right=True, angle=0.0, line=0.0, origin=0.0, direction=True, range=0.0)
        known = dict(confidence=0.5, seconds=1.0, cpu_seconds=1.0, among_candidates=True, up=True)
        runs = [errors | known | {"success": success, "up": up} for success in successes for up in (True, False)]
        return {"name": "a", "category": "door", "origin": origin, "joint": "revolute", "runs": runs}

    rows = [row("one", True, False), row("two", True, True), row("two", True, False)]
    left = leave_out(rows, "one")
    assert (left["count"], left["success"], left["success_of_others"]) == (2, 0.5, 0.75)
    assert summarize(rows, True)["truth_among_candidates"] == 1.0
    assert leave_out(rows[:1], "one")["success_of_others"] is None


def test_a_measurement_goes_on_where_it_ended(tmp_path, monkeypatch, capsys):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        _write_drawer(tmp_path / name)
    out = tmp_path / "found.json"
    command = ["articulate", f"--data={tmp_path}", "--source=points", f"--out={out}", "--resume"]

    def run(*more):
        monkeypatch.setattr("sys.argv", [*command, *more])
        main()
        return json.loads(out.read_text())

    one = run("--seeds=1", "--names=first")
    both = run("--seeds=1")
    assert [row["name"] for row in both["objects"]] == ["first", "second"]
    assert both["objects"][0] == one["objects"][0]  # seconds too: it was not done again
    assert both["all"]["count"] == 2
    assert both["all"]["success"] == 1.0
    settings = both["settings"]
    assert np.isnan(read_rows(out, settings)["first"]["runs"][0]["line"])  # a drawer has no line
    with pytest.raises(SystemExit, match=r"holds runs with noise 0.0, expected 0.01"):
        run("--noise=0.01")
    out.write_text("{}")
    with pytest.raises(SystemExit, match="no file of this program"):
        run()
    command.remove(f"--out={out}")
    with pytest.raises(SystemExit, match="found no --out"):
        run()


def test_simulators_are_asked_where_the_truth_puts_a_part(tmp_path):
    pytest.importorskip("mujoco", reason="mujoco is not installed: pip install mujoco")
    pytest.importorskip("yourdfpy", reason="yourdfpy is not installed: pip install yourdfpy")
    _write_drawer(tmp_path)
    (tmp_path / "out").mkdir()
    row = try_object(tmp_path, tmp_path / "out")
    assert row["good"]
    worse = row["object.xml"] | {"off": 1e-3}
    assert not is_good(worse)
    assert not is_good(row["object.xml"] | {"beyond": 1.0})
