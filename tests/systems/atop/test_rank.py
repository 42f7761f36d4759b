import numpy as np
import pytest
from scipy.spatial import ConvexHull

pytest.importorskip("embreex", reason="needs the extra [articulate]")

from dimo_jax.core.errors import UserError
from dimo_jax.geometry.joint import make_joint, move_joint, rotation_about
from dimo_jax.meshes.objects import bounds, join_objects, move_object, select_faces
from dimo_jax.metrics.joints import compare_joints
from dimo_jax.systems.atop.candidates import candidates
from dimo_jax.systems.atop.rank import explain, find_joints
from tests.support.objects import make_box, make_cabinet, make_cylinder, make_door, make_drawer, make_object

TURN = np.eye(4)
TURN[:3, :3] = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
TURN[:3, :3] *= np.sign(np.linalg.det(TURN[:3, :3]))
TURN[:3, 3] = [3, -2, 5]


def knob():
    return make_cylinder((0, 0, 0.255), (0, 0, 0.3), 0.05, "knob")


LEFT = make_joint("revolute", [0, -1, 0], [-0.3, 0, 0.26], (0, 1.57))
CASES = {
    "door": (make_cabinet, make_door, "open the cabinet door", LEFT),
    "drawer": (make_cabinet, make_drawer, "open the drawer", make_joint("prismatic", [0, 0, 1], [0, 0, 0], (0, 0.45))),
    "knob": (
        lambda: make_box((-0.3, -0.4, -0.25), (0.3, 0.4, 0.25), "body"),
        knob,
        "turn the knob",
        make_joint("revolute", [0, 0, 1], [0, 0, 0], (0, 1.57)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("know_up", [True, False])
def test_the_joint_is_found_however_the_object_is_turned(name, know_up):
    body, part, sentence, truth = CASES[name]
    body, part = move_object(body(), TURN), move_object(part(), TURN)
    goal = move_joint(truth, TURN)
    diagonal = bounds(np.concatenate([body.vertices, part.vertices]))[2]
    found = find_joints(body, part, sentence, TURN[:3, 1] if know_up else None)
    errors = compare_joints(found[0], goal, part.vertices.mean(axis=0), diagonal)
    assert errors.success, (found[0], goal)
    assert errors.angle < 1
    if name != "knob":
        assert errors.direction
        assert errors.range < 0.25
    confidences = [each.confidence for each in found]
    assert all(0 <= each <= 1 for each in confidences)
    assert sum(confidences) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("sentence", "along"), [("turn the knob", -1), ("turn the knob anti-clockwise", 1), ("turn the stove knob", 1)]
)
def test_a_knob_turns_clockwise_seen_from_outside_unless_told_otherwise(sentence, along):
    body = make_box((-0.3, -0.4, -0.25), (0.3, 0.4, 0.25), "body")
    assert find_joints(body, knob(), sentence)[0].axis[2] == pytest.approx(along)


@pytest.mark.parametrize(("sentence", "way"), [("pull the lever", -1), ("lift the lever", 1)])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_lever_that_lies_level_goes_down_unless_it_is_lifted(sentence, way, side):
    body = make_box((-0.1, 0, -0.15), (0.1, 0.5, 0.15), "body")
    shaft, arm = (
        make_cylinder((0.08, 0.4, 0), (0.16, 0.4, 0), 0.02),
        make_cylinder((0.14, 0.4, 0), (0.14, 0.4, 0.3 * side), 0.015),
    )
    lever = join_objects([shaft, arm])
    found = find_joints(body, lever, sentence, np.array([0.0, 1.0, 0.0]))[0]
    assert found.type == "revolute"
    assert abs(found.axis[0]) > 0.99
    assert np.cross(found.axis, [0, 0, side])[1] * way > 0.9


def test_the_end_of_a_lever_that_is_sunk_in_the_body_is_a_candidate():
    body = make_box((-0.5, 0, -0.2), (0.5, 0.3, 0.2))
    lever = make_box((-0.015, 0.14, -0.015), (0.015, 0.5, 0.015))
    origins = [each.origin for each in candidates(body, lever) if each.source.endswith("root")]
    assert any(np.linalg.norm(origin[:2] - [0, 0.16]) < 0.03 for origin in origins), origins


def test_knuckles_that_touch_the_body_tell_where_a_panel_hangs():
    # A square panel of no handle, up unknown: each of its four sides would do.
    body = make_box((-0.4, -0.4, -0.25), (0.4, 0.4, 0.25), "body")
    panel = make_box((-0.3, -0.3, 0.252), (0.3, 0.3, 0.272), "panel")
    knuckles = [make_cylinder((x, -0.31, 0.27), (x + 0.12, -0.31, 0.27), 0.02, "knuckle") for x in (-0.25, 0.13)]
    found = find_joints(body, join_objects([panel, *knuckles]), "open the panel by its hinge")
    assert found[0].type == "revolute"
    assert abs(found[0].axis[0]) > 0.999
    assert np.hypot(found[0].origin[1] + 0.31, found[0].origin[2] - 0.27) < 0.03


def test_a_handle_turns_about_the_shaft_that_goes_through_a_narrow_body():
    # The shaft's middle lies nearer to the door's edge than to its faces, so the body around the contact tells nothing.
    door = make_box((-0.5, -0.3, -0.1), (0.2, 0.8, 0.1), "door")
    shaft = make_cylinder((0.12, 0.2, -0.18), (0.12, 0.2, 0.18), 0.04, "shaft")
    bars = [make_cylinder((0.12, 0.2, z), (-0.15, 0.2, z), 0.025, "bar") for z in (-0.16, 0.16)]
    found = find_joints(door, join_objects([shaft, *bars]), "turn the door handle", up=np.array([0.0, 1, 0]))
    assert found[0].type == "revolute"
    assert abs(found[0].axis[2]) > 0.99
    middle = np.array([0.0, 0.2, 0.16]) - found[0].origin
    assert np.cross(found[0].axis, middle)[1] < 0  # the bars go down


def test_a_switch_that_leans_goes_to_its_mirror_image():
    body = make_box((-0.4, -0.4, -0.1), (0.4, 0.4, 0.1), "plate")
    lean = np.deg2rad(25)
    stick = make_cylinder((0, 0, 0.08), (0.3 * np.sin(lean), 0, 0.08 + 0.3 * np.cos(lean)), 0.03, "stick")
    found = find_joints(body, stick, "flip the switch", up=np.array([0.0, 1, 0]))
    assert found[0].type == "revolute"
    assert abs(found[0].axis[1]) > 0.99
    assert found[0].range[1] == pytest.approx(2 * lean, rel=0.2)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_lid_turns_about_the_side_that_lies_across_from_its_lip(side):
    # A thick lid has a rim as high as a handle; the lip lies level with it, beyond its outline.
    body = make_box((-0.2, 0, -0.2), (0.2, 0.5, 0.2), "bin")
    lid = make_box((-0.2, 0.503, -0.2), (0.2, 0.56, 0.2), "lid")
    lip = make_box((-0.05, 0.503, min(0.2 * side, 0.22 * side)), (0.05, 0.52, max(0.2 * side, 0.22 * side)), "lip")
    found = find_joints(body, join_objects([lid, lip]), "lift the lid", np.array([0.0, 1.0, 0.0]))[0]
    assert abs(found.axis[0]) > 0.99
    assert abs(found.origin[2] + 0.2 * side) < 0.03


@pytest.mark.parametrize("side", [-1, 1])
def test_a_door_turns_about_the_side_that_lies_across_from_a_thin_bar(side):
    # Less than one of 200 points on the door's surface lies on the bar.
    body = make_box((-0.3, 0, -0.3), (0.3, 1.8, 0.3), "fridge")
    door = make_box((-0.3, 0.003, 0.303), (0.3, 1.797, 0.33), "door")
    bar = make_box((0.25 * side - 0.005, 0.8, 0.34), (0.25 * side + 0.005, 1.0, 0.35), "bar")
    found = find_joints(body, join_objects([door, bar]), "open the door", np.array([0.0, 1.0, 0.0]))[0]
    assert abs(found.axis[1]) > 0.99
    assert abs(found.origin[0] + 0.3 * side) < 0.03


def test_a_lid_that_stands_ajar_is_held_where_it_touches():
    body = make_box((-0.2, 0, -0.12), (0.2, 0.02, 0.12), "laptop")
    turn = rotation_about(np.array([-1.0, 0.0, 0.0]), np.array([0.35]))[0]
    matrix, back = np.eye(4), np.array([0.0, 0.022, -0.12])
    matrix[:3, :3], matrix[:3, 3] = turn, back - turn @ back
    lid = move_object(make_box((-0.2, 0.022, -0.12), (0.2, 0.03, 0.12), "lid"), matrix)
    found = find_joints(body, lid, "open the lid", np.array([0.0, 1.0, 0.0]))[0]
    assert abs(found.axis[0]) > 0.99
    assert np.linalg.norm(found.origin[1:] - back[1:]) < 0.03


def test_a_lever_turns_about_the_cap_that_stands_on_a_post():
    body = make_cylinder((0, 0, 0), (0, 0.2, 0), 0.02, "post")
    cap = make_cylinder((0, 0.203, 0), (0, 0.23, 0), 0.025, "cap")
    arm = make_box((-0.006, 0.21, 0.015), (0.006, 0.22, 0.1), "arm")
    found = find_joints(body, join_objects([cap, arm]), "turn the lever of the faucet", np.array([0.0, 1.0, 0.0]))[0]
    assert found.type == "revolute"
    assert abs(found.axis[1]) > 0.99
    assert np.hypot(*found.origin[[0, 2]]) < 0.01


def test_a_seat_turns_about_the_post_that_it_sits_on_whatever_its_shape():
    body = join_objects([make_cylinder((0, 0, 0), (0, 0.4, 0), 0.03), make_box((-0.3, 0, -0.03), (0.3, 0.04, 0.03))])
    seat = make_box((-0.25, 0.41, -0.25), (0.25, 0.46, 0.25), "seat")
    back = make_box((-0.25, 0.46, -0.25), (0.25, 0.95, -0.21), "back")
    found = find_joints(body, join_objects([seat, back]), "swivel the seat of the chair", np.array([0.0, 1.0, 0.0]))[0]
    assert found.type == "revolute"
    assert abs(found.axis[1]) > 0.99
    assert np.hypot(*found.origin[[0, 2]]) < 0.01


def test_the_same_input_gives_the_same_joints():
    first, second = (find_joints(make_cabinet(), make_door(), "open the door") for _ in range(2))
    assert [each.confidence for each in first] == [each.confidence for each in second]


def test_candidates_hold_the_truth_and_name_their_sources():
    found = candidates(make_cabinet(), make_door())
    assert all(each.source for each in found)
    upright = [each for each in found if each.type == "revolute" and abs(each.axis[1]) > 0.999]
    assert any(np.hypot(each.origin[0] + 0.3, each.origin[2] - 0.26) < 0.02 for each in upright)


def test_parts_without_area_are_refused():
    flat = select_faces(make_door(), [0])
    flat = move_object(flat, np.diag([0.0, 0.0, 0.0, 1.0]))
    with pytest.raises(UserError, match="the part has no area"):
        find_joints(make_cabinet(), flat, "open it")
    broken = join_objects([make_door()])
    broken.vertices[0] = np.nan
    with pytest.raises(UserError, match="NaN"):
        find_joints(make_cabinet(), broken, "open it")


def test_an_axle_inside_the_end_of_a_part_is_among_the_candidates():
    body = make_box((-0.3, -0.4, -0.3), (0.3, 0.4, -0.05), "body")
    part = make_cylinder((0, 0, 0), (1, 0, 0), 0.05, "lever")
    turned = candidates(move_object(body, TURN), move_object(part, TURN))
    truth = move_joint(make_joint("revolute", [0, 1, 0], [0.045, 0, 0], (0, 1)), TURN)
    lines = [each for each in turned if each.type == "revolute" and abs(each.axis @ truth.axis) > 0.999]
    off = [np.linalg.norm(np.cross(each.origin - truth.origin, truth.axis)) for each in lines]
    assert min(off) < 0.025, sorted(zip(off, (each.source for each in lines)))[:3]


def test_a_direction_across_the_mirror_plane_of_the_contact_is_among_the_candidates():
    angle = np.deg2rad(25)
    across = np.array([np.cos(angle), np.sin(angle), 0])
    along = np.array([-np.sin(angle), np.cos(angle), 0])
    base = np.array(
        [s * half * across + y * along for y, half in ((0.0, 0.1), (0.12, 0.14), (0.3, 0.05)) for s in (-1, 1)]
    )
    tips = np.array([[0.12, 0.2, 0.25], [-0.13, 0.05, 0.2], [0.02, -0.05, 0.33]])  # nothing above the base is alike
    places = np.concatenate([base, tips])
    part = make_object(places, ConvexHull(places).simplices, "trigger")
    body = make_box((-0.6, -0.5, -0.3), (0.7, 0.8, -0.004), "body")
    found = [each for each in candidates(body, part) if each.source == "mirror of the contact"]
    assert [abs(each.axis @ across) > np.cos(np.deg2rad(3)) for each in found] == [True]


@pytest.mark.parametrize(
    ("make_part", "sentence", "expected"),
    [
        (make_drawer, "turn the drawer clockwise", "says 'turn', which turns, but the best joint slides"),
        (make_drawer, "pull out the drawer", None),
        (make_door, "extend the door", "'extend', which slides, but the best joint turns"),
        (make_door, "open the door", None),
    ],
)
def test_a_sentence_that_contradicts_the_shape_is_said(make_part, sentence, expected):
    finding = explain(make_cabinet(), make_part(), sentence, up=np.array([0.0, 1, 0]))
    said = [line for line in finding.doubts if line.startswith("the sentence")]
    assert len(said) == (expected is not None), (said, finding.joints[0])
    assert all(expected in line for line in said)
