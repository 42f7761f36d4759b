from dataclasses import replace

import numpy as np
import pytest

from dimo_jax.cameras.surround import surround
from dimo_jax.data.puppet.rig import write_puppet_rig
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.drawn_maps import brighten, recover_drawn, settle_markers
from dimo_jax.rigs.few_markers import APART, MOST, link_parents, spread_markers
from dimo_jax.rigs.lifting import Lifted
from dimo_jax.rigs.markers import place_markers
from dimo_jax.rigs.palette import color_distances
from dimo_jax.rigs.pose_maps import draw_pose_maps
from dimo_jax.rigs.pose_markers import place_pose_markers
from dimo_jax.rigs.posing import pose_nodes
from dimo_jax.runs.animation import animate_markers, make_model, place_joints


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(load_scene(write_puppet_rig(tmp_path_factory.mktemp("rig") / "puppet.glb", num_motions=4)))


def test_few_markers_are_apart_in_colours_of_their_own(model):
    few = spread_markers(model.markers, most=10)
    assert len(few.names) == 10
    assert set(few.names) <= set(model.markers.names)
    away = np.linalg.norm(few.rest[:, None] - few.rest[None], axis=-1) + 9 * np.eye(10)
    assert away.min() >= APART * few.diagonal
    colors = color_distances(few.colors, few.colors) + 999 * np.eye(10)
    every = color_distances(model.markers.colors, model.markers.colors) + 999 * np.eye(len(model.markers.names))
    assert colors.min() > every.min()
    assert (few.parents < np.arange(10)).all()
    assert (few.parents >= 0).sum() >= 8
    shown = few.marker_of[few.marker_of >= 0]
    assert set(shown) == set(range(10))
    assert len(spread_markers(model.markers).names) <= MOST


def test_lines_go_to_the_next_above_that_stays():
    parents = np.array([-1, 0, 1, 2, 1])
    np.testing.assert_array_equal(link_parents(parents, [0, 3, 4]), [-1, 0, 0])
    np.testing.assert_array_equal(link_parents(parents, [2, 3]), [-1, 0])


def test_a_rig_follows_a_few_markers_in_small_pictures(model):
    few = spread_markers(model.markers)
    clip = model.scene.clips[1]
    matrices = pose_nodes(model.scene, clip, np.linspace(clip.start, clip.end, 5)).matrices
    points = place_pose_markers(few, matrices)
    cameras = surround(points, height=64, width=64)
    frames = draw_pose_maps(points, cameras, few.parents, few.colors)
    lifted = recover_drawn(frames, cameras, few)
    assert np.linalg.norm(lifted.points - points, axis=-1).mean() < 5e-3 * few.diagonal
    dim = recover_drawn((0.6 * frames).astype(np.uint8), cameras, few)
    assert np.linalg.norm(dim.points - points, axis=-1).mean() < 5e-3 * few.diagonal
    assert brighten((0.6 * frames).astype(np.uint8), few.colors).max() > 200
    pose = animate_markers(replace(model, markers=few), "copy", lifted, 8.0).pose
    joints = model.markers.joints
    off = np.linalg.norm(place_joints(model, pose) - place_markers(joints, matrices), axis=-1)
    assert off.mean() < 0.02 * few.diagonal


def test_points_that_are_far_off_are_put_back(model):
    few = spread_markers(model.markers)
    points = np.tile(few.rest, (3, 1, 1))
    points[1, 2] += 5 * few.diagonal
    points[:, 4] = np.nan
    views = np.ones((2, *points.shape[:2]), bool)
    lifted = Lifted(points, np.ones(points.shape[:2]), np.zeros(views.shape), views, 1.0)
    found = settle_markers(lifted, few)
    np.testing.assert_allclose(found.points, np.tile(few.rest, (3, 1, 1)), atol=1e-9)
    assert found.confidence[1, 2] == 0
    assert (found.confidence[:, 4] == 0).all()
    assert found.confidence.sum() == points[..., 0].size - 4
