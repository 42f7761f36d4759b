"""Joints from a video model whose score is known, and what cannot be asked."""

import jax
import numpy as np
import pytest
from support.known_motion import know_motion

from dimo_jax.core.errors import UserError
from dimo_jax.data.cabinet import TRUE_JOINTS, make_cabinet
from dimo_jax.geometry.joint import PRISMATIC, move_joint
from dimo_jax.meshes.objects import bounds, move_object, split_object
from dimo_jax.meshes.parts import find_part
from dimo_jax.systems.atop.generator.joints import ask, find_joints, joint_from_generator

pytestmark = pytest.mark.usefixtures("quick_compile")
Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # brings +Y to +Z


@pytest.fixture(scope="module")
def drawer():
    """(body, part, joint) of the cabinet's drawer, three times as large, away from the origin, +Z up."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 3 * Z_UP, [5.0, -2.0, 1.0]
    cabinet = make_cabinet()
    pieces = split_object(cabinet, find_part(cabinet, "drawer"))
    return *(move_object(each, matrix) for each in pieces), move_joint(TRUE_JOINTS["drawer"], matrix)


def test_the_joint_comes_back_in_the_objects_own_coordinates(drawer):
    body, part, truth = drawer
    up = np.array([0.0, 0.0, 1.0])
    generator = know_motion(body, part, truth, np.linspace(0, 0.6, 3), up=up)
    first, second = joint_from_generator(
        body, part, generator, "pull out the drawer", jax.random.key(0), up=up, count=96, steps=60
    )
    assert (first.type, second.type) == (PRISMATIC, "revolute")
    assert first.axis @ truth.axis > np.cos(np.deg2rad(6))
    np.testing.assert_allclose(first.range, [0, 0.6], atol=0.15)
    low, high, _ = bounds(part.vertices)
    assert (low < first.origin).all()
    assert (first.origin < high).all()
    assert first.confidence > 0.9
    assert first.confidence + second.confidence <= 1 + 1e-6


def test_of_a_model_that_knows_rest_alone_no_joint_is_sure(drawer):
    body, part, truth = drawer
    up = np.array([0.0, 0.0, 1.0])
    generator = know_motion(body, part, truth, np.zeros(3), up=up)
    asked, matrix = ask(body, part, generator, "pull out the drawer", up=up)
    found, doubts = find_joints(asked, jax.random.key(0), matrix, guidance=1.0, count=96, steps=60)
    assert [each.confidence for each in found] == [0, 0]
    assert doubts == ["the model finds it likelier that the part stays at rest"]


def test_an_object_is_asked_about_as_the_model_learnt_it(drawer):
    body, part, truth = drawer
    up = np.array([0.0, 0.0, 1.0])
    generator = know_motion(body, part, truth, [0.0, 0.3], up=up)
    asked, matrix = ask(body, part, generator, "pull", up=up)
    low, high, size = bounds(np.concatenate([asked.body.vertices, asked.part.vertices]))
    np.testing.assert_allclose([size, *(low + high)], [1, 0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(matrix[:3, :3] @ up * np.linalg.norm(up), [0, 1 / (3 * 1.1696), 0], atol=2e-2)
    seen = np.asarray(asked.condition.masks).mean(axis=(0, 2, 3))
    assert ((seen > 0.005) & (seen < 0.5)).all()  # the drawer's front from two views


def test_no_sentence_and_a_part_that_no_view_sees_are_refused(drawer):
    body, part, truth = drawer
    generator = know_motion(body, part, truth, [0.0, 0.3], up=np.array([0.0, 0.0, 1.0]))
    with pytest.raises(UserError, match="the sentence is empty, expected what the part shall do"):
        joint_from_generator(body, part, generator, " ", jax.random.key(0))
    low, high, _ = bounds(body.vertices)
    inside = np.eye(4)
    inside[:3, :3] *= 1e-3
    inside[:3, 3] = (low + high) / 2 - 1e-3 * part.vertices.mean(axis=0)
    hidden = move_object(part, inside)
    with pytest.raises(UserError, match=r"none of the model's views \(azimuths 45, 315, elevation 30\) sees the part"):
        ask(body, hidden, generator, "pull")
