"""Which objects the measurement of joints takes, and what it tells."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.articulate import find_objects, leave_out, summarize
from bench.simulators import is_good, try_object
from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.articulated import write_object_glb
from dimo_jax.meshes.objects import join_objects
from tests.support.objects import make_cabinet, make_drawer


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


def test_simulators_are_asked_where_the_truth_puts_a_part(tmp_path):
    pytest.importorskip("mujoco", reason="mujoco is not installed: pip install mujoco")
    pytest.importorskip("yourdfpy", reason="yourdfpy is not installed: pip install yourdfpy")
    body, part = make_cabinet(), make_drawer()
    kinds = np.r_[np.zeros(len(body.triangles)), np.ones(len(part.triangles))].astype(np.int32)
    thing = replace(
        join_objects([body, part]), triangle_nodes=kinds, node_names=("body", "part"), node_parents=(-1, -1)
    )
    write_object_glb(thing, tmp_path / "object.glb")
    truth = {"joint": "prismatic", "axis": [0, 0, 1], "origin": [0, 0, 0], "range": [0, 0.4], "part_node": "part"}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "out").mkdir()
    row = try_object(tmp_path, tmp_path / "out")
    assert row["good"]
    worse = row["object.xml"] | {"off": 1e-3}
    assert not is_good(worse)
    assert not is_good(row["object.xml"] | {"beyond": 1.0})
