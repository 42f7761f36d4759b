"""`--app=animate`: a rig moved by pose-map videos and by tracks, and what is said about input that does not fit."""

import json
import shutil

import numpy as np
import pytest
from support.small_rig import write_small_rig
from support.spoilt_weights import spoil_weights

from dimo_jax.apps.animate import run
from dimo_jax.cameras.surround import surround
from dimo_jax.cameras.triangulation import project
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.pose_folder import write_pose_folder
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.io.video import write_video
from dimo_jax.rigs.pose_markers import make_markers, place_pose_markers
from dimo_jax.rigs.posing import pose_nodes, pose_scene, pose_vertices

FRAMES, RATE = 13, 6.0


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_small_rig(tmp_path_factory.mktemp("rig") / "small.glb")


@pytest.fixture(scope="module")
def motion(source):
    """The scene, its markers, their places [T,K,3] in its clip, and cameras."""
    scene = load_scene(source)
    markers = make_markers(scene)
    points = place_pose_markers(markers, pose_nodes(scene, scene.clips[0], np.arange(FRAMES) / RATE).matrices)
    return scene, markers, points, surround(points, height=240, width=240)


@pytest.fixture(scope="module")
def videos(motion, tmp_path_factory):
    _, markers, points, cameras = motion
    return write_pose_folder(tmp_path_factory.mktemp("poses"), points, cameras, markers, frame_rate=RATE)


def write_tracks(folder, motion, *, frames=slice(None), confidence=None, **changes):
    """Tracks of all views, the first as npz, and cameras.json with some keys changed."""
    _, markers, points, cameras = motion
    points = points[frames]
    pixels, _ = project(points, cameras)
    folder.mkdir(exist_ok=True)
    views = []
    for view, places in enumerate(pixels):
        name = f"view_{view}"
        pose, focal = np.asarray(cameras.world_to_camera[view]), np.asarray(cameras.focal[view], float)
        views.append({"name": name, "world_to_camera": pose.tolist(), "focal": focal.tolist()})
        if view == 0:
            np.savez(folder / f"{name}.npz", joints=np.array(markers.names), pixels=places)
        else:
            table = {"joints": list(markers.names), "pixels": places.tolist()}
            (folder / f"{name}.json").write_text(json.dumps(table | ({"confidence": confidence} if confidence else {})))
    table = {"schema_version": 1, "frame_rate": RATE, "image": {"width": 240, "height": 240}, "views": views}
    (folder / "cameras.json").write_text(json.dumps(table | changes))
    return folder


def measure(source, out, clip):
    """Mean vertex error of a clip of `out` against the source's, in percent of the diagonal."""
    old, new = load_scene(source), load_scene(out)
    times = np.arange(FRAMES) / RATE
    true = pose_vertices(old, pose_nodes(old, old.clips[0], times), slice(None))
    chosen = next(each for each in new.clips if each.name == clip)
    found = pose_vertices(new, pose_nodes(new, chosen, times), slice(None))
    return 100 * np.linalg.norm(found - true, axis=-1).mean() / make_markers(old).diagonal


def test_videos_and_tracks_become_clips(source, motion, videos, tmp_path, capsys):
    out = tmp_path / "moved.glb"
    both = tmp_path / "poses"
    shutil.copytree(videos, both / "walk")
    (both / "walk" / "cameras.json").rename(both / "cameras.json")
    run(source=str(source), out=str(out), poses=str(both))
    report = json.loads((tmp_path / "moved.json").read_text())
    row = report["clips"][0]
    assert row["clip"] == "walk"
    assert row["frames"] == FRAMES
    assert row["reprojection_px"] < 0.5
    assert row["fit_error"] < 0.3
    assert row["bone_drift"] < 1
    assert row["low_confidence"] == {}
    assert 0.5 < row["jerk"] / row["own_jerk"] < 2
    assert "walk: 13 frames at 6 a second" in capsys.readouterr().out
    assert measure(source, out, "walk") < 1
    tracks = write_tracks(tmp_path / "tracked", motion)
    run(source=str(source), out=str(tmp_path / "tracked.glb"), poses=str(tracks))
    assert measure(source, tmp_path / "tracked.glb", "tracked") < 0.5


def test_a_single_picture_a_view_is_a_clip_of_one_key(source, motion, tmp_path):
    out = tmp_path / "still.glb"
    run(source=str(source), out=str(out), poses=str(write_tracks(tmp_path / "still", motion, frames=slice(3, 4))))
    scene = load_scene(out)
    assert scene.clips[-1].end == scene.clips[-1].start == 0
    found = pose_vertices(scene, pose_nodes(scene, scene.clips[-1], np.zeros(1)), 0)
    true = pose_vertices(scene, pose_nodes(scene, scene.clips[0], np.array([3 / RATE])), 0)
    assert np.linalg.norm(found - true, axis=-1).max() < 0.005
    assert np.abs(true - pose_scene(scene, None, 0)).max() > 0.1


def test_a_repaired_model_is_written_so_that_it_needs_no_repair(source, motion, tmp_path, capsys):
    tracks, spoilt, out = write_tracks(tmp_path / "walk", motion), tmp_path / "spoilt.glb", tmp_path / "out.glb"
    spoil_weights(source, (1, 4), spoilt)
    refuse(spoilt, tracks, tmp_path, r"vertex 1 has the weights nan.*with --repair")
    run(source=str(spoilt), poses=str(tracks), out=str(out), repair=True)
    said = capsys.readouterr().out
    assert "repaired: meshes[0].primitives[0]: weights of 2 of 56 vertices, in what is written too" in said
    scene = load_scene(out)
    assert not [note for note in scene.notes if "repaired" in note]
    assert [clip.name for clip in scene.clips] == ["Swing", "walk"]


def refuse(source, poses, tmp_path, match, **options):
    with pytest.raises(UserError, match=match):
        run(source=str(source), poses=str(poses), out=str(tmp_path / "x.glb"), **options)
    assert not (tmp_path / "x.glb").exists()
    assert not (tmp_path / "x.json").exists()


def test_videos_that_do_not_fit_are_named(source, videos, tmp_path):
    short = shutil.copytree(videos, tmp_path / "short")
    write_video(np.zeros((FRAMES - 1, 240, 240, 3), np.uint8), short / "view_2.mp4", frame_rate=RATE)
    refuse(source, short, tmp_path, r"view_2\.mp4: 12 frames, expected 13 as of view_0\.mp4")
    write_video(np.zeros((FRAMES, 120, 240, 3), np.uint8), short / "view_2.mp4", frame_rate=RATE)
    refuse(source, short, tmp_path, r"view_2\.mp4: pictures of 240x120, expected 240x240")
    write_video(np.zeros((FRAMES, 240, 240, 3), np.uint8), short / "view_2.mp4", frame_rate=RATE)
    refuse(source, short, tmp_path, r"view view_2: found 0 % of 10 markers of small\.glb")
    (short / "view_2.mp4").unlink()
    refuse(source, short, tmp_path, r"found no file of view view_2")


def test_cameras_that_do_not_fit_are_named(source, motion, tmp_path):
    folder = write_tracks(tmp_path / "a", motion)
    table = json.loads((folder / "cameras.json").read_text())
    poses = [view["world_to_camera"] for view in table["views"]]
    for view, pose in zip(table["views"], poses[1::-1]):  # the first two are exchanged
        view["world_to_camera"] = pose
    (folder / "cameras.json").write_text(json.dumps(table))
    refuse(source, folder, tmp_path, r"cameras\.json: only \d+ % of what views show meets in one place")
    small = write_tracks(tmp_path / "b", motion)
    table = json.loads((small / "cameras.json").read_text())
    for view in table["views"]:
        for row in view["world_to_camera"][:3]:
            row[3] *= 0.01
    (small / "cameras.json").write_text(json.dumps(table))
    refuse(source, small, tmp_path, r"cameras\.json: bones come out 0\.01\d* times as long")
    one = write_tracks(tmp_path / "c", motion, views=table["views"][:1])
    refuse(source, one, tmp_path, r"views has 1 entries, expected at least 2")
    refuse(source, tmp_path / "none", tmp_path, r"--poses=.*none: no such")


def test_tracks_that_do_not_fit_are_named(source, motion, tmp_path):
    folder = write_tracks(tmp_path / "a", motion)
    path = folder / "view_1.json"
    table = json.loads(path.read_text())
    for change, match in (
        ({"joints": ["tail", *table["joints"][1:]]}, r"view_1\.json: joints has 'tail', expected some of hips"),
        ({"joints": table["joints"][1:]}, r"joints of 9 names and pixels \[13, 10, 2\]"),
        ({"pixels": table["pixels"][1:]}, r"view_1\.json: 12 frames, expected 13"),
        ({"pixels": [[[1.0]], [[1.0, 2.0]]]}, r"pixels is no array of numbers"),
        ({"pixels": (1e4 * np.array(table["pixels"])).tolist()}, r"expected those of 240x240"),
        ({"confidence": [[2.0]]}, r"confidence \[1, 1\], expected \[13, 10\] of 0 to 1"),
    ):
        path.write_text(json.dumps(table | change))
        refuse(source, folder, tmp_path, match)


def test_models_and_flags_that_do_not_fit_are_named(source, motion, tmp_path):
    folder = write_tracks(tmp_path / "a", motion)
    bare = write_small_rig(tmp_path / "bare.glb", skin=False)
    refuse(bare, folder, tmp_path, r"bare\.glb: no skin found")
    with pytest.raises(UserError, match=r"--out=.*small\.glb: is the source itself"):
        run(source=str(source), poses=str(folder), out=str(source))
    with pytest.raises(UserError, match=r"found \.gltf, expected \.glb"):
        run(source=str(source), poses=str(folder), out=str(tmp_path / "x.gltf"))
    with pytest.raises(UserError, match="--poses: neither --poses nor --workdir"):
        run(source=str(source), out=str(tmp_path / "x.glb"))
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(UserError, match=r"y\.json exists"):
        run(source=str(source), poses=str(folder), out=str(tmp_path / "y.glb"))
