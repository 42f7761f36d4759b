"""Import of animated models: framing, truth, captions, what is left out, and that nothing half-done stays behind."""

from pathlib import Path

import numpy as np
import pytest
from support.gltf_writer import Writer, moving_square

from dimo_jax.cameras.framing import border_planes, fit_framing, support
from dimo_jax.cameras.turntable import Turntable
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.passes import Timing, pose_clip
from dimo_jax.data.formats.rigged.plan import Options, choose_surface, humanize, import_gltf, name_motions
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.posing import pose_scene

KNIGHT = Path(__file__).resolve().parents[2].parent / "shared/data/knight.glb"
HIDE = ("1H_Sword_Offhand", "2H_Sword", "Badge_Shield", "Rectangle_Shield", "Spike_Shield")
SMALL = Turntable(size=32, azimuths_deg=(0.0, 75.0, 200.0), test_azimuths_deg=(130.0,), samples=2)


@pytest.fixture
def walker(tmp_path):
    """A square that walks, turns, and stands still in a third clip."""
    writer = moving_square("Walk_Far", double_sided=True)
    writer.clip("SpinAround", 0, "rotation", [0.0, 2.0], np.array([[0, 0, 0, 1], [0, 1, 0, 0]]))
    writer.clip("T-Pose", 0, "translation", [0.0], np.array([[0, 0, 0]]))
    return writer.write(tmp_path / "walker.glb")


def _project(points, cameras):
    """Pixels [V,...,2] of world points, in plain matrix arithmetic."""
    found = []
    for pose, focal, center in zip(cameras.world_to_camera, cameras.focal, cameras.center):
        in_camera = points @ pose[:3, :3].T + pose[:3, 3]
        found.append(in_camera[..., :2] / in_camera[..., 2:] * focal + center)
    return np.array(found)


def _facing(square, pose):
    """Cosine between a square's normal and the direction of the camera."""
    normal = np.cross(square[1] - square[0], square[2] - square[0])
    towards = -pose[:3, :3].T @ pose[:3, 3] - square.mean(axis=0)
    return normal @ towards / np.linalg.norm(normal) / np.linalg.norm(towards)


def test_dataset_of_a_small_model(walker):
    lines = []
    dataset = import_gltf(walker, Options(timing=Timing(num_frames=5), turntable=SMALL), report=lines.append)
    assert dataset.frames.shape == (2, 4, 5, 32, 32, 4)
    assert dataset.names == ("Walk_Far", "SpinAround")
    assert dataset.captions == ("walk far", "spin around")
    assert dataset.view_splits == ("train", "train", "train", "test")
    assert dataset.object_name == "walker"
    assert dataset.frame_rate == pytest.approx(4 / 1.5, abs=1e-3)  # 4 steps in the median of 1 s and 2 s
    assert "left out, still poses: T-Pose" in lines
    extent = dataset.surface[0, 0, :, 1].max() - dataset.surface[0, 0, :, 1].min()
    assert dataset.height == pytest.approx(extent)


def test_surface_moves_as_the_clip_says_and_stands_where_the_pictures_show_it(walker):
    dataset = import_gltf(walker, Options(timing=Timing(num_frames=5), turntable=SMALL))
    walk = dataset.surface[0]
    side = np.ptp(walk[0, :, 0])  # 2 in the file, and the walk covers 1
    np.testing.assert_allclose(
        walk - walk[:1], np.linspace(0, side / 2, 5)[:, None, None] * np.array([[[1, 0, 0]]]) + 0 * walk, atol=1e-6
    )
    centers = dataset.surface.mean(axis=2)  # of a square: inside of it
    pixels = np.floor(_project(centers, dataset.cameras)).astype(int)
    for motion in range(2):
        for frame in range(5):
            for view in range(4):
                column, row = pixels[view, motion, frame]
                if abs(_facing(dataset.surface[motion, frame], dataset.cameras.world_to_camera[view])) > 0.2:
                    assert dataset.frames[motion, view, frame, row, column, 3] == 255


def test_surface_points_are_the_vertices_and_cover_the_triangles_evenly(walker):
    scene = load_scene(walker)
    points = choose_surface(scene, num_points=400)
    square = points.follow(pose_scene(scene, None, 0.0)[None])[0]
    assert square.shape == (400, 3)
    np.testing.assert_allclose(points.weights.sum(-1), 1)
    assert len(np.unique(square[:4].round(5), axis=0)) == 4
    low, size = square.min(axis=0), np.ptp(square, axis=0)
    flat = (square[4:] - low)[:, size > 0] / size[size > 0]  # in the unit square
    assert flat.shape == (396, 2)
    counts = np.histogram2d(*flat.T, bins=2)[0]
    assert counts.sum() == 396
    assert counts.min() > 396 / 4 * 0.75


def test_one_framing_keeps_all_motions_inside_and_fills_the_picture(walker):
    turntable = Turntable(size=64, margin=0.1)
    dataset = import_gltf(walker, Options(timing=Timing(num_frames=9), turntable=turntable))
    pixels = _project(dataset.surface, dataset.cameras) / 64
    assert pixels.min() > 0.1 - 1e-5
    assert pixels.max() < 0.9 + 1e-5
    assert max(0.1 - pixels.min(), pixels.max() - 0.9) > -0.01  # and some border is touched
    border = np.ones((64, 64), bool)
    border[5:-5, 5:-5] = False
    assert dataset.frames[..., 3].any()
    assert not dataset.frames[..., border, 3].any()


def test_framing_finds_the_best_centre():
    linprog = pytest.importorskip("scipy.optimize").linprog
    points = np.random.default_rng(0).normal(size=(500, 3)) * [1, 3, 0.5] + [5, -2, 9]
    normals, offsets = border_planes(Turntable().cameras(), margin=0.04)
    reach = support(points, normals)
    framing = fit_framing(reach, normals, offsets, points.mean(axis=0))
    # least t with (reach - normals c) / offsets <= t, over c and t
    program = linprog(
        [0, 0, 0, 1],
        A_ub=np.c_[-normals / offsets[:, None], -np.ones(len(normals))],
        b_ub=-reach / offsets,
        bounds=[(None, None)] * 4,
    )
    assert 0.99 / program.fun < framing.scale <= (1 + 1e-9) / program.fun
    assert (framing.apply(points) @ normals.T <= offsets + 1e-9).all()


def test_root_motion_can_be_removed(walker):
    scene = load_scene(walker)
    kept, _, drift = pose_clip(scene, scene.clips[0], timing=Timing(num_frames=5))
    removed, joints, same_drift = pose_clip(scene, scene.clips[0], timing=Timing(num_frames=5, root_motion="remove"))
    assert drift == same_drift == pytest.approx(1)
    assert np.ptp(kept[:, 0, 0]) == pytest.approx(1)
    np.testing.assert_allclose(removed, np.broadcast_to(kept[:1], kept.shape), atol=1e-9)
    np.testing.assert_allclose(joints, joints[:1] + np.zeros((5, 1, 1)), atol=1e-9)


def test_looping_clips_stop_one_step_before_their_end(walker):
    scene = load_scene(walker)
    np.testing.assert_allclose(Timing(num_frames=4).times(scene.clips[1]), [0, 2 / 3, 4 / 3, 2])
    np.testing.assert_allclose(Timing(num_frames=4, loop=True).times(scene.clips[1]), [0, 0.5, 1, 1.5])


def test_clips_and_splits_by_pattern(walker):
    chosen = Options(clips=("*a*", "t-pose"), test_clips=("spin*",), timing=Timing(num_frames=2), turntable=SMALL)
    dataset = import_gltf(walker, chosen)
    assert dict(zip(dataset.names, dataset.splits)) == {"Walk_Far": "train", "SpinAround": "test", "T-Pose": "train"}


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("Walking_A", "walking a"),
        ("1H_Melee_Attack_Chop", "1h melee attack chop"),
        ("RunFast", "run fast"),
        ("Armature|mixamo.com|Sit-Down", "sit down"),
        ("jumpHTTPServer", "jump httpserver"),
        ("___", "___"),
    ],
)
def test_captions_from_clip_names(name, caption):
    assert humanize(name) == caption


def test_motion_names_are_safe_folder_names(tmp_path):
    writer = moving_square("../../etc/passwd")
    for name in ("Walk", "walk", "a b/c", "..."):
        writer.clip(name, 0, "translation", [0.0, 1.0], np.array([[0, 0, 0], [1, 0, 0]]))
    names = name_motions(load_scene(writer.write(tmp_path / "a.glb")).clips)
    assert names == ("etc_passwd", "Walk", "walk_2", "a_b_c", "motion")


def test_models_in_which_nothing_moves_are_refused(tmp_path):
    writer = Writer()
    writer.add("nodes", {"mesh": writer.square()})
    writer.clip("Pose", 0, "translation", [0.0], np.array([[0, 0, 0]]))
    with pytest.raises(UserError, match=r"still.glb: nothing moves in any of its clips \(Pose\)"):
        import_gltf(writer.write(tmp_path / "still.glb"), Options(turntable=SMALL))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Turntable(size=4), "size: found 4, expected 8..4096"),
        (lambda: Turntable(azimuths_deg=()), "azimuths_deg: found"),
        (lambda: Turntable(fov_deg=180.0), "fov_deg: found 180.0"),
        (lambda: Turntable(margin=0.5), "margin: found 0.5"),
        (lambda: Timing(num_frames=1), "num_frames: found 1, expected 2 or more"),
        (lambda: Timing(root_motion="drop"), "root_motion: found 'drop', expected 'keep' or 'remove'"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.slow
def test_several_processes_give_the_same_dataset(walker):
    options = Options(timing=Timing(num_frames=3), turntable=SMALL)
    one = import_gltf(walker, options)
    two = import_gltf(walker, options, num_workers=2)
    np.testing.assert_array_equal(one.frames, two.frames)
    np.testing.assert_array_equal(one.surface, two.surface)


@pytest.mark.skipif(not KNIGHT.exists(), reason="knight.glb is not beside the repository")
def test_the_knight_stays_in_the_picture_and_shows_its_colours():
    lines = []
    dataset = import_gltf(
        KNIGHT,
        Options(
            clips=("Walking_A", "Death_A", "Cheer"),
            hide=HIDE,
            timing=Timing(num_frames=3),
            turntable=Turntable(size=64, azimuths_deg=(0.0, 120.0), test_azimuths_deg=(240.0,)),
        ),
        report=lines.append,
    )
    assert dataset.names == ("Cheer", "Death_A", "Walking_A")
    assert dataset.joints.shape == (3, 3, 41, 3)
    assert dataset.surface.shape == (3, 3, 8192, 3)
    assert any(line.startswith("left out, hidden: ") and "Spike_Shield" in line for line in lines)
    alpha = dataset.frames[..., 3]
    assert not alpha[..., [0, -1], :].any()
    assert not alpha[..., :, [0, -1]].any()
    assert (alpha > 0).mean() > 0.05
    back = dataset.frames[2, 1, 0].astype(int)  # the cape is red, seen from behind
    red = (back[..., 0] > back[..., 1] + 60) & (back[..., 3] == 255)
    assert red.sum() > 60
    pixels = np.floor(_project(dataset.surface, dataset.cameras)).astype(int)
    for motion, view, frame in np.ndindex(3, 3, 3):
        column, row = pixels[view, motion, frame].T
        # the tip of a thin part may lie beside the samples of its own pixel
        near = [alpha[motion, view, frame, row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        assert (np.max(near, axis=0) > 0).all()


@pytest.mark.parametrize("seconds", [1e6, 3e38])
def test_a_clip_of_any_length_has_a_frame_rate(tmp_path, seconds):
    writer = moving_square()
    writer.json["animations"] = []
    writer.clip("Walk", 0, "translation", [0.0, seconds], np.array([[0, 0, 0], [1, 0, 0]]))
    options = Options(timing=Timing(num_frames=3), turntable=Turntable(size=8, azimuths_deg=(0,), test_azimuths_deg=()))
    dataset = import_gltf(writer.write(tmp_path / "slow.glb"), options)
    assert dataset.frame_rate == pytest.approx(2 / seconds)
