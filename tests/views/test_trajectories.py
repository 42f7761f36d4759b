import numpy as np
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.views.trajectories import (
    draw_trajectories,
    draw_trajectory_video,
    project_points,
    read_trajectories,
    write_trajectories,
)


def make_camera(size: int = 64) -> Camera:
    """Looks along +z from z = -2; y points down, so the identity rotation is OpenCV's."""
    pose = np.eye(4, dtype=np.float32)
    pose[2, 3] = 2
    return Camera(pose, np.float32(size), np.full(2, size / 2, np.float32), size, size)


def white(size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), 255, np.uint8)


def line(*ends: tuple[float, float, float], num: int = 9) -> np.ndarray:
    """Straight paths [T,1,3] from the first end to the second."""
    return np.linspace(ends[0], ends[1], num, dtype=np.float32)[:, None]


def darkness(image: np.ndarray) -> np.ndarray:
    return 255 - image.min(axis=-1).astype(int)


def test_projection_matches_the_pinhole_formula():
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3], pose[:3, 3] = q, [0.1, -0.2, 3]
    camera = Camera(pose, np.array([50, 70], np.float32), np.array([31, 20], np.float32), 48, 64)
    points = rng.uniform(-0.5, 0.5, (4, 5, 3)).astype(np.float32)
    pixels, depth = project_points(points, camera)
    for index in np.ndindex(4, 5):
        x, y, z = q @ points[index] + [0.1, -0.2, 3]
        np.testing.assert_allclose(pixels[index], [50 * x / z + 31, 70 * y / z + 20], rtol=1e-4)
        np.testing.assert_allclose(depth[index], z, rtol=1e-5)


def test_path_lies_where_the_points_project():
    image = draw_trajectories(line((-0.6, 0.25, 0), (0.6, 0.25, 0)), make_camera(), white())
    dark = darkness(image) > 30
    rows, columns = np.nonzero(dark)
    # y = 0.25 projects to row 40, x = +-0.6 to columns 12.8 and 51.2; the dot at the end reaches 2.2 pixels farther.
    assert 37 <= rows.min() <= 39
    assert 41 <= rows.max() <= 43
    assert 48 < columns.max() <= 54
    assert (darkness(image)[39:41, 14:51].max(axis=0) > 5).all(), "the line has no gap"


def test_path_fades_with_age_and_ends_in_a_dot():
    dark = darkness(draw_trajectories(line((-0.6, 0, 0), (0.6, 0, 0)), make_camera(), white(), color_by="length"))
    along = dark[31:33].max(axis=0)
    assert along[16] < along[32] < along[46]
    assert (dark[:, 51] > 60).sum() > (dark[:, 32] > 60).sum()


def test_background_scales_the_drawing():
    path = line((-0.6, 0.25, 0), (0.6, 0.25, 0))
    dark = darkness(draw_trajectories(path, make_camera(64), white(256))) > 30
    assert 155 <= np.nonzero(dark)[0].mean() <= 165


@pytest.mark.parametrize("color_by", ["key_point", "time", "length"])
def test_color_schemes_differ_between_points_or_times(color_by):
    paths = np.concatenate([line((-0.6, -0.4, 0), (0.6, -0.4, 0)), line((-0.1, 0.4, 0), (0.1, 0.4, 0))], axis=1)
    image = draw_trajectories(paths, make_camera(128), white(128), color_by=color_by).astype(int)
    start, end, other = image[38, 38], image[38, 102], image[90, 70]
    assert (np.abs(start - 255).sum(), np.abs(end - 255).sum(), np.abs(other - 255).sum()) > (0, 0, 0)
    if color_by == "time":
        assert np.abs(end - other).sum() < 40
    else:
        assert np.abs(end - other).sum() > 100


def test_points_behind_the_camera_are_not_drawn():
    behind = line((-0.1, 0, -3), (0.1, 0, -3))
    np.testing.assert_array_equal(draw_trajectories(behind, make_camera(), white()), white())
    through = line((0.1, 0, -3), (0.1, 0, 3))
    assert (draw_trajectories(through, make_camera(), white()) != 255).any()


def test_a_dark_ground_stays_dark():
    ground = np.array([0.1, 0.0, 0.2])
    picture = np.broadcast_to(np.round(255 * ground), (64, 64, 3)).astype(np.uint8)
    image = draw_trajectories(line((-0.6, 0, 0), (0.6, 0, 0)), make_camera(64), picture, dim_to=ground)
    np.testing.assert_allclose(image[0, 0], picture[0, 0], atol=1)
    assert (image != picture).any()


def test_tail_and_dim():
    path = line((-0.6, 0, 0), (0.6, 0, 0))
    black = np.zeros((64, 64, 3), np.uint8)
    image = draw_trajectories(path, make_camera(), black, num_tail=3, dim=0.2)
    assert (image[:, :30] == 51).all()
    assert (image[:, 45:] != 51).any()


def test_single_time_and_single_point():
    image = draw_trajectories(np.zeros((1, 1, 3)), make_camera(), white())
    assert darkness(image)[32, 32] > 60
    assert (darkness(image) > 0).sum() < 60


@pytest.mark.parametrize("bad", [np.full((2, 3, 3), np.nan), np.zeros((0, 3, 3)), np.zeros((2, 0, 3))])
def test_bad_trajectories(bad):
    with pytest.raises(ValueError, match="empty or not finite"):
        draw_trajectories(bad, make_camera(), white())


def test_unknown_color_scheme():
    with pytest.raises(ValueError, match="'rainbow'"):
        draw_trajectories(np.zeros((2, 3, 3)), make_camera(), white(), color_by="rainbow")


def test_video_grows_the_paths():
    path = line((-0.6, 0, 0), (0.6, 0, 0), num=4)
    video = draw_trajectory_video(path, make_camera(), np.stack([white()] * 4))
    assert video.shape == (4, 64, 64, 3)
    np.testing.assert_array_equal(video[3], draw_trajectories(path, make_camera(), white()))
    assert (np.diff([(darkness(frame) > 0).sum() for frame in video]) > 0).all()


def test_file_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    data = {
        "trajectories": rng.normal(size=(2, 5, 3, 3)).astype(np.float32),
        "times": np.linspace(0, 1, 5, dtype=np.float32),
        "positions": rng.normal(size=(3, 3)).astype(np.float32),
        "radii": np.array([1, 2, 3], np.float32),
    }
    path = write_trajectories(path=tmp_path / "a.npz", names=["läuft", "跳"], **data)
    back = read_trajectories(path)
    assert back.keys() == {*data, "names", "version"}
    assert back["names"].tolist() == ["läuft", "跳"]
    for name, values in data.items():
        np.testing.assert_array_equal(back[name], values)
    with pytest.raises(AssertionError):
        write_trajectories(path=tmp_path / "b.npz", names=["a", "b"], **{**data, "radii": np.ones(4)})
    with pytest.raises(ValueError, match="1 names for 2 motions"):
        write_trajectories(path=tmp_path / "b.npz", names=["a"], **data)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_files_that_are_not_trajectories(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", version=np.array([{}], dtype=object))
    for name in ("text.npz", "empty.npz", "cut.npz", "other.npz", "pickled.npz", "gone.npz"):
        with pytest.raises(UserError, match=name):
            read_trajectories(tmp_path / name)


def test_fields_of_other_shapes_are_refused(tmp_path):
    sound = {
        "version": np.int32(1), "trajectories": np.zeros((2, 4, 3, 3), np.float32), "names": np.array(["a", "b"]),
        "times": np.zeros(4, np.float32), "positions": np.zeros((3, 3), np.float32), "radii": np.ones(3, np.float32),
    }  # fmt: skip
    path = tmp_path / "a.npz"
    np.savez(path, **sound)
    assert read_trajectories(path).keys() == sound.keys()
    for name, value, says in [
        ("version", np.ones((2, 3)), "found version"),
        ("version", np.array("1"), "found version 1, expected"),
        ("trajectories", np.zeros((2, 4)), "trajectories is float64"),
        ("times", np.zeros(3), r"times is float64 \[3\], expected \[4\]"),
        ("names", np.zeros(2), "names is float64"),
    ]:
        np.savez(path, **sound | {name: value})
        with pytest.raises(UserError, match=says):
            read_trajectories(path)
    np.savez(path, **{name: value for name, value in sound.items() if name != "radii"})
    with pytest.raises(UserError, match="radii is missing"):
        read_trajectories(path)
