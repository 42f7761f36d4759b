"""Recordings of other programs as datasets: the authors' layout, SV4D's output, videos with a camera file."""

import json
import shutil
import threading
import time
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from support.recordings import SIZE, disc_frames, draw_disc, write_authors, write_cameras, write_sv4d, write_video

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.assembly import assemble
from dimo_jax.data.formats.authors import describe_authors, make_lenses
from dimo_jax.data.formats.camera_file import describe_videos
from dimo_jax.data.formats.native import read_dataset, write_dataset
from dimo_jax.data.formats.recording import build_cameras
from dimo_jax.data.formats.sv4d import EIGHT_VIEWS, FIRST_VERSION, FOUR_VIEWS, default_azimuths, describe_sv4d
from dimo_jax.data.inspection import inspect_folder
from dimo_jax.data.sources import load
from dimo_jax.io import clips, matte
from dimo_jax.io.clips import open_arrays, open_clip
from dimo_jax.io.clocks import Sampling, pick_frames, steady_clock
from dimo_jax.io.masks import read_covers
from dimo_jax.io.matte import Matte, key_out, resize
from dimo_jax.runtime.jobs import run_all

RING = [{"name": "front", "azimuth_deg": 0, "fov_deg": 33.9}, {"name": "side", "azimuth_deg": 90, "fov_deg": 33.9}]


def project(cameras, index, points):
    """Pixels [n,2] of world points [n,3] in one camera."""
    pose = np.asarray(cameras.world_to_camera[index], np.float64)
    seen = points @ pose[:3, :3].T + pose[:3, 3]
    assert (seen[:, 2] > 0).all()
    return seen[:, :2] / seen[:, 2:] * cameras.focal[index] + cameras.center[index]


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (90, 0), (0, 30), (210, -20), (45, 80)])
def test_the_authors_cameras_project_as_theirs_do(azimuth, elevation):
    # Their rule, straight from its description: the eye on the ring, +Y up, the y of a positive elevation below.
    a, e, radius, size = np.deg2rad(azimuth), np.deg2rad(elevation), 2.0, 576
    eye = radius * np.array([np.cos(e) * np.sin(a), -np.sin(e), np.cos(e) * np.cos(a)])
    back = eye / radius
    right = np.cross([0, 1, 0], back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 3))
    offset = points - eye
    tangent = np.tan(np.deg2rad(33.9) / 2)
    depth = -(offset @ back)
    truth = np.stack([(1 + offset @ right / depth / tangent) / 2, (1 - offset @ up / depth / tangent) / 2], -1) * size
    cameras = build_cameras(make_lenses([azimuth], elevation), size, size)
    np.testing.assert_allclose(project(cameras, 0, points), truth, atol=1e-3)


def test_the_authors_cameras_see_what_a_person_expects():
    cameras = build_cameras(make_lenses([0, 90, 0], [0, 0, 30]), 100, 100)
    up, right_of_front, near_front = np.eye(3)[1] * 0.2, np.eye(3)[0] * 0.2, np.eye(3)[2] * 0.2
    assert project(cameras, 0, up[None])[0][1] < 40  # the world's +Y is up in the picture
    assert project(cameras, 0, right_of_front[None])[0][0] > 60
    assert project(cameras, 1, near_front[None])[0][0] < 40  # from +X, what lies at +Z is to the left
    eye = -cameras.world_to_camera[2, :3, :3].T @ cameras.world_to_camera[2, :3, 3]
    np.testing.assert_allclose(eye, [0, -1, 3**0.5], atol=1e-6)  # a positive elevation is below
    np.testing.assert_allclose(cameras.focal, 50 / np.tan(np.deg2rad(33.9 / 2)), rtol=1e-6)


def test_the_authors_layout_is_read_directly(tmp_path):
    folder = write_authors(tmp_path / "fox", elevations_deg=[10, -5], elevation=99, frame_rate=6)
    (folder / "captions.json").write_text(json.dumps({"walk": {"caption": "The fox walks.", "short": "walk on"}}))
    dataset = load({"path": str(folder)})
    assert (dataset.object_name, dataset.names, dataset.frame_rate) == ("fox", ("walk", "jump"), 6)
    assert dataset.paraphrases == (("The fox walks.", "walk on"), ("jump",))
    assert dataset.frames.shape == (2, 2, 3, SIZE, SIZE, 4)
    for frame in range(3):
        rgb, alpha = draw_disc(frame / 3)
        np.testing.assert_array_equal(dataset.frames[1, 1, frame, ..., :3], rgb)
        np.testing.assert_array_equal(dataset.frames[1, 1, frame, ..., 3], np.round(alpha * 255))
    expected = orbit([0, 90], [-10, 5], radius=2, fov_deg=33.9, height=SIZE, width=SIZE)
    np.testing.assert_allclose(dataset.cameras.world_to_camera, expected.world_to_camera)
    np.testing.assert_allclose(dataset.cameras.focal, expected.focal, rtol=1e-6)
    write_dataset(dataset, tmp_path / "native")
    np.testing.assert_array_equal(read_dataset(tmp_path / "native").frames, dataset.frames)


def test_the_authors_layout_without_masks_takes_alpha_or_the_white_ground(tmp_path):
    folder = write_authors(tmp_path / "fox", motions=("walk",), views=1, frames=2, masks=False)
    keyed = load({"path": str(folder)}).frames[0, 0]
    for frame in range(2):
        alpha = draw_disc(frame / 2)[1]
        np.testing.assert_allclose(keyed[frame, ..., 3] / 255, alpha, atol=0.1)
        assert np.abs(keyed[frame, ..., 3] / 255 - alpha).mean() < 0.01
        edge = (keyed[frame, ..., 3] > 60) & (keyed[frame, ..., 3] < 250)
        assert edge.sum() > 10
        np.testing.assert_allclose(keyed[frame][edge][:, :3].mean(axis=0), [200, 40, 60], atol=12)
    for index, path in enumerate(sorted(folder.glob("*/*/*.png"))):
        rgb, alpha = draw_disc(index / 2)
        Image.fromarray(np.dstack([rgb, np.round(255 * alpha).astype(np.uint8)])).save(path)
    frames = load({"path": str(folder)}).frames[0, 0]
    np.testing.assert_array_equal(frames[1, ..., 3], np.round(255 * draw_disc(0.5)[1]))


def test_sv4d_folders_have_the_samplers_cameras(tmp_path):
    folder = write_sv4d(tmp_path / "out", motions=2)
    (folder / "captions.txt").write_text("# mine\n000001: It jumps.\n000001: A jump.\n")
    recording = describe_sv4d(folder, elevation_deg=5, test_azimuths_deg=[120])
    dataset = assemble(recording, matte=Matte(how="key", color=(255, 255, 255)))
    assert dataset.frames.shape == (2, 5, 3, SIZE, SIZE, 4)
    assert dataset.view_names == ("v000", "v001", "v002", "v003", "v004")
    assert dataset.view_splits == ("train", "train", "test", "train", "train")
    assert (dataset.names, dataset.captions) == (("000000", "000001"), ("000000", "It jumps."))
    assert dataset.frame_rate == 10
    expected = orbit(FOUR_VIEWS, 5, radius=2, fov_deg=33.9, height=SIZE, width=SIZE)
    np.testing.assert_allclose(dataset.cameras.world_to_camera, expected.world_to_camera)
    for view in range(5):
        alpha = draw_disc(1, shift=0.02 * view)[1]
        assert np.abs(dataset.frames[1, view, 2, ..., 3] / 255 - alpha).mean() < 0.015
    (folder / "000001_process_input.mp4").unlink()  # the input of one run was not kept: view 0 is left out
    assert describe_sv4d(folder).view_names == ("v001", "v002", "v003", "v004")


def test_sv4d_variants_are_told_apart(tmp_path):
    assert default_azimuths(tmp_path, 8) == EIGHT_VIEWS
    assert default_azimuths(tmp_path, 4) == FOUR_VIEWS
    (tmp_path / "000000_t000.mp4").touch()
    assert default_azimuths(tmp_path, 8) == FIRST_VERSION
    with pytest.raises(UserError, match="6 novel views, expected 8 or 4"):
        default_azimuths(tmp_path, 6)


def test_videos_of_every_kind_with_a_camera_file(tmp_path):
    pose = np.asarray(orbit([90], 0, radius=2, fov_deg=45, height=1, width=1).world_to_camera[0], np.float64)
    to_world = np.linalg.inv(pose) @ np.diag([1.0, -1, -1, 1])
    views = [
        {"name": "mp4", "azimuth_deg": 90, "elevation_deg": 0, "radius": 2, "fov_deg": 40},
        {"name": "webm", "world_to_camera": pose.tolist(), "focal": [50, 52], "center": [15, 17]},
        {"name": "gif", "camera_to_world": to_world.tolist(), "axes": "opengl", "fov_deg": 40, "split": "test"},
        {"name": "pictures", "azimuth_deg": 90, "fov_deg": 40},
    ]
    motion = {"name": "go", "caption": "It goes.", "clips": {"pictures": "extra/stills"}}
    folder = write_cameras(tmp_path / "set", views, image={"width": 32, "height": 32}, frame_rate=10, motions=[motion])
    frames = disc_frames(4)
    write_video(folder / "go/mp4.mp4", frames)
    rgba = np.stack([np.dstack([f, np.round(255 * draw_disc(i / 3)[1])]) for i, f in enumerate(frames)]).astype(
        np.uint8
    )
    write_video(folder / "go/webm.webm", rgba, codec=("-c:v", "libvpx-vp9", "-lossless", "1", "-pix_fmt", "yuva420p"))
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(folder / "go/gif.gif", save_all=True, append_images=images[1:], duration=100)
    (folder / "extra/stills").mkdir(parents=True)
    for index, image in enumerate(images):
        image.save(folder / f"extra/stills/shot_{index + 7}.png")
    dataset = assemble(describe_videos(folder))
    assert dataset.frames.shape == (1, 4, 4, SIZE, SIZE, 4)
    assert (dataset.captions, dataset.frame_rate) == (("It goes.",), 10)
    assert dataset.view_splits == ("train", "train", "test", "train")
    for view in range(4):
        alpha = draw_disc(1)[1]
        assert np.abs(dataset.frames[0, view, 3, ..., 3] / 255 - alpha).mean() < 0.03, views[view]["name"]
        inside = dataset.frames[0, view, 3][alpha == 1][:, :3].astype(int)
        assert np.abs(inside - [200, 40, 60]).mean() < 8, views[view]["name"]
    for view in range(4):
        np.testing.assert_allclose(dataset.cameras.world_to_camera[view], pose, atol=1e-6)
    np.testing.assert_allclose(dataset.cameras.focal[1], [50, 52])
    np.testing.assert_allclose(dataset.cameras.center[1], [15, 17])
    half = assemble(describe_videos(folder), sampling=Sampling(num_frames=2, size=16))
    np.testing.assert_allclose(half.cameras.focal, dataset.cameras.focal / 2)
    np.testing.assert_allclose(half.cameras.center, dataset.cameras.center / 2)
    assert half.frames.shape == (1, 4, 2, 16, 16, 4)
    assert half.frame_rate == pytest.approx(10 / 3, abs=1e-3)
    findings = inspect_folder(folder)
    assert not findings.problems
    assert any("stands where" in note for note in findings.notes)


def test_masks_lie_beside_videos_and_sizes_may_differ(tmp_path):
    folder = write_cameras(tmp_path / "set", RING)
    for view, size in (("front", 32), ("side", 64)):
        noisy = np.random.default_rng(1).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
        write_video(folder / f"walk/{view}.mp4", noisy)
        masks = np.stack([np.repeat(draw_disc(t, size=size)[1][..., None] * 255, 3, -1) for t in (0, 1)])
        write_video(folder / f"walk/{view}_mask.mp4", np.round(masks).astype(np.uint8))
    with pytest.raises(UserError, match=r"pictures of 64x64, .*expected one size"):
        assemble(describe_videos(folder))
    dataset = assemble(describe_videos(folder), sampling=Sampling(size=32))
    for view in range(2):
        for frame in range(2):
            assert np.abs(dataset.frames[0, view, frame, ..., 3] / 255 - draw_disc(frame)[1]).mean() < 0.02
    shutil.rmtree(folder / "walk")
    write_video(folder / "walk/front.mp4", noisy)
    write_video(folder / "walk/side.mp4", noisy)
    with pytest.raises(UserError, match=r"(front|side)\.mp4: found no masks, no transparency, and no plain background"):
        assemble(describe_videos(folder))
    opaque = assemble(describe_videos(folder), matte=Matte(how="none"))
    assert (opaque.frames[..., 3] == 255).all()


def test_frames_are_picked_by_count_and_by_pace():
    clock = steady_clock(9, 8.0)
    assert pick_frames(clock, Sampling(), "x")[0].tolist() == list(range(9))
    indices, rate = pick_frames(clock, Sampling(num_frames=5), "x")
    assert (indices.tolist(), rate) == ([0, 2, 4, 6, 8], 4.0)
    indices, rate = pick_frames(clock, Sampling(frame_rate=4.0), "x")
    assert (indices.tolist(), rate) == ([0, 2, 4, 6, 8], 4.0)
    indices, rate = pick_frames(steady_clock(30, 30.0), Sampling(frame_rate=12.0, num_frames=5), "x")
    assert (indices.tolist(), rate) == ([0, 2, 5, 7, 10], 12.0)
    assert len(pick_frames(steady_clock(30, 30.0), Sampling(frame_rate=12.0), "x")[0]) == 12
    with pytest.raises(UserError, match="9 frames, expected at least 21"):
        pick_frames(clock, Sampling(num_frames=21), "x")
    with pytest.raises(UserError, match="frame rate is not known"):
        pick_frames(9, Sampling(frame_rate=2.0), "x")
    with pytest.raises(UserError, match=r"9 frames in 1\.12 s, expected 2\.25 s or more for num_frames=9 at 4 a"):
        pick_frames(clock, Sampling(frame_rate=4.0, num_frames=9), "x")


@pytest.mark.parametrize(
    ("sampling", "indices"),
    [(Sampling(num_frames=3), [0, 4, 8]), (Sampling(frame_rate=20.0, num_frames=4), [0, 0, 1, 1])],
    ids=["fewer", "some twice"],
)
def test_only_the_frames_that_are_kept_are_cut_out(tmp_path, monkeypatch, sampling, indices):
    folder = write_cameras(tmp_path / "set", RING[:1])
    write_video(folder / "walk/front.mp4", disc_frames(9))
    write_video(folder / "walk/front_mask.mp4", disc_frames(9, background=(0, 0, 0), color=(255, 255, 255)))
    for how in ("key", "masks"):
        whole = assemble(describe_videos(folder), matte=Matte(how=how)).frames
        with monkeypatch.context() as patch:
            counted = Mock(side_effect=matte.apply)
            patch.setattr(matte, "apply", counted)
            some = assemble(describe_videos(folder), sampling=sampling, matte=Matte(how=how)).frames
        np.testing.assert_array_equal(some, whole[:, :, indices])
        assert counted.call_count == len(set(indices))


def test_a_key_keeps_what_the_object_encloses_unless_told():
    frame = np.full((32, 32, 4), 255, np.uint8)
    frame[8:24, 8:24, :3] = 0
    frame[14:18, 14:18, :3] = 255  # a white eye
    kept = key_out(frame, Matte(how="key", color=(255, 255, 255)))
    assert (kept[8:24, 8:24, 3] == 255).all()
    assert kept[:6, :6, 3].max() == 0
    gone = key_out(frame, Matte(how="key", color=(255, 255, 255), enclosed=True))
    assert gone[15, 15, 3] == 0
    assert gone[10, 10, 3] == 255


def test_resizing_keeps_the_colour_of_edges():
    frame = np.zeros((32, 32, 4), np.uint8)
    frame[..., :3] = (0, 255, 0)  # a transparent ground of another colour
    frame[:, 5:, :] = (200, 40, 60, 255)
    small = resize(frame, 8, 8)
    mixed = small[(small[..., 3] > 20) & (small[..., 3] < 240)]
    assert len(mixed) >= 8
    np.testing.assert_allclose(mixed[:, :3], np.tile([200, 40, 60], (len(mixed), 1)), atol=6)


def test_captions_are_edited_in_a_plain_file(tmp_path):
    write_dataset(load({"path": str(write_authors(tmp_path / "fox"))}), tmp_path / "set")
    path = tmp_path / "set/captions.txt"
    assert path.read_text().splitlines()[1:] == ["walk: walk", "jump: jump"]
    path.write_text("walk: The fox walks: slowly.\n\n# more\nwalk:  It  strolls.\n")
    dataset = read_dataset(tmp_path / "set")
    assert dataset.captions == ("The fox walks: slowly.", "jump")
    assert dataset.test_paraphrases == ()
    (tmp_path / "set/test_captions.txt").write_text("jump: It hops.\n")
    assert read_dataset(tmp_path / "set").test_paraphrases == ((), ("It hops.",))
    assert dataset.paraphrases == (("The fox walks: slowly.", "It strolls."), ("jump",))
    for text, message in (("run: x", "line 1 names motion 'run', expected one of walk, jump"), ("walk", "line 1 is")):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"captions\.txt: {message}"):
            read_dataset(tmp_path / "set")


def test_files_edited_on_windows_are_read(tmp_path):
    folder = write_authors(tmp_path / "fox")
    write_dataset(load({"path": str(folder)}), tmp_path / "set")
    for path in (folder / "info.json", tmp_path / "set/captions.txt", tmp_path / "set/dataset.json"):
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode("utf-8-sig"))
    assert load({"path": str(folder)}).names == ("walk", "jump")
    assert read_dataset(tmp_path / "set").captions == ("walk", "jump")


def test_alpha_of_a_webm_survives_and_lengths_are_known(tmp_path):
    frames = np.zeros((5, 16, 16, 4), np.uint8)
    frames[:, 4:12, 4:12] = (200, 100, 50, 255)
    write_video(
        tmp_path / "a.webm", frames, rate=7, codec=("-c:v", "libvpx-vp9", "-lossless", "1", "-pix_fmt", "yuva420p")
    )
    clip = open_clip(tmp_path / "a.webm")
    assert clip.read_clock().rate == 7
    decoded = np.stack(list(clip.frames()))
    assert decoded.shape == frames.shape
    np.testing.assert_allclose(decoded[..., 3], frames[..., 3], atol=2)


def test_an_inspection_names_every_file(tmp_path):
    folder = write_authors(tmp_path / "fox")
    (folder / "walk/view_00/01.png").write_bytes(b"junk")
    (folder / "jump/view_01/00_mask.npy").unlink()
    findings = inspect_folder(folder)
    assert len(findings.problems) == 2
    assert "00_mask.npy: no such file" in findings.problems[0]
    assert "01.png: cannot be read" in findings.problems[1]
    assert set(findings.first_frames) == {(0, 1), (1, 0)}
    write_dataset(load({"path": str(write_authors(tmp_path / "cat"))}), tmp_path / "set")
    (tmp_path / "set/walk/view_00/00001.png").write_bytes(b"junk")
    (tmp_path / "set/jump/view_01/00002.png").unlink()
    (tmp_path / "set/jump/truth.npz").write_bytes(b"junk")
    problems = inspect_folder(tmp_path / "set").problems
    assert [name for name in ("00001.png: cannot", "00002.png is missing", "truth.npz: cannot") if
            not any(name in problem for problem in problems)] == []  # fmt: skip
    assert len(problems) == 3
    (tmp_path / "set/test_captions.txt").write_text("run: It runs.\n")
    assert any(
        "test_captions.txt: line 1 names motion 'run'" in line for line in inspect_folder(tmp_path / "set").problems
    )


def test_a_folder_without_any_sign_is_refused(tmp_path):
    describe = (describe_authors, describe_sv4d, describe_videos)
    for function in describe:
        with pytest.raises(UserError, match="found no"):
            function(tmp_path)
    with pytest.raises(UserError, match=r"found none of dataset\.json, cameras\.json, info\.json"):
        inspect_folder(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 1], [1, 0]], np.uint8), [[0, 255], [255, 0]]),
        (np.array([[0, 1], [128, 255]], np.uint8), [[0, 1], [128, 255]]),
        (np.array([[0, 3], [7, 0]], np.int64), [[0, 255], [255, 0]]),
        (np.array([[0, 300], [65535, 0]], np.uint16), [[0, 1], [255, 0]]),
        (np.array([[0, 1], [0, 0]], bool), [[0, 255], [0, 0]]),
        (np.array([[0, 1.004], [0.5, -0.004]], np.float16), [[0, 255], [128, 0]]),
    ],
    ids=["bytes of 0 and 1", "bytes", "numbers of objects", "16 bits", "bools", "floats"],
)
def test_masks_of_every_kind_of_number(tmp_path, values, expected):
    np.save(tmp_path / "0.npy", values)
    (found,) = read_covers(open_arrays(tmp_path, [tmp_path / "0.npy"]))
    np.testing.assert_array_equal(found, expected)


def test_a_mask_of_other_numbers_is_refused_and_not_clipped(tmp_path):
    np.save(tmp_path / "0.npy", np.array([[0, 255.0]]))
    with pytest.raises(UserError, match=r"0\.npy: floats of 0 to 255, expected a mask of 0\.\.1 \(or bytes"):
        list(read_covers(open_arrays(tmp_path, [tmp_path / "0.npy"])))


@pytest.mark.parametrize(("count", "found"), [(2, "only 2 masks"), (4, "more than 3 masks")])
def test_masks_of_another_length_are_refused_where_they_are_used(tmp_path, count, found):
    folder = write_cameras(tmp_path / "set", RING[:1])
    write_video(folder / "walk/front.mp4", disc_frames(3))
    write_video(folder / "walk/front_mask.mp4", disc_frames(count))
    with pytest.raises(UserError, match=rf"front_mask\.mp4: {found}, expected one for each frame of .*front\.mp4"):
        assemble(describe_videos(folder))
    assert assemble(describe_videos(folder), matte=Matte(how="key")).num_frames == 3


def test_names_of_cameras_in_capitals_are_found(tmp_path):
    folder = write_cameras(tmp_path / "set", RING[:1])
    write_video(folder / "walk/front.mp4", disc_frames(2))
    (folder / "walk/front.mp4").rename(folder / "walk/front.MP4")
    assert assemble(describe_videos(folder)).num_frames == 2


def change(folder, name, **fields):
    table = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(table | fields))


def test_a_clip_or_mask_of_a_view_that_does_not_exist_is_not_left_out_in_silence(tmp_path):
    folder = write_cameras(tmp_path / "set", RING[:1])
    write_video(folder / "walk/front.mp4", disc_frames(2))
    for key in ("clips", "masks"):
        change(folder, "cameras.json", motions=[{"name": "walk", key: {"frnt": "walk/front.mp4"}}])
        with pytest.raises(UserError, match=rf"motion walk: {key} has 'frnt', expected names of views: front"):
            describe_videos(folder)


def test_a_focal_length_for_pictures_of_another_shape_is_refused(tmp_path):
    view = {"name": "front", "azimuth_deg": 0, "focal": [50, 50]}
    folder = write_cameras(tmp_path / "set", [view], image={"width": 48, "height": 32})
    write_video(folder / "walk/front.mp4", disc_frames(2))
    message = r"front\.mp4: pictures of 32x32, expected the shape of image in .*cameras\.json, 48x32, which focal"
    with pytest.raises(UserError, match=message):
        describe_videos(folder)
    assert [bool(message) for message in inspect_folder(folder).problems] == [True]
    change(folder, "cameras.json", image={"width": 64, "height": 64})  # the same camera, measured at twice the size
    np.testing.assert_allclose(assemble(describe_videos(folder)).cameras.focal, [[25, 25]])


def test_a_pose_that_is_no_rotation_is_named_as_it_is_in_the_file(tmp_path):
    views = [{"name": "front", "camera_to_world": (2 * np.eye(4)).tolist(), "fov_deg": 40}]
    with pytest.raises(UserError, match="view front: camera_to_world is not rigid"):
        describe_videos(write_cameras(tmp_path / "set", views))


def test_views_of_sv4d_are_held_out_by_the_digits_that_are_shown(tmp_path):
    folder = write_sv4d(tmp_path / "out", views=8)
    (folder / "000000_t000.mp4").touch()  # of the first version, whose azimuths are multiples of 360 / 21
    with pytest.raises(UserError, match=r"found 40, expected some of 0, 34\.2857, 85\.7143") as error:
        describe_sv4d(folder, test_azimuths_deg=[40])
    shown = [float(text) for text in str(error.value).split("some of ")[1].split(",")]
    splits = describe_sv4d(folder, test_azimuths_deg=[shown[1], 240]).view_splits
    assert [index for index, split in enumerate(splits) if split == "test"] == [1, 6]
    (folder / "000000_process_input.mp4").unlink()
    with pytest.raises(UserError, match=r"--test_azimuths: found 0, expected some of 34\.2857"):
        describe_sv4d(folder, test_azimuths_deg=[0])  # view 0 is not there to be held out


def test_every_elevation_of_the_authors_layout_is_checked(tmp_path):
    for fields in ({"elevations_deg": [0, 100]}, {"elevation": 100}):
        folder = write_authors(tmp_path / str(len(fields)) / next(iter(fields)), **fields)
        with pytest.raises(UserError, match=r"info\.json: an elevation is 100, expected -90 to 90 degrees"):
            describe_authors(folder)


def test_threads_read_masks_one_header_at_a_time(tmp_path, monkeypatch):
    """Two parsers at once are an error of Python 3.11 that shows now and then; here any two would be seen."""
    busy = threading.Lock()

    def load(*given, load=np.load, **options):
        assert busy.acquire(blocking=False), "two threads parse at once"
        time.sleep(0.002)
        busy.release()
        return load(*given, **options)

    np.save(tmp_path / "0.npy", np.ones((4, 4)))
    monkeypatch.setattr(clips.np, "load", load)
    run_all(
        [lambda: len(list(read_covers(open_arrays(tmp_path, [tmp_path / "0.npy"]))))] * 40, 40, "masks", max_workers=8
    )
