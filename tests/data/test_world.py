"""Units, places and axes of users: the method's world follows the cameras and the object, and goes back."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from support.recordings import write_cameras

from dimo_jax.apps.import_data import run as import_data
from dimo_jax.cameras.orbits import orbit
from dimo_jax.cameras.upright import AXES, choose_turn, find_up, note_upright, turn_to_y
from dimo_jax.core.errors import UserError
from dimo_jax.data import extent
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.extent import find_box, find_boxes, find_focus, find_world, fits, look, normalize
from dimo_jax.data.formats.native import read_dataset, write_dataset
from dimo_jax.data.inspection import inspect_folder
from dimo_jax.data.puppet.dataset import make_puppet
from dimo_jax.data.sources import load
from dimo_jax.data.world import bring_into, parse_world, place_cameras, place_dataset
from dimo_jax.geometry.world import World

SIZE, FOV = 48, 33.9
RANDOM = World(0.3, np.array([5.0, -2.0, 1.0]), turn_to_y(np.array([0.6, 0.0, 0.8])))


def ball_pictures(cameras, *, radius=0.4, middle=(0.0, 0.0, 0.0), frames=3):
    """RGBA [1,V,T,H,W,4] of a ball that rises a little, drawn where each camera projects it."""
    result = np.zeros((1, len(cameras.focal), frames, cameras.height, cameras.width, 4), np.uint8)
    y, x = np.mgrid[: cameras.height, : cameras.width] + 0.5
    for v, pose in enumerate(np.asarray(cameras.world_to_camera, np.float64)):
        for t in range(frames):
            place = pose[:3, :3] @ (np.asarray(middle) + [0, 0.02 * radius * t, 0]) + pose[:3, 3]
            at = place[:2] / place[2] * cameras.focal[v] + cameras.center[v]
            inside = np.hypot(x - at[0], y - at[1]) < radius / place[2] * cameras.focal[v][0]
            result[0, v, t] = np.where(inside[..., None], [200, 80, 40, 255], [255, 255, 255, 0])
    return result


def ball_dataset(world=None, **options):
    """The ball seen by a ring of four, in the user's world that `world` carries to the method's."""
    cameras = orbit([0, 90, 180, 270], 15.0, radius=2.0, fov_deg=FOV, height=SIZE, width=SIZE)
    dataset = Dataset(
        frames=ball_pictures(cameras, **options), cameras=cameras, names=("up",), captions=("up",), splits=("train",),
        view_names=tuple("abcd"), view_splits=("train",) * 4, frame_rate=8.0, object_name="ball",
    )  # fmt: skip
    if world is None:
        return dataset
    return dataclasses.replace(dataset, cameras=place_cameras(cameras, world.inverse()))


@pytest.mark.parametrize(
    "world",
    [World(0.01), World(1000.0), World(1.0, np.array([3.0, 0, -3])), World(0.01, np.array([4e5, 120.0, 5e6]))],
    ids=["centimetres", "kilometres", "off the origin", "a map's coordinates"],
)
def test_units_and_places_give_the_same_cameras(world):
    before = ball_dataset()
    after, said = normalize(ball_dataset(world))
    np.testing.assert_allclose(after.cameras.world_to_camera, before.cameras.world_to_camera, atol=1e-5)
    assert after.cameras.world_to_camera.dtype == np.float32
    assert after.world.scale == pytest.approx(world.scale, rel=1e-5)
    np.testing.assert_allclose(after.world.center, world.center, atol=1e-5 / world.scale)
    assert f"scaled by {world.scale:.3g}" in said
    assert after.frames is not before.frames


def test_what_has_the_right_size_stays_bit_for_bit():
    for dataset in (ball_dataset(), ball_dataset(radius=0.2), make_puppet(num_motions=2, num_frames=4, size=32)):
        placed, said = normalize(dataset)
        assert placed.world.is_identity
        np.testing.assert_array_equal(placed.cameras.world_to_camera, dataset.cameras.world_to_camera)
        assert placed.frames is dataset.frames
        assert "as the method has it" in said


def test_a_small_object_in_a_large_rig_is_enlarged():
    dataset = ball_dataset(radius=0.08, middle=(0.3, 0.1, 0))
    sight = look(dataset.cameras, find_boxes(dataset.frames[..., 3]))
    assert sight.extent == pytest.approx(0.17, rel=0.15)
    np.testing.assert_allclose(sight.middle, [0.3, 0.1, 0], atol=0.02)
    placed, _ = normalize(dataset)
    again = look(placed.cameras, find_boxes(placed.frames[..., 3]))
    assert fits(again)
    assert again.extent == pytest.approx(1.0, rel=0.05)
    np.testing.assert_allclose(again.middle, 0, atol=0.05)
    assert normalize(placed)[0].world.same_place(placed.world)  # what was placed is not moved again


def test_cameras_alone_tell_where_no_mask_does():
    dataset = ball_dataset(World(0.05, np.array([1.0, 2, 3])))
    opaque = np.full_like(dataset.frames, 255)
    for frames in (opaque, np.zeros_like(opaque)):
        sight = look(dataset.cameras, find_boxes(frames[..., 3]))
        assert sight.extent is None
        np.testing.assert_allclose(sight.focus, [1, 2, 3], atol=1e-4)
        assert find_world(sight).scale == pytest.approx(0.05, rel=1e-4)
    one = dataclasses.replace(
        dataset.cameras,
        world_to_camera=dataset.cameras.world_to_camera[:1] + np.eye(4) * 0,
        focal=dataset.cameras.focal[:1],
        center=dataset.cameras.center[:1],
    )
    assert np.isfinite(find_focus(one)[0]).all()


def test_boxes_of_masks_leave_specks_and_cut_objects_out():
    mask = np.zeros((100, 100), bool)
    assert find_box(255 * mask.astype(np.uint8)) is None
    mask[20:60, 30:70] = True
    np.testing.assert_array_equal(find_box(255 * mask.astype(np.uint8)), [30, 20, 70, 60])
    mask[98, 98] = True  # a speck far away
    np.testing.assert_array_equal(find_box(255 * mask.astype(np.uint8)), [30, 20, 70, 60])
    mask[60:, 30:70] = True
    assert find_box(255 * mask.astype(np.uint8)) is None  # cut by the border: its size is not known
    assert find_box(np.full((9, 9), 255, np.uint8)) is None


def test_one_bad_mask_does_not_set_the_size():
    dataset = ball_dataset()
    frames = dataset.frames.copy()
    frames[0, 2, :, 4:44, 4:44, 3] = 255
    found = extent.find_object(dataset.cameras, find_boxes(frames[..., 3]))
    assert found[1] < 1.0


def test_worlds_go_on_and_back():
    points = np.random.default_rng(0).normal(size=(7, 3))
    step = World(4.0, np.array([0.1, 0.2, 0.3]), turn_to_y(AXES["-x"]))
    np.testing.assert_allclose(RANDOM.then(step).apply(points), step.apply(RANDOM.apply(points)))
    np.testing.assert_allclose(RANDOM.undo(RANDOM.apply(points)), points)
    np.testing.assert_allclose(RANDOM.inverse().apply(RANDOM.apply(points)), points)
    again = parse_world(json.loads(json.dumps({"world": RANDOM.to_json()})), "x")
    assert again.same_place(RANDOM)
    for key, value in (("scale", 0), ("rotation", [[1, 0, 0], [0, 1, 0], [0, 0, 2]]), ("center", [1]), ("of", "me")):
        with pytest.raises(UserError, match=f"x: world: {key}"):
            parse_world({"world": RANDOM.to_json() | {key: value}}, "x")


def test_a_dataset_folder_keeps_its_world_and_truth_follows(tmp_path):
    surface = np.random.default_rng(0).normal(size=(1, 3, 5, 3)).astype(np.float32)
    dataset = dataclasses.replace(ball_dataset(), surface=surface, joints=surface, height=1.0)
    placed = place_dataset(dataset, RANDOM)
    np.testing.assert_allclose(placed.surface, RANDOM.apply(surface), atol=1e-6)
    assert placed.height == pytest.approx(np.ptp(placed.surface[0, 0, :, 1]))
    write_dataset(placed, tmp_path / "set")
    again = read_dataset(tmp_path / "set")
    assert again.world.same_place(RANDOM)
    back = bring_into(again, World())
    np.testing.assert_allclose(back.cameras.world_to_camera, dataset.cameras.world_to_camera, atol=1e-5)
    np.testing.assert_allclose(back.joints, surface, atol=1e-5)


def test_a_folder_that_trains_as_it_is_moves_when_it_is_loaded(tmp_path, caplog, informed):
    write_dataset(ball_dataset(World(0.01)), tmp_path / "set")
    table = json.loads((tmp_path / "set/dataset.json").read_text())
    assert "world" not in table  # as older versions wrote it
    with caplog.at_level("INFO"):
        dataset = load({"path": str(tmp_path / "set")})
    np.testing.assert_allclose(dataset.cameras.world_to_camera, ball_dataset().cameras.world_to_camera, atol=1e-5)
    assert "scaled by 0.01" in caplog.text


def write_recording(folder, poses, *, world=None, **others):
    """A folder of `cameras.json`, camera_to_world matrices of Blender, and pictures of the ball."""
    cameras = orbit([0, 90, 180, 270], 15.0, radius=2.0, fov_deg=FOV, height=SIZE, width=SIZE)
    views = [
        {"name": f"v{v}", "axes": "opengl", "fov_deg": FOV,
         "camera_to_world": (np.linalg.inv(pose) @ np.diag([1.0, -1, -1, 1])).tolist()}
        for v, pose in enumerate(np.asarray(poses, np.float64))
    ]  # fmt: skip
    write_cameras(folder, views, frame_rate=8, **others)
    for v, frames in enumerate(ball_pictures(cameras)[0]):
        (folder / f"up/v{v}").mkdir(parents=True)
        for t, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / f"up/v{v}/{t}.png")
    return folder


@pytest.mark.parametrize("axis", list(AXES))
def test_up_is_found_by_the_cameras_and_turned_to_y(tmp_path, capsys, axis):
    user = World(0.01, np.array([50.0, 20.0, -30.0]), turn_to_y(AXES[axis]))
    upright = ball_dataset().cameras
    poses = place_cameras(upright, user.inverse()).world_to_camera
    folder = write_recording(tmp_path / "in", poses)
    import_data(source=str(folder), out=str(tmp_path / "auto"))
    said = capsys.readouterr().out
    dataset = read_dataset(tmp_path / "auto")
    np.testing.assert_allclose(dataset.cameras.world_to_camera, upright.world_to_camera, atol=1e-4)
    assert ("the cameras see up in" in said) == (axis != "y")
    np.testing.assert_allclose(dataset.world.rotation, user.rotation, atol=1e-9)
    notes = " ".join(inspect_folder(folder).notes)
    assert (f"its {axis} is up" in notes) == (axis != "y")
    assert not inspect_folder(tmp_path / "auto").notes
    import_data(source=str(folder), out=str(tmp_path / "left"), up="y")
    assert "the cameras see up" not in capsys.readouterr().out
    notes = " ".join(inspect_folder(tmp_path / "left").notes)
    assert ("across the world's (0, 1, 0)" in notes) == (axis != "y")
    import_data(source=str(folder), out=str(tmp_path / "asked"), up=axis)
    np.testing.assert_array_equal(
        read_dataset(tmp_path / "asked").cameras.world_to_camera, dataset.cameras.world_to_camera
    )


def test_up_may_stand_in_the_file_and_is_checked(tmp_path):
    cameras = ball_dataset().cameras
    folder = write_recording(tmp_path / "in", cameras.world_to_camera, up="z")
    import_data(source=str(folder), out=str(tmp_path / "out"))
    np.testing.assert_allclose(read_dataset(tmp_path / "out").world.rotation, turn_to_y(AXES["z"]))
    table = json.loads((folder / "cameras.json").read_text())
    for change, message in (
        ({"up": "north"}, "up is 'north', expected one of auto, x, y, z"),
        (
            {"views": [{"name": "v0", "azimuth_deg": 0, "fov_deg": 30}]},
            "up is z, expected y, which azimuth_deg of view v0",
        ),
    ):
        (folder / "cameras.json").write_text(json.dumps(table | change))
        with pytest.raises(UserError, match=message):
            import_data(source=str(folder), out=str(tmp_path / "none"))
    (folder / "cameras.json").write_text(json.dumps(table | {"up": "auto"}))
    with pytest.raises(UserError, match="--up: found 'north', expected one of auto"):
        import_data(source=str(folder), out=str(tmp_path / "none"), up="north")
    assert not (tmp_path / "none").exists()


def test_tilted_worlds_turn_by_the_cameras_and_steep_cameras_do_not_mislead():
    tilt = World(rotation=turn_to_y(np.array([0.6, 0.0, 0.8])))
    ring = orbit(np.arange(0, 360, 45), 20.0, radius=2, fov_deg=40, height=8, width=8)
    turn = choose_turn(place_cameras(ring, tilt.inverse()).world_to_camera, "auto", where="x")
    np.testing.assert_allclose(turn.rotation, tilt.rotation, atol=1e-6)
    assert "this is up" in turn.said
    for elevation in (-80.0, -50.0, 50.0, 80.0):
        steep = orbit([0, 40, 80], elevation, radius=2, fov_deg=40, height=8, width=8).world_to_camera
        np.testing.assert_allclose(find_up(steep).direction, [0, 1, 0], atol=1e-5)
        for poses in (steep, steep[:1]):
            assert np.array_equal(choose_turn(poses, "auto", where="x").rotation, np.eye(3)), elevation
    above = orbit([0, 90, 180, 270], 90.0, radius=2, fov_deg=40, height=8, width=8).world_to_camera
    assert find_up(above) is None
    with pytest.raises(UserError, match="x: the cameras do not agree on what is up"):
        choose_turn(above, "cameras", where="x")


def test_a_camera_that_is_rolled_is_named():
    poses = np.asarray(orbit(np.arange(0, 360, 60), 10.0, radius=2, fov_deg=40, height=8, width=8).world_to_camera)
    names = [f"v{index}" for index in range(6)]
    assert note_upright(poses, names) == []
    for degrees in (90, 180):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        rolled = poses.copy()
        rolled[4, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ poses[4, :3]
        (note,) = note_upright(rolled, names)
        assert note.startswith(f"view v4: its camera is rolled by {degrees} degrees")


def test_the_check_says_what_stands_there(tmp_path):
    cameras = place_cameras(ball_dataset().cameras, World(0.01, np.array([100.0, 0, 0])).inverse())
    folder = write_recording(tmp_path / "in", cameras.world_to_camera)
    findings = inspect_folder(folder)
    assert "units around (100, " in findings.stand
    assert "cameras at 200; scaled by 0.01 and moved by (-100, 0, 0)" in findings.stand
    assert not findings.problems
    import_data(source=str(folder), out=str(tmp_path / "out"))
    assert "the source's coordinates are scaled by 0.01 around (100, 0, 0)" in inspect_folder(tmp_path / "out").stand


def test_cameras_of_one_room_are_framed_alike(tmp_path):
    world = World(0.01, np.array([100.0, 0, 0]))
    cameras = place_cameras(ball_dataset().cameras, world.inverse())
    folder = write_recording(tmp_path / "in", cameras.world_to_camera)
    import_data(source=str(folder), out=str(tmp_path / "first"))
    closer = place_cameras(ball_dataset().cameras, World(0.0123).inverse())  # other cameras, whose own fit would differ
    folder = write_recording(tmp_path / "other", closer.world_to_camera)
    import_data(source=str(folder), out=str(tmp_path / "second"), framing=str(tmp_path / "first"))
    first, second = (read_dataset(tmp_path / name).world for name in ("first", "second"))
    assert second.same_place(first)
    with pytest.raises(UserError, match="--up: found z beside --framing"):
        import_data(source=str(folder), out=str(tmp_path / "none"), framing=str(tmp_path / "first"), up="z")
    write_dataset(ball_dataset(), tmp_path / "old")
    with pytest.raises(UserError, match=r"--framing=.*old: found no framing in its dataset\.json, expected a dataset"):
        import_data(source=str(folder), out=str(tmp_path / "none"), framing=str(tmp_path / "old"))
