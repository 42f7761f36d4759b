import threading

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io import video
from dimo_jax.io.video import write_gif, write_png_sequence, write_video, write_videos


def make_frames(num: int, height: int, width: int) -> np.ndarray:
    """Smooth ramps, and one white column that moves: what a codec keeps well, and different in every frame."""
    y, x = np.mgrid[:height, :width]
    frames = np.stack([y / height * 255, x / width * 255, np.full_like(x, 64)], axis=-1)
    frames = np.repeat(frames[None].round().astype(np.uint8), num, axis=0)
    for index in range(num):
        frames[index, :, 4 * index : 4 * index + 8] = 255
    return frames


def test_video_reads_back(tmp_path):
    frames = make_frames(7, 48, 64)
    path = write_video(frames, tmp_path / "näme.mp4", frame_rate=7.5)
    back = iio.imread(path)
    assert back.shape == frames.shape
    error = np.abs(back.astype(int) - frames)
    assert error.mean() < 3
    info = next(imageio_ffmpeg.read_frames(str(path)))
    assert info["fps"] == 7.5
    assert info["codec"] == "h264"
    assert info["pix_fmt"].startswith("yuv420p")
    assert "bt709" in info["pix_fmt"]


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 140, 200)])
def test_video_keeps_flat_colors(tmp_path, color):
    frames = np.broadcast_to(np.array(color, np.uint8), (3, 16, 16, 3))
    back = iio.imread(write_video(frames, tmp_path / "a.mp4", frame_rate=10))
    assert np.abs(back.astype(int) - color).max() <= 4


def test_odd_sizes_repeat_the_edge(tmp_path):
    frames = np.zeros((2, 31, 17, 3), np.uint8)
    frames[:, -1], frames[:, :, -1] = 200, 200
    back = iio.imread(write_video(frames, tmp_path / "a.mp4", frame_rate=10))
    assert back.shape == (2, 32, 18, 3)
    assert back[:, -1].min() > 180
    assert back[:, :, -1].min() > 180


def test_index_comes_before_the_data(tmp_path):
    """A browser starts to play before the whole file is there only if `moov` stands in front of `mdat`."""
    data = write_video(make_frames(3, 16, 16), tmp_path / "a.mp4", frame_rate=10).read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_single_frame_video(tmp_path):
    assert iio.imread(write_video(make_frames(1, 32, 32), tmp_path / "a.mp4", frame_rate=10)).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("write", [write_video, write_gif])
@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), TypeError),
        (np.zeros((8, 8, 3), np.uint8), ValueError),
        (np.zeros((2, 8, 8, 4), np.uint8), ValueError),
        (np.zeros((0, 8, 8, 3), np.uint8), ValueError),
    ],
)
def test_wrong_frames_leave_no_file(tmp_path, write, frames, error):
    with pytest.raises(error, match="frames"):
        write(frames, tmp_path / "a.mp4", frame_rate=10)
    assert not list(tmp_path.iterdir())


def test_failure_in_the_encoder_leaves_the_old_file(tmp_path, monkeypatch):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\ncat > /dev/null\necho 'no room on the disk' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(broken))
    path = tmp_path / "out" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="no room on the disk"):
        write_video(make_frames(3, 16, 16), path, frame_rate=10)
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_a_video_is_written_while_the_next_is_made(tmp_path, monkeypatch):
    begun, made = threading.Event(), []

    def encode(frames, path, **options):
        begun.set()
        path.write_bytes(bytes([len(frames)]))

    monkeypatch.setattr(video, "_encode", encode)

    def make():
        for number in range(1, 4):
            made.append(number > 1 and begun.wait(timeout=60))  # the one before is being written
            begun.clear()
            yield make_frames(number, 8, 64), tmp_path / f"{number}.mp4"

    paths = write_videos(make(), frame_rate=12)
    assert made == [False, True, True]
    assert [path.read_bytes() for path in paths] == [b"\1", b"\2", b"\3"]


def test_a_video_that_fails_ends_the_writing_of_others(tmp_path, monkeypatch):
    def encode(frames, path, **options):
        raise OSError(f"{path}: no room")

    monkeypatch.setattr(video, "_encode", encode)
    made = []

    def make():
        for number in range(4):
            made.append(number)
            yield make_frames(2, 8, 64), tmp_path / f"{number}.mp4"

    with pytest.raises(OSError, match="no room"):
        write_videos(make(), frame_rate=12)
    assert made == [0, 1]
    assert list(tmp_path.iterdir()) == []


def test_gif_reads_back_with_its_length(tmp_path):
    frames = make_frames(9, 24, 40)
    image = Image.open(write_gif(frames, tmp_path / "a.gif", frame_rate=7))
    assert (image.n_frames, image.size, image.info["loop"]) == (9, (40, 24), 0)
    durations, errors = [], []
    for index in range(9):
        image.seek(index)
        durations.append(image.info["duration"])
        errors.append(np.abs(np.asarray(image.convert("RGB")).astype(int) - frames[index]).mean())
    assert sum(durations) == round(9 / 7 * 100) * 10
    assert max(errors) < 12


def test_png_sequence_is_exact_and_replaces_the_longer_one(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 4), dtype=np.uint8)
    write_png_sequence(frames, tmp_path / "seq")
    files = write_png_sequence(frames[:3], tmp_path / "seq")
    assert sorted((tmp_path / "seq").iterdir()) == files
    assert [f.name for f in files] == ["000000.png", "000001.png", "000002.png"]
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(f)) for f in files]), frames[:3])
    assert [p.name for p in tmp_path.iterdir()] == ["seq"]


def test_png_sequence_never_replaces_a_folder_of_others(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.txt"):
        write_png_sequence(make_frames(2, 8, 8), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
