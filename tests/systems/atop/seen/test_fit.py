"""Joints of procedural objects from clouds and videos of their motion."""

from dataclasses import replace

import numpy as np
import pytest

from bench.seen_motions import make_case, make_points, make_video
from dimo_jax.geometry.joint import make_joint
from dimo_jax.meshes.boxes import smallest_box
from dimo_jax.meshes.objects import move_object
from dimo_jax.systems.atop.seen.clouds import surface_of
from dimo_jax.systems.atop.seen.course import Course
from dimo_jax.systems.atop.seen.crop import crop_to_motion
from dimo_jax.systems.atop.seen.motion import joint_from_motion
from dimo_jax.systems.atop.seen.paper import make_chamfer, optimize_directly, propose_lines, search_candidates
from tests.support.boxes_with_parts import make_chest, make_cuboid, make_lidded_box
from tests.support.objects import make_box, make_cylinder

MAKERS = {"lid": make_lidded_box, "drawer": make_chest}


def line_distance(found, case):
    """Distance of the true hinge's foot at the part from the line that was found, as a share of the diagonal."""
    middle = case.part.vertices.mean(0)
    foot = case.joint.origin + (middle - case.joint.origin) @ case.joint.axis * case.joint.axis
    return np.linalg.norm(np.cross(foot - found.origin, found.axis)) / case.size


def check(found, case, *, degrees, line):
    assert found.type == case.joint.type
    assert np.rad2deg(np.arccos(np.clip(found.axis @ case.joint.axis, -1, 1))) < degrees
    if case.joint.type == "revolute":
        assert line_distance(found, case) < line


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("spoilt", [{}, {"noise": 0.01}, {"noise": 0.005, "drift": 0.005, "missing": 0.3}])
def test_clouds_give_the_joint(name, spoilt):
    case = make_case(name, *MAKERS[name](), seed=3, num_frames=6)
    motion = make_points(case, seed=1, count=700, **spoilt)
    joints = joint_from_motion(case.body, case.part, motion)
    check(joints[0], case, degrees=1.0, line=0.01)
    assert joints[0].range[1] == pytest.approx(case.values[-1], rel=0.03)
    assert joints[0].confidence > 0.5


@pytest.mark.parametrize("name", MAKERS)
def test_without_candidates_the_data_alone_give_the_joint(name):
    case = make_case(name, *MAKERS[name](), seed=3, num_frames=6)
    motion = make_points(case, seed=1, count=700, noise=0.005)
    check(joint_from_motion(case.body, case.part, motion, snapping=False)[0], case, degrees=1.0, line=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_videos_give_the_joint(name):
    case = make_case(name, *MAKERS[name](), seed=3, num_frames=5)
    video = make_video(case, seed=0, side=64, noise=0.01)
    check(joint_from_motion(case.body, case.part, video)[0], case, degrees=1.0, line=0.01)


def test_a_part_that_slides_farther_between_frames_than_it_is_wide_is_not_lost():
    body = make_cuboid([-0.5, 0, -0.4], [0.5, 0.8, 0.4])
    part = make_cuboid([-0.5, 0.3, 0.41], [-0.35, 0.45, 0.45], color=(0.9, 0.5, 0.2))
    case = make_case(
        "slider", body, part, make_joint("prismatic", [1, 0, 0], [0, 0, 0], (0, 0.75)), seed=3, num_frames=3
    )
    joint = joint_from_motion(case.body, case.part, make_video(case, seed=0, side=64))[0]
    check(joint, case, degrees=1.0, line=0.01)
    assert joint.range[1] == pytest.approx(0.75, rel=0.03)


@pytest.mark.slow
def test_a_small_round_switch_is_looked_at_closely_and_does_not_spin():
    # A plain round stick looks the same however it turns about itself, and is three pixels wide in the whole picture.
    body = make_box((-0.5, -0.5, -0.3), (0.5, 0.5, 0.3))
    stick = make_cylinder((0.3, 0.3, 0.29), (0.36, 0.3, 0.42), 0.012)
    hinge = make_joint("revolute", [0, -1, 0], [0.3, 0.3, 0.29], (0, 0.8))
    case = make_case("switch", body, stick, hinge, seed=3, num_frames=8)
    joint = joint_from_motion(case.body, case.part, make_video(case, seed=0, side=256))[0]
    check(joint, case, degrees=2.0, line=0.01)


def test_videos_are_cut_to_what_moves_and_keep_their_place():
    case = make_case("drawer", *make_chest(), seed=3, num_frames=2)
    small = replace(case, part=move_object(case.part, np.diag([0.1, 0.1, 0.1, 1.0])), values=np.array([0.0, 0.02]))
    video = make_video(small, seed=0, side=128)
    frames, cameras = crop_to_motion(video.frames, video.cameras, small.part.vertices)
    assert frames.shape[2] == frames.shape[3] == cameras.height == cameras.width < 128
    for whole, cut, before, after in zip(video.frames, frames, video.cameras.center, cameras.center):
        x, y = np.rint(before - after).astype(int)
        np.testing.assert_array_equal(cut, whole[:, y : y + cut.shape[1], x : x + cut.shape[2]])
        moved = (whole[1] != whole[0]).any(axis=-1)
        assert moved[y : y + cut.shape[1], x : x + cut.shape[2]].sum() == moved.sum()


def test_the_candidates_of_the_paper_hold_a_hinge_on_the_middle_of_a_face():
    body, part, joint = make_lidded_box()
    case = make_case("lid", body, part, joint, seed=4, num_frames=5)
    chamfer = make_chamfer(surface_of(case.part, 200).points, make_points(case, seed=0, count=200).points)
    hinge = Course("revolute", case.joint.axis, case.joint.origin, np.zeros(5))
    lines = [*propose_lines(smallest_box(case.part.vertices), 5), hinge]
    assert len(lines) == 3 + 15 + 1
    check(search_candidates(chamfer, lines)[0], case, degrees=1e-3, line=1e-6)


def test_direct_optimization_finds_a_drawer():
    case = make_case("drawer", *make_chest(), seed=4, num_frames=5)
    chamfer = make_chamfer(surface_of(case.part, 200).points, make_points(case, seed=0, count=200).points)
    found = optimize_directly(chamfer, np.eye(3))
    slide = next(course for course in found if course.type == "prismatic")
    assert np.rad2deg(np.arccos(slide.axis @ case.joint.axis)) < 5
