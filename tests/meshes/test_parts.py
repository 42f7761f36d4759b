import json

import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.meshes.cuts import cut_loops, cut_object
from dimo_jax.meshes.objects import join_objects, move_object, select_faces, split_object
from dimo_jax.meshes.parts import connected_pieces, find_part, list_parts
from tests.support.objects import make_box, make_cabinet, make_cylinder, make_door


def make_thing():
    return join_objects([make_box((0, 0, 0), (2, 1, 1), "body"), make_box((0, 0, 1.1), (1, 1, 1.2), "door")])


def test_parts_are_found_by_every_name():
    thing = make_thing()
    door = thing.triangle_nodes == 1
    for text in ("door", "node:door", "material:door paint", "piece:1", "box:-1,-1,1.05,3,3,3", "node:DOOR", "1"):
        assert (find_part(thing, text) == door).all(), text


def test_parts_are_joined_unless_a_name_holds_the_sign():
    names = ("body", "left", "right", "left+right", "lid+", "²")
    thing = join_objects([make_box((2 * x, 0, 0), (2 * x + 1, 1, 1), name) for x, name in enumerate(names)])
    for text, nodes in {
        "left+right": [3], "node:left+right": [3], "node:left + node:right": [1, 2], "node:left+right+left": [1, 2],
        "node:LID+": [4], "Left+Right": [3], "node:left+material:body paint": [0, 1],
        "node:l*t+piece:5": [1, 3, 5], "²": [5],
    }.items():  # fmt: skip
        found = np.unique(thing.triangle_nodes[find_part(thing, text)]).tolist()
        assert found == nodes, text
    for text in ("³", "piece:³"):
        with pytest.raises(UserError, match=r"no part|does not exist"):
            find_part(thing, text)


def test_faces_come_from_files(tmp_path):
    thing = make_thing()
    (tmp_path / "a.json").write_text(json.dumps([12, 13]))
    (tmp_path / "a.txt").write_text("12\n13\n")
    np.save(tmp_path / "a.npy", np.arange(24) // 2 == 6)
    for name in ("a.json", "a.txt", "a.npy"):
        assert np.flatnonzero(find_part(thing, f"faces:{tmp_path / name}")).tolist() == [12, 13]
    (tmp_path / "b.json").write_text("[99]")
    with pytest.raises(UserError, match=r"b\.json: has the triangle 99, expected 0 to 23"):
        find_part(thing, f"faces:{tmp_path / 'b.json'}")
    (tmp_path / "c.txt").write_text("door")
    with pytest.raises(UserError, match="expected whole numbers"):
        find_part(thing, f"faces:{tmp_path / 'c.txt'}")


def test_a_part_that_is_not_there_lists_those_that_are():
    with pytest.raises(UserError, match="no part 'lid'; there are: node:body, node:door, material:body paint"):
        find_part(make_thing(), "lid")
    with pytest.raises(UserError, match="is the whole object"):
        find_part(make_thing(), "body+door")
    with pytest.raises(UserError, match="has no triangles"):
        find_part(make_thing(), "box:50,50,50,51,51,51")
    with pytest.raises(UserError, match="one piece with one material: give faces:FILE"):
        find_part(make_box((0, 0, 0), (1, 1, 1)), "lid")


def test_pieces_are_ordered_by_area_and_found_without_shared_vertices():
    thing = make_thing()
    soup = select_faces(thing, np.arange(24))
    pieces = connected_pieces(soup.corners.reshape(-1, 3), np.arange(72).reshape(-1, 3))
    assert (pieces == (np.arange(24) >= 12)).all()
    assert [choice.label for choice in list_parts(thing)][-2:] == ["piece:0", "piece:1"]


def volume(thing):
    corners = thing.corners
    return float(np.einsum("fd,fd->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def test_a_cut_through_one_piece_is_closed():
    rod = make_cylinder((0, 0, 0), (0, 0, 2), 0.5)
    longer = make_cylinder((0, 0, 2), (0, 0, 3), 0.5)
    side = np.arange(len(rod.triangles)) % 4 < 2  # without the discs at the ends
    tube = join_objects([select_faces(rod, side | (np.arange(len(side)) % 4 == 2)),
                         select_faces(longer, side | (np.arange(len(side)) % 4 == 3))])  # fmt: skip
    mask = tube.triangle_nodes == 1
    assert len(cut_loops(tube, mask)) == 1
    body, part = cut_object(tube, mask)
    area = 0.5 * 24 * 0.25 * np.sin(2 * np.pi / 24)
    assert volume(body) == pytest.approx(2 * area)
    assert volume(part) == pytest.approx(1 * area)
    assert len(part.triangles) == mask.sum() + 24


def test_a_cut_between_separate_pieces_adds_nothing():
    thing = make_thing()
    mask = find_part(thing, "door")
    body, part = cut_object(thing, mask)
    plain = split_object(thing, mask)
    assert (len(body.triangles), len(part.triangles)) == tuple(len(each.triangles) for each in plain)


def test_mirroring_turns_triangles_over():
    thing = join_objects([make_cabinet(), make_door()])
    assert volume(move_object(thing, np.diag([1.0, 1, -1, 1]))) == pytest.approx(volume(thing))
