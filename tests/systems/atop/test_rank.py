import numpy as np
import pytest

pytest.importorskip("embreex", reason="needs the extra [articulate]")

from dimo_jax.core.errors import UserError
from dimo_jax.geometry.joint import make_joint, move_joint
from dimo_jax.meshes.objects import bounds, join_objects, move_object, select_faces
from dimo_jax.metrics.joints import compare_joints
from dimo_jax.systems.atop.candidates import candidates
from dimo_jax.systems.atop.rank import find_joints
from tests.support.objects import make_box, make_cabinet, make_cylinder, make_door, make_drawer

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


@pytest.mark.parametrize(("sentence", "along"), [("turn the knob", -1), ("turn the knob anti-clockwise", 1)])
def test_a_knob_turns_clockwise_seen_from_outside_unless_told_otherwise(sentence, along):
    body = make_box((-0.3, -0.4, -0.25), (0.3, 0.4, 0.25), "body")
    assert find_joints(body, knob(), sentence)[0].axis[2] == pytest.approx(along)


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
