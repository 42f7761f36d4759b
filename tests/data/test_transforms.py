"""Posed pictures of NeRF, instant-ngp and nerfstudio, against these programs' own formulae."""

import json

import numpy as np
import pytest
from PIL import Image
from support.recordings import draw_disc

from dimo_jax.apps import import_data
from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.native import read_dataset
from dimo_jax.data.formats.transforms import describe_transforms
from dimo_jax.data.inspection import inspect_folder
from dimo_jax.data.sources import detect, load, load_dataset

WIDTH, HEIGHT = 40, 32
TO_Z_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # our (x, y, z) is (x, -z, y) in a world with +Z up


def spherical_pose(theta, phi, radius):
    """NeRF's pose_spherical (load_blender.py), by its rules: rise by `radius`, tilt by phi, turn by theta; +Z up."""
    t, p = np.deg2rad([theta, phi])
    rise = np.eye(4)
    rise[2, 3] = radius
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(p), -np.sin(p)], [np.sin(p), np.cos(p)]]
    turn = np.eye(4)
    turn[[0, 0, 2, 2], [0, 2, 0, 2]] = [np.cos(t), -np.sin(t), np.sin(t), np.cos(t)]
    swap = np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    return swap @ turn @ tilt @ rise


def nerf_pixels(pose, points, focal, center):
    """Pixels by NeRF's get_rays, solved for them: direction = R ((i - cx) / fx, -(j - cy) / fy, -1) from the eye."""
    rays = (points - pose[:3, 3]) @ pose[:3, :3]
    assert (rays[:, 2] < 0).all()
    rays = rays / -rays[:, 2:]
    return np.stack([center[0] + focal[0] * rays[:, 0], center[1] - focal[1] * rays[:, 1]], -1)


def our_pixels(dataset, view, points):
    """Pixels of points of the file's world, through `dataset.world` and its cameras."""
    pose = np.asarray(dataset.cameras.world_to_camera[view], np.float64)
    seen = dataset.world.apply(points) @ pose[:3, :3].T + pose[:3, 3]
    assert (seen[:, 2] > 0).all()
    return seen[:, :2] / seen[:, 2:] * dataset.cameras.focal[view] + dataset.cameras.center[view]


def some_points():
    return np.random.default_rng(0).uniform(-0.4, 0.4, (40, 3)) + [0.1, 0.0, 0.2]


def ring(count=10, radius=4.0):
    return [spherical_pose(360 * index / count, -20 - 5 * (index % 3), radius) for index in range(count)]


def picture(*, alpha=True, width=WIDTH, height=HEIGHT):
    rgb, cover = draw_disc(0.5, size=max(width, height))
    layers = np.dstack([rgb, np.round(255 * cover).astype(np.uint8)]) if alpha else rgb
    return layers[:height, :width]


def write_file(folder, poses, *, name="transforms.json", stem="images/{:03d}.png", alpha=True, entries=(), **table):
    """A file with its pictures; `entries` are merged into the frames."""
    frames = []
    for index, pose in enumerate(poses):
        path = folder / stem.format(index)
        path = path if path.suffix else path.with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(alpha=alpha)).save(path)
        frames.append({"file_path": stem.format(index), "transform_matrix": np.asarray(pose).tolist()})
        frames[-1] |= entries[index] if index < len(entries) else {}
    (folder / name).write_text(json.dumps(table | {"frames": frames}))
    return folder


def write_single(folder, **others):
    """Two frames with a lens in pixels."""
    return write_file(folder, ring(2), **{"fl_x": 50.0, **others})


def test_nerfs_folders_project_as_nerf_does(tmp_path):
    poses = ring(10)
    folder = write_file(tmp_path, poses[:7], name="transforms_train.json", stem="./train/r_{}", camera_angle_x=0.69)
    write_file(tmp_path, poses[7:], name="transforms_test.json", stem="./test/r_{}", camera_angle_x=0.69)
    write_file(tmp_path, poses[:2], name="transforms_val.json", stem="./val/r_{}", camera_angle_x=0.69)
    dataset = load_dataset(folder)
    assert detect(folder) == "transforms"
    assert dataset.frames.shape == (1, 10, 1, HEIGHT, WIDTH, 4)
    assert (dataset.names, dataset.splits) == (("still",), ("train",))
    assert dataset.view_splits == ("train",) * 7 + ("test",) * 3
    assert dataset.view_names[0] == "train_r_0"
    assert dataset.view_names[-1] == "test_r_2"
    focal = 0.5 * WIDTH / np.tan(0.5 * 0.69)  # load_blender.py
    for view, pose in enumerate(poses):
        truth = nerf_pixels(pose, some_points(), (focal, focal), (WIDTH / 2, HEIGHT / 2))
        np.testing.assert_allclose(our_pixels(dataset, view, some_points()), truth, atol=1e-4)
        np.testing.assert_array_equal(dataset.frames[0, view, 0], picture())
    np.testing.assert_allclose(dataset.world.rotation @ [0, 0, 1], [0, 1, 0], atol=1e-12)


def test_what_is_up_in_the_file_is_up_in_the_picture(tmp_path):
    dataset = load({"path": str(write_single(tmp_path))})  # at the method's size and place
    low, high = (our_pixels(dataset, 0, np.array([[0, 0, z]]))[0] for z in (0.0, 0.3))
    assert high[1] < low[1] - 1
    assert dataset.world.apply([[0, 0, 1.0]])[0][1] > dataset.world.apply([[0, 0, 0.0]])[0][1]
    eyes = -np.einsum(
        "vji,vj->vi", dataset.cameras.world_to_camera[:, :3, :3], dataset.cameras.world_to_camera[:, :3, 3]
    )
    assert (eyes[:, 1] > 0).all()  # phi below zero is above the horizon


def test_lenses_in_pixels_of_a_file_or_of_a_frame(tmp_path):
    poses = ring(3)
    entries = [{}, {"fl_x": 70.0, "fl_y": 60.0, "cx": 17.5}, {"camera_angle_x": 0.8, "camera_angle_y": 0.5}]
    lens = {"fl_x": 100.0, "fl_y": 110.0, "cx": 42.0, "cy": 30.0, "w": 2 * WIDTH, "h": 2 * HEIGHT, "k1": 0.0}
    dataset = load_dataset(
        write_file(tmp_path, poses, entries=entries, camera_angle_x=9, camera_model="OPENCV", **lens)
    )
    angles = (0.5 * WIDTH / np.tan(0.4), 0.5 * HEIGHT / np.tan(0.25))
    # The pictures are half as large as what the lens is for.
    truth = [((50, 55), (21, 15)), ((35, 30), (8.75, 15)), (angles, (21, 15))]
    for view, (focal, center) in enumerate(truth):
        found = our_pixels(dataset, view, some_points())
        np.testing.assert_allclose(found, nerf_pixels(poses[view], some_points(), focal, center), atol=1e-4)


@pytest.mark.parametrize(
    ("turn", "said", "up"),
    [
        (np.eye(3), {}, "z"),
        (TO_Z_UP.T, {}, "y"),  # cameras that are level around +Y: not NeRF's world, as of Record3D
        (np.eye(3), {"up": [0, 0, 2]}, "z"),
        (TO_Z_UP.T, {"up": [0, 0, 1]}, "z"),  # what the file says is not doubted
        (np.eye(3), {"up": "-x"}, "-x"),
    ],
)
def test_up_is_what_the_file_says_or_z_unless_the_cameras_say_otherwise(tmp_path, turn, said, up):
    poses = np.stack(ring(6))
    poses[:, :3] = turn @ poses[:, :3]
    recording = describe_transforms(write_file(tmp_path, poses, fl_x=50.0, **said))
    assert recording.up == up
    assert bool(recording.notes) == (up == "y")


def test_every_eighth_picture_of_a_single_file_tests_or_what_its_lists_say(tmp_path):
    splits = describe_transforms(write_file(tmp_path / "a", ring(17), fl_x=50.0)).view_splits
    assert [index for index, split in enumerate(splits) if split == "test"] == [7, 15]
    lists = {"train_filenames": ["images/002.png"], "test_filenames": ["images/000.png"], "val_filenames": []}
    recording = describe_transforms(write_file(tmp_path / "b", ring(4), fl_x=50.0, **lists))
    assert dict(zip(recording.view_names, recording.view_splits)) == {"images_000": "test", "images_002": "train"}


def test_alpha_masks_and_opaque_pictures(tmp_path, caplog):
    opaque = write_single(tmp_path / "opaque", alpha=False)
    assert (load_dataset(opaque).frames[..., 3] == 255).all()
    assert "2 of 2 pictures have neither alpha nor mask_path" in describe_transforms(opaque).notes[0]
    entries = [{"mask_path": f"masks/{index}.png"} for index in range(2)]
    masked = write_single(tmp_path / "masked", alpha=False, entries=entries)
    (masked / "masks").mkdir()
    cover = picture()[..., 3]
    for index in range(2):
        Image.fromarray(cover).save(masked / "masks" / f"{index}.png")
    dataset = load_dataset(masked)
    np.testing.assert_array_equal(dataset.frames[0, 1, 0, ..., 3], cover)
    assert describe_transforms(masked).notes == ()


def test_it_is_imported_and_checked(tmp_path, capsys):
    folder = write_single(tmp_path / "fox", stem="{:03d}.jpg", alpha=False)
    import_data.run(source=str(folder), out=str(tmp_path / "out"), size=16)
    assert "a transforms.json" in capsys.readouterr().out
    dataset = read_dataset(tmp_path / "out")
    assert dataset.frames.shape == (1, 2, 1, 16, 20, 4)
    truth = nerf_pixels(ring(2)[1], some_points(), (25, 25), (10, 8))
    np.testing.assert_allclose(our_pixels(dataset, 1, some_points()), truth, atol=1e-3)
    findings = inspect_folder(folder)
    assert findings.problems == []
    assert sum("opaque everywhere" in note for note in findings.notes) == 2
    (folder / "001.jpg").write_bytes(b"none")
    assert len(inspect_folder(folder).problems) == 1


def shift(pose):
    return (np.asarray(pose) * [1, 1, 1.1, 1]).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(k1=0.1), "frames[0]: the lens is distorted, k1 is 0.1"),
        (dict(entries=[{}, {"p2": -1e-3}]), "frames[1]: the lens is distorted, p2 is -0.001"),
        (dict(camera_model="OPENCV_FISHEYE"), "camera_model is 'OPENCV_FISHEYE'"),
        (dict(is_fisheye=True), "is_fisheye is True"),
        (dict(fl_x=0), "fl_x is 0, expected 0.001 to 1e+09"),
        (dict(fl_x="50"), "fl_x is '50', expected int or float"),
        (dict(w=50, h=50), "w x h is 50x50, the picture 40x32"),
        (dict(up=[0, 1, 1]), "up is [0.0, 1.0, 1.0], expected an axis"),
        (dict(up="north"), "up is 'north'"),
        (dict(entries=[{"transform_matrix": shift(ring(1)[0])}]), "frames[0]: transform_matrix is not rigid"),
        (dict(entries=[{"transform_matrix": [[1, 0], [0, 1]]}]), "transform_matrix has shape [2, 2]"),
        (dict(entries=[{"file_path": "../elsewhere.png"}]), "leaves the folder"),
        (dict(entries=[{"file_path": "images/9"}]), "file_path is 'images/9', and"),
        (dict(entries=[{"file_path": "images/001"}]), "images/001.png: is the picture of two frames"),
        (dict(entries=[{"mask_path": "images/001.png"}]), "frames[1]: no mask_path"),
        (dict(entries=[{"mask_path": "m.png"}] * 2), "mask_path is 'm.png', and"),
        (dict(test_filenames=["images/000.png", "images/001.png"]), "0 of 2 frames train"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, change, message):
    folder = write_single(tmp_path, **change)
    with pytest.raises(UserError) as error:
        load_dataset(folder)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_pictures_have_one_size_and_some_lens(tmp_path):
    folder = write_single(tmp_path / "sizes")
    Image.fromarray(picture(width=20)).save(folder / "images/001.png")
    with pytest.raises(UserError, match=r"001.png: picture of 20x32, expected 40x32 as .*000.png"):
        load_dataset(folder)
    with pytest.raises(UserError, match="found neither fl_x nor camera_angle_x"):
        load_dataset(write_file(tmp_path / "lens", ring(1)))
    for text, message in (
        ("[]", "expected an object"),
        ('{"frames": []}', "0 frames"),
        ('{"frames": [3]}', "found int"),
    ):
        (folder / "transforms.json").write_text(text)
        with pytest.raises(UserError, match=message):
            load_dataset(folder)


def test_a_written_orbit_is_read_back(tmp_path):
    ours = orbit((0, 90, 200), (10, 20, 60), radius=2.0, fov_deg=40, height=HEIGHT, width=WIDTH)
    eye = np.eye(4)
    eye[:3, :3] = TO_Z_UP
    poses = eye @ np.linalg.inv(np.asarray(ours.world_to_camera, np.float64)) @ np.diag([1.0, -1, -1, 1])
    dataset = load_dataset(write_file(tmp_path, poses, fl_x=float(np.asarray(ours.focal).ravel()[0])))
    np.testing.assert_allclose(dataset.cameras.world_to_camera, ours.world_to_camera, atol=1e-6)
