import dataclasses

import numpy as np
import pytest
from support.cabinet_links import cabinet_links

from dimo_jax.geometry.joint import REVOLUTE, make_joint
from dimo_jax.meshes.articulation import (
    Articulation,
    add_physics,
    is_endless,
    pose_links,
    stand_up,
    turn_articulation,
    turn_physics,
)


def test_a_part_moves_with_its_parent():
    cabinet = cabinet_links()
    poses = pose_links(cabinet, [np.pi / 2, np.pi / 2, 0.2])
    knob = poses[2] @ [*cabinet.links[2].joint.origin, 1]
    # The door turns about its left edge, so that the knob comes to stand in front of that edge.
    np.testing.assert_allclose(knob[:3], [-0.3 - 0.04, 0.32, 0.2 + 0.54], atol=1e-12)
    np.testing.assert_allclose(poses[2][:3, :3] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(poses[3][:3, 3], [0, 0, 0.2])


def test_links_without_order_or_with_one_name_are_refused():
    links = cabinet_links().links
    with pytest.raises(ValueError, match="parents first"):
        Articulation((links[0], links[2], links[1]))
    with pytest.raises(ValueError, match="parents first"):
        Articulation(links[1:])
    with pytest.raises(ValueError, match="different names"):
        Articulation((links[0], dataclasses.replace(links[1], name="Body")))


@pytest.mark.parametrize("up", [*np.eye(3), *-np.eye(3), np.array([0.6, 0.0, -0.8])])
def test_up_is_brought_to_z_by_a_rotation(up):
    turn = stand_up(up)
    np.testing.assert_allclose(turn @ up, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) > 0


def test_a_turned_object_moves_likewise():
    cabinet, turn = cabinet_links(), stand_up([0.6, 0.64, -0.48])
    moved = turn_articulation(cabinet, turn)
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    values = [0.5, -0.3, 0.1]
    np.testing.assert_allclose(pose_links(moved, values), matrix @ pose_links(cabinet, values) @ matrix.T, atol=1e-12)
    options = dict(density=600, damping=None, friction=0, fixed_base=True)
    expected, found = turn_physics(add_physics(cabinet, **options), turn), add_physics(moved, **options)
    for a, b in zip(expected.bodies, found.bodies):
        np.testing.assert_allclose(a.mass.center, b.mass.center, atol=1e-9)
        np.testing.assert_allclose(a.mass.inertia, b.mass.inertia, atol=1e-5)


def test_losses_are_as_given_or_fit_the_part():
    cabinet = cabinet_links()
    own = add_physics(cabinet, density=600, damping=None, friction=0.1, fixed_base=True)
    drawer = own.bodies[3].mass.mass
    assert own.damping[2] == pytest.approx(2 * drawer)
    given = add_physics(cabinet, density=600, damping=0.7, friction=0.1, fixed_base=True, hull_only=True)
    assert (given.damping, given.friction) == ((0.7,) * 3, (0.1,) * 3)
    assert all(len(body.pieces) == 1 for body in given.bodies)


def test_a_whole_turn_has_no_ends():
    assert is_endless(make_joint(REVOLUTE, [0, 1, 0], [0, 0, 0], (0, 2 * np.pi)))
    assert not is_endless(make_joint(REVOLUTE, [0, 1, 0], [0, 0, 0], (0, 6)))
