import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimo_jax.geometry.joint import from_json, make_joint, move_joint, move_points, to_json, transform


def test_a_turn_agrees_with_scipy_and_leaves_the_axis_alone():
    joint = make_joint("revolute", [1, 2, -1], [0.3, 0.1, 0.7], (-1, 2))
    points = np.random.default_rng(0).normal(size=(5, 3))
    expected = Rotation.from_rotvec(0.8 * joint.axis).apply(points - joint.origin) + joint.origin
    np.testing.assert_allclose(move_points(joint, 0.8, points), expected, atol=1e-12)
    np.testing.assert_allclose(
        move_points(joint, 0.8, joint.origin + 3 * joint.axis[None])[0], joint.origin + 3 * joint.axis
    )


def test_values_broadcast_and_zero_is_rest():
    for kind in ("revolute", "prismatic"):
        matrices = transform(make_joint(kind, [0, 0, 2], [1, 0, 0], (0, 1)), np.array([[0.0, 0.5]]))
        assert matrices.shape == (1, 2, 4, 4)
        np.testing.assert_allclose(matrices[0, 0], np.eye(4), atol=1e-15)
    np.testing.assert_allclose(matrices[0, 1, :3, 3], [0, 0, 0.5])


@pytest.mark.parametrize("kind", ["revolute", "prismatic"])
def test_a_joint_moves_with_its_object(kind):
    joint = make_joint(kind, [0.2, 1, 0.4], [0.5, -0.2, 0.1], (-0.3, 0.6))
    matrix = np.eye(4)
    matrix[:3, :3] = 2.5 * Rotation.from_rotvec([0.4, -1, 0.2]).as_matrix()
    matrix[:3, 3] = [1, 2, 3]
    points = np.random.default_rng(1).normal(size=(4, 3))
    moved = move_joint(joint, matrix)
    first = move_points(joint, joint.range[1], points) @ matrix[:3, :3].T + matrix[:3, 3]
    second = move_points(moved, moved.range[1], points @ matrix[:3, :3].T + matrix[:3, 3])
    np.testing.assert_allclose(first, second, atol=1e-12)


def test_json_keeps_everything():
    joint = make_joint("prismatic", [0, 3, 4], [1, 2, 3], (0, 0.25), confidence=0.5, source="box")
    other = from_json(to_json(joint))
    assert (other.type, other.range, other.confidence, other.source) == ("prismatic", (0.0, 0.25), 0.5, "box")
    np.testing.assert_allclose(other.axis, [0, 0.6, 0.8])


@pytest.mark.parametrize(
    ("axis", "limits", "kind"),
    [([0, 0, 0], (0, 1), "revolute"), ([0, 0, np.nan], (0, 1), "revolute"), ([0, 0, 1], (1, 0), "revolute"),
     ([0, 0, 1], (0, 1), "ball")],
)  # fmt: skip
def test_nonsense_is_refused(axis, limits, kind):
    with pytest.raises(ValueError, match="expected"):
        make_joint(kind, axis, [0, 0, 0], limits)
