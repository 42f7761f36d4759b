from pathlib import Path

import numpy as np
import pytest
import trimesh

from dimo_jax.core.errors import UserError
from dimo_jax.data.cabinet import TRUE_JOINTS, make_cabinet
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.meshes.renderer import Material, Mesh
from dimo_jax.meshes.solids import is_closed, weld
from dimo_jax.systems.atop.articulate import Request, articulate, read_requests
from dimo_jax.systems.atop.rank import Finding

CABINET = make_cabinet()
DOOR = Request("door", "open the door")
KNOB = Request("knob", "turn the knob", parent="door")
DRAWER = Request("node:drawer", "pull the drawer")


class Finder:
    """Stands for `explain`: the true joint by the sentence's last word, and what it was asked."""

    def __init__(self):
        self.asked = {}

    def __call__(self, body, part, sentence, up):
        self.asked[sentence.split()[-1]] = (len(body.triangles), len(part.triangles))
        joint = TRUE_JOINTS.get(sentence.split()[-1])
        return Finding([], ("it floats",)) if joint is None else Finding([joint, TRUE_JOINTS["drawer"]], ("a doubt",))


def count(name):
    return int((CABINET.triangle_nodes == CABINET.node_names.index(name)).sum())


def cut(*requests):
    return articulate(CABINET, requests, Finder(), up=None)


def test_a_chain_is_cut_into_links_parents_first():
    finder = Finder()
    found = articulate(CABINET, [KNOB, DRAWER, DOOR], finder, up=None)
    links = found.articulation.links
    assert [link.name for link in links] == ["body", "drawer", "door", "knob"]
    assert [link.parent for link in links] == [-1, 0, 0, 2]
    assert [len(link.mesh.triangles) for link in links] == [count(link.name) for link in links]
    assert [request.part for request in found.requests] == ["node:drawer", "door", "knob"]
    # The door turns with its knob against all the rest, the knob against the door alone.
    assert finder.asked["door"] == (
        len(CABINET.triangles) - count("door") - count("knob"),
        count("door") + count("knob"),
    )
    assert finder.asked["knob"] == (count("door"), count("knob"))


def test_a_door_alone_takes_what_its_node_holds():
    links = cut(DOOR).articulation.links
    assert [len(link.mesh.triangles) for link in links] == [
        count("body") + count("drawer"),
        count("door") + count("knob"),
    ]


def test_a_cut_through_one_piece_is_closed_in_both_links():
    box = trimesh.creation.box((1, 1, 1)).subdivide().subdivide()
    mesh = Mesh(
        triangles=np.asarray(box.faces, np.int32),
        triangle_materials=np.zeros(len(box.faces), np.int32),
        materials=(Material(np.ones(4)),),
        texcoords=np.zeros((len(box.vertices), 2)),
        colors=np.ones((len(box.vertices), 4)),
        smooth_groups=np.arange(len(box.vertices), dtype=np.int32),
    )
    thing = ObjectMesh(np.asarray(box.vertices), mesh, np.zeros(len(box.faces), np.int32), ("box",), (-1,), Path("box"))
    lid = Request("box:-1,0.25,-1,1,1,1", "open the door", name="lid")
    button = Request("box:-1,0.49,-1,0,1,1", "pull the drawer", name="button", parent="lid")
    links = articulate(thing, [lid, button], Finder(), up=None).articulation.links
    assert [link.name for link in links] == ["body", "lid", "button"]
    closed = [weld(link.vertices, link.mesh.triangles) for link in links]
    assert is_closed(closed[0][1])
    assert is_closed(closed[1][1])
    assert trimesh.Trimesh(*closed[0]).volume + trimesh.Trimesh(*closed[1]).volume == pytest.approx(1, rel=0.02)


def test_a_candidate_or_a_given_joint_is_taken():
    assert cut(Request("door", "open the door", candidate=1)).articulation.joints[0].type == "prismatic"
    given = cut(Request("door", "", joint=TRUE_JOINTS["knob"]))
    assert given.articulation.joints == (TRUE_JOINTS["knob"],)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([Request("dor", "open the door")], r"no part 'dor'.*did you mean 'door'\?"),
        ([Request("knob", "turn the knob", parent="dooor"), DOOR], r"parent of 'knob' is 'dooor', expected 'door'\?"),
        ([KNOB, Request("door", "open the door", parent="knob")], "in a ring"),
        ([DOOR, DOOR], "'door' is asked for twice"),
        ([Request("door", "open it", name="drawer"), Request("drawer", "pull it")], "two parts go by 'drawer'"),
        ([Request("door", "open it", name="x"), Request("drawer", "pull it", name="x")], "two parts go by 'x'"),
        ([DOOR, Request("material:front", "pull the drawer")], "share 12 faces, expected parts apart"),
        ([Request("door", "open the door", candidate=2)], "candidate 2 of 'door' does not exist, expected 0 to 1"),
        ([Request("door", "", joint=TRUE_JOINTS["door"], candidate=1)], "candidate 1 of 'door' does not exist"),
        ([Request("door", "lift the gate")], "'door': it floats, expected"),
        ([Request("door+drawer+body+knob", "open the door")], "whole object"),
        ([Request("door+knob", "open the door"), Request("body+drawer", "pull the drawer")], "whole object"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(requests, message):
    with pytest.raises(UserError, match=message) as error:
        cut(*requests)
    assert "\n" not in str(error.value)


def test_names_are_plain_and_different(tmp_path):
    requests = [Request("door", "open the door", name="world"), Request("drawer", "pull the drawer", name="Tür 1/2")]
    names = [link.name for link in cut(*requests).articulation.links]
    assert names == ["body", "world_2", "Tur_1_2"]


def test_requests_are_read_from_json(tmp_path):
    entries = [{"part": "door", "sentence": "open it"}, {"part": "knob", "parent": "door", "sentence": "turn it"}]
    assert read_requests({"parts": entries}, tmp_path) == read_requests(entries, tmp_path)
    joint = {"type": "prismatic", "axis": [0, 0, 2], "origin": [0, 0, 0], "range": [0, 1]}
    (request,) = read_requests([{"part": "door", "joint": joint}], tmp_path)
    np.testing.assert_allclose(request.joint.axis, [0, 0, 1])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": 1}, "found no list of parts"),
        ([], "found no list of parts"),
        ([{"part": "door"}], r"part 1 \(door\): no sentence"),
        ([{"part": "door", "sentence": " "}], "no sentence"),
        ([{"part": 3, "sentence": "x"}], "part is 3, expected text"),
        ([{"part": "a", "sentence": "x", "axis": 1}], "has a key 'axis'"),
        ([{"part": "a", "sentence": "x", "candidate": True}], "candidate is True"),
        ([{"part": "a", "joint": {"type": "ball"}}], "joint: found no 'range'; expected"),
        ([{"part": "a", "joint": 3}], "joint: found 'int' object"),
    ],
)
def test_malformed_requests_are_said_in_one_line(entries, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_requests(entries, tmp_path / "parts.json")
