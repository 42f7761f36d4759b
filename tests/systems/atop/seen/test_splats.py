"""Gaussians as a backend that draws the part, and freed to follow a video."""

import numpy as np
import pytest

from bench.seen_motions import make_case, make_video, place_cameras
from dimo_jax.geometry.joint import move_points, transform
from dimo_jax.systems.atop.seen.layers import draw_mesh
from dimo_jax.systems.atop.seen.splats import draw_splats, recover_clouds
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
