"""Markers, their colours, how they are drawn, found again, and lifted to space."""

from dataclasses import replace

import numpy as np
import pytest
from support.small_rig import write_small_rig

from dimo_jax.cameras.surround import surround
from dimo_jax.cameras.triangulation import project
from dimo_jax.core.errors import UserError
from dimo_jax.io.clips import open_clip
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.io.video import write_video
from dimo_jax.rigs.lifting import lift
from dimo_jax.rigs.localise import find_discs, fit_discs
from dimo_jax.rigs.palette import BACKGROUND, LINE, assign_colors, color_distances, spread_colors
from dimo_jax.rigs.pose_maps import draw_pose_map, draw_pose_maps
from dimo_jax.rigs.pose_markers import make_markers, place_pose_markers
from dimo_jax.rigs.posing import pose_nodes
from dimo_jax.rigs.recovery import recover_markers


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return load_scene(write_small_rig(tmp_path_factory.mktemp("rig") / "small.glb"))


@pytest.fixture(scope="module")
def markers(scene):
    return make_markers(scene)


@pytest.fixture(scope="module")
def points(scene, markers):
    return place_pose_markers(markers, pose_nodes(scene, scene.clips[0], np.linspace(0, 2, 6)).matrices)


def test_markers_are_joints_that_carry_weight_once_each_and_tips(scene, markers):
    heads = ["hips", "chest", "leg", "arm_l", "arm_r", "hand_l"]
    assert list(markers.names[:6]) == heads
    assert sorted(markers.names[6:]) == ["arm_r (tip)", "hand_l (tip)", "leg (tip)", "twist (tip)"]
    names = [node.name for node in scene.nodes]
    points = [markers.joints.nodes[point] for point in np.flatnonzero(markers.marker_of == 1)]
    assert points == [names.index("chest"), names.index("twist")]
    above = {name: markers.names[parent] if parent >= 0 else "" for name, parent in zip(markers.names, markers.parents)}
    assert above["hips"] == ""
    assert above["leg"] == above["chest"] == "hips"
    assert above["arm_l"] == above["arm_r"] == above["twist (tip)"] == "chest"
    assert above["hand_l (tip)"] == "hand_l"
    np.testing.assert_allclose(
        place_pose_markers(markers, pose_nodes(scene, None, np.zeros(1)).matrices)[0], markers.rest
    )


def test_a_model_without_a_skin_has_no_markers(tmp_path):
    scene = load_scene(write_small_rig(tmp_path / "bare.glb", skin=False))
    with pytest.raises(UserError, match=r"bare\.glb: no skin found"):
        make_markers(scene)


@pytest.mark.parametrize(("count", "least"), [(1, 120), (30, 95), (60, 70), (120, 50)])
def test_colours_are_far_from_each_other_and_from_what_is_no_marker(count, least):
    colors = np.concatenate([spread_colors(count), [BACKGROUND, LINE]])
    apart = color_distances(colors, colors) + 1e9 * np.eye(len(colors))
    assert apart.min() >= least


def test_near_markers_get_colours_that_are_further_apart_than_by_chance():
    places = np.random.default_rng(0).uniform(size=(60, 3))
    colors = assign_colors(places)
    assert len(np.unique(colors, axis=0)) == 60
    near = np.argsort(np.linalg.norm(places[:, None] - places, axis=-1), axis=1)[:, 1:4]
    apart = color_distances(colors, colors)
    assert np.take_along_axis(apart, near, 1).mean() > 1.1 * apart[~np.eye(60, dtype=bool)].mean()


def test_a_disc_has_its_area_and_its_middle_and_hides_what_is_behind():
    pixels, colors = (
        np.array([[40.3, 30.8], [42.0, 31.0], [80.0, 30.0]]),
        np.array([[0, 0, 255], [255, 0, 0], [0, 255, 0]]),
    )
    image = draw_pose_map(pixels, np.array([2.0, 3.0, 1.0]), np.array([-1, 0, 1]), colors, height=240, width=320)
    x, y = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
    assert image[30, 40].tolist() == [0, 0, 255]  # the nearer one covers the red one
    assert np.abs(image[30, 60] - np.array(LINE, float)).max() <= 2
    alone = draw_pose_map(pixels[2:], np.ones(1), np.array([-1]), colors[2:], height=240, width=320)[..., 1] / 255.0
    assert abs((alone * x).sum() / alone.sum() - 80) < 0.05
    assert abs((alone * y).sum() / alone.sum() - 30) < 0.05
    assert abs(alone.sum() - np.pi * 2.5**2) < 0.3


def test_fitting_undoes_a_shift_and_sees_past_an_occluder():
    rng = np.random.default_rng(3)
    pixels = rng.uniform(60, 400, (40, 2))
    pixels[1] = pixels[0] + [4.0, 1.0]  # half hidden by 0
    pixels[2] = pixels[3]  # wholly hidden by 3
    depths, parents, colors = np.arange(40.0) + 1, np.arange(40) - 1, spread_colors(40)
    depths[2] = 99
    image = draw_pose_map(pixels, depths, parents, colors, height=480, width=480)
    start = pixels + rng.uniform(-1.5, 1.5, pixels.shape)
    found, shares = fit_discs(image[None], start[None], depths[None], parents, colors)
    error = np.linalg.norm(found[0] - pixels, axis=-1)
    assert shares[0, 2] < 0.1
    assert 0.2 < shares[0, 1] < 0.8
    clear = shares[0] > 0.75
    assert clear.sum() > 30
    assert np.median(error[clear]) < 0.02
    assert error[clear].max() < 0.5  # lines that cross discs are drawn where their ends were thought to be
    assert error[1] < 0.2
    by_color, _ = find_discs(image, colors)
    assert np.linalg.norm(by_color - pixels, axis=-1)[1] > 3 * error[1]


def test_what_is_not_there_is_not_found():
    image = draw_pose_map(
        np.array([[100.0, 100.0]]), np.ones(1), np.array([-1]), spread_colors(9)[:1], height=240, width=240
    )
    pixels, shares = find_discs(image, spread_colors(9))
    assert np.abs(pixels[0] - 100).max() < 0.2
    assert shares[0] > 0.8
    assert np.isnan(pixels[1:]).all()
    assert (shares[1:] == 0).all()


def test_markers_come_back_from_compressed_videos(tmp_path, markers, points):
    cameras = surround(points, height=480, width=480)
    frames = draw_pose_maps(points, cameras, markers.parents, markers.colors)
    decoded = []
    for index, video in enumerate(frames):
        path = write_video(video, tmp_path / f"{index}.mp4", frame_rate=24, crf=23)
        decoded.append(np.stack([frame[..., :3] for frame in open_clip(path).frames()]))
    lifted = recover_markers(np.stack(decoded), cameras, markers)
    error = np.linalg.norm(lifted.points - points, axis=-1) / markers.diagonal
    assert np.median(error) < 5e-4
    assert error.max() < 5e-3
    assert (lifted.confidence >= 0.75).mean() > 0.9
    sure = lifted.confidence >= 0.95
    assert error[sure].max() < 2e-3


def test_lifting_holds_lengths_and_time_where_views_are_missing(scene, markers):
    points = place_pose_markers(markers, pose_nodes(scene, scene.clips[0], np.linspace(0, 2, 16)).matrices)
    cameras = surround(points, height=480, width=480)
    rng = np.random.default_rng(0)
    pixels = project(points, cameras)[0] + rng.normal(0, 0.2, (4, *points.shape[:-1], 2))
    weights = np.ones(pixels.shape[:-1])
    hand, tip = markers.names.index("hand_l"), markers.names.index("leg (tip)")
    weights[1:, 2, hand] = 0  # one view for a frame
    weights[:, 3, tip] = 0  # no view for a frame
    pixels[2, :, 0] += 40  # a view that is wrong throughout
    options = dict(parents=markers.parents, rest=markers.rest, diagonal=markers.diagonal)
    lifted = lift(pixels, weights, cameras, **options)
    error = np.linalg.norm(lifted.points - points, axis=-1) / markers.diagonal
    assert lifted.confidence[2, hand] < 0.5
    assert lifted.confidence[3, tip] < 0.1
    assert not lifted.clean[2, :, 0].any()
    assert (lifted.confidence[:, 0] > 0.9).all()
    unsure = np.zeros(error.shape, bool)
    unsure[2, hand] = unsure[3, tip] = True
    assert error[~unsure].max() < 2e-3
    assert error[unsure].max() < 2e-2


def test_a_skeleton_on_a_line_gets_a_marker_beside_it(scene, markers):
    assert not any("side" in name for name in markers.names)
    spine = {"hips", "chest", "twist", "leg"}
    parts = []
    for part in scene.parts:
        names = np.array([scene.nodes[joint].name for joint in scene.skins[part.skin].joints])
        kept = np.isin(names, list(spine))[part.joints]
        weights = np.where(kept & (part.weights > 0), part.weights, 0.0)
        parts.append(replace(part, weights=weights))
    straight = make_markers(replace(scene, parts=tuple(parts)))
    sides = [index for index, name in enumerate(straight.names) if name.endswith("(side)")]
    assert len(sides) == 1
    away = straight.rest - straight.rest[0]
    assert np.linalg.norm(away[sides[0], [0, 2]]) > 0.05  # the spine stands upright
