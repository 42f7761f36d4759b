"""Gaussians as a backend that draws the part, and freed to follow a video."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bench.seen_motions import make_case, make_video, place_cameras
from dimo_jax.data.cabinet import TRUE_JOINTS, make_cabinet
from dimo_jax.geometry.joint import move_points, transform
from dimo_jax.meshes.objects import split_object
from dimo_jax.meshes.parts import find_part
from dimo_jax.systems.atop.seen import motion
from dimo_jax.systems.atop.seen.layers import draw_mesh
from dimo_jax.systems.atop.seen.splats import DRAWS, draw_splats, recover_clouds
from tests.support.boxes_with_parts import make_lidded_box


@pytest.fixture(scope="module")
def case():
    return make_case("lid", *make_lidded_box(), seed=3, num_frames=3)


@pytest.mark.slow
def test_splats_show_what_the_mesh_shows(case, quick_compile):
    cameras = place_cameras(case, side=48, elevation=20)
    pose = transform(case.joint, 0.5)
    mesh = draw_mesh(case.body, case.part, cameras)(pose, True)
    splats = draw_splats(case.body, case.part, cameras, count=500)(pose, True)
    both = mesh.seen & splats.seen
    assert both.sum() > 0.8 * mesh.seen.sum()
    assert np.abs(mesh.colors - splats.colors).mean() < 0.05
    away = np.linalg.norm(mesh.places[both] - splats.places[both], axis=-1)
    assert np.median(away) < 0.05 * case.size


def test_both_renderers_of_gaussians_find_the_door_of_the_cabinet(monkeypatch):
    thing = make_cabinet()
    body, part = split_object(thing, find_part(thing, "door"))
    case = replace(make_case("door", body, part, TRUE_JOINTS["door"], seed=3), values=np.array([0.0, 0.35, 0.7]))
    video = make_video(case, seed=0, side=40)
    monkeypatch.setattr(motion, "SIDES", (40,))  # one level of detail
    found = [
        motion.joint_from_motion(case.body, case.part, video, make_draw=partial(DRAWS[name], count=200))[0]
        for name in ("splats", "metaballs")
    ]
    middle = case.part.vertices.mean(axis=0)
    for joint in found:
        assert joint.type == "revolute"
        assert np.rad2deg(np.arccos(min(joint.axis @ case.joint.axis, 1.0))) < 6
        feet = [each.origin + (middle - each.origin) @ each.axis * each.axis for each in (joint, case.joint)]
        assert np.linalg.norm(feet[0] - feet[1]) < 0.04 * case.size
        assert joint.range[1] == pytest.approx(0.7, abs=0.1)


@pytest.mark.slow
def test_free_gaussians_follow_a_video(case, quick_compile):
    case = make_case("lid", case.body, case.part, case.joint, seed=0, num_frames=3)
    small = type(case)(case.name, case.body, case.part, case.joint, np.array([0.0, 0.1, 0.2]))
    video = make_video(small, seed=0, side=48)
    clouds = recover_clouds(small.body, small.part, video.frames, video.cameras, side=48, count=300, steps=20)
    assert len(clouds) == 3
    middle = small.part.vertices.mean(0)
    wanted = move_points(small.joint, 0.2, middle[None])[0] - middle
    moved = clouds[2].mean(0) - clouds[0].mean(0)
    assert moved @ wanted / np.linalg.norm(moved) / np.linalg.norm(wanted) > 0.7
