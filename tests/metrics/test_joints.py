import numpy as np
import pytest

from dimo_jax.geometry.joint import make_joint
from dimo_jax.metrics.joints import compare_joints, summarize_joints

HINGE = make_joint("revolute", [0, 1, 0], [1, 0, 0], (0, 1.5))
CENTER = np.zeros(3)


def test_sliding_along_the_hinge_is_no_error():
    errors = compare_joints(make_joint("revolute", [0, 1, 0], [1, 9, 0], (0, 1.5)), HINGE, CENTER, 2.0)
    assert errors.success
    assert errors.line == pytest.approx(0)
    assert errors.origin == pytest.approx(4.5)


def test_distance_angle_and_range_are_measured():
    tilted = make_joint("revolute", [0, np.cos(0.2), np.sin(0.2)], [1.06, 0, 0], (0, 3.0))
    errors = compare_joints(tilted, HINGE, CENTER, 2.0)
    assert errors.angle == pytest.approx(np.degrees(0.2))
    assert errors.line == pytest.approx(0.03)
    assert errors.range == pytest.approx(1.0)
    assert errors.success


def test_the_wrong_way_round_is_a_success_without_direction_unless_the_range_is_even():
    back = make_joint("revolute", [0, -1, 0], [1, 0, 0], (0, 1.5))
    assert compare_joints(back, HINGE, CENTER, 2.0)[4:6] == (True, False)
    both = make_joint("revolute", [0, 1, 0], [1, 0, 0], (-1.5, 1.5))
    assert compare_joints(back, both, CENTER, 2.0).direction


def test_another_type_is_no_success_and_has_no_line():
    errors = compare_joints(make_joint("prismatic", [0, 1, 0], [1, 0, 0], (0, 1)), HINGE, CENTER, 2.0)
    assert not errors.type_right
    assert not errors.success
    assert np.isnan(errors.line)


def test_the_confident_half_is_that_of_the_larger_confidences():
    right = compare_joints(HINGE, HINGE, CENTER, 2.0)
    wrong = compare_joints(make_joint("revolute", [0, 1, 0], [0, 0, 0], (0, 1.5)), HINGE, CENTER, 2.0)
    figures = summarize_joints([wrong, right, right, wrong], [0.1, 0.9, 0.8, 0.2], [1, 1, 2, 3])
    assert figures["success"] == 0.5
    assert figures["confident_half_success"] == 1.0
    assert figures["seconds_median"] == 1.5
    assert figures["count"] == 4
