"""Pictures and videos are read as they are to be seen: turned as their metadata says, with square pixels."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import ExifTags, Image
from support.recordings import draw_disc, write_cameras, write_video

from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.assembly import assemble
from dimo_jax.data.formats.camera_file import describe_videos
from dimo_jax.data.formats.consistent4d import read_videos
from dimo_jax.data.formats.native import read_dataset, write_dataset
from dimo_jax.io.clips import open_clip
from dimo_jax.io.matte import Matte
from dimo_jax.io.pictures import picture_size, read_image

# What a sensor stores of an upright picture, by EXIF's orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def upright(width=24, height=16):
    """A picture of which every corner differs: [H,W,3] uint8."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[: height // 2, : width // 2] = (200, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 160, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 180)
    return picture


def save_turned(picture, path, orientation, **options):
    """Writes a picture as a camera does that was held in another way."""
    image, exif = Image.fromarray(picture), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turn = STORED[orientation]
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if turn is None else image.transpose(turn)).save(path, exif=exif, **options)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_picture_is_turned_as_its_file_says(tmp_path, suffix, orientation):
    path = tmp_path / f"0.{suffix}"
    exact = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    save_turned(upright(), path, orientation, **exact)
    assert picture_size(path) == (24, 16)
    found = read_image(path, (24, 16))
    assert np.abs(found[..., :3].astype(int) - upright()).mean() < 3
    with pytest.raises(UserError, match=rf"0\.{suffix}: image of .*, expected 16x24"):
        read_image(path, (16, 24))


def test_a_picture_whose_metadata_cannot_be_read_is_shown_as_it_is(tmp_path):
    for number, exif in enumerate((b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12", b"")):
        Image.fromarray(upright()).save(tmp_path / f"{number}.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / f"{number}.png", (24, 16))[..., :3], upright())


def test_masks_of_a_turned_picture_are_turned_or_refused(tmp_path):
    folder = write_cameras(tmp_path / "set", [{"name": "front", "azimuth_deg": 0, "fov_deg": 40}], frame_rate=8)
    mask = np.zeros((16, 24), np.uint8)
    mask[:4, :10] = 255
    for index in range(2):
        save_turned(upright(), folder / f"walk/front/{index}.jpg", 6)
        save_turned(mask, folder / f"walk/front_mask/{index}.png", 6)
    frames = assemble(describe_videos(folder)).frames
    assert frames.shape[3:5] == (16, 24)
    np.testing.assert_array_equal(frames[0, 0, 1, ..., 3], mask)
    for index in range(2):  # as a tool writes it that does not know of orientations
        Image.fromarray(np.rot90(mask)).save(folder / f"walk/front_mask/{index}.png")
    with pytest.raises(UserError, match=r"front_mask: masks of 16x24, expected 24x16 as .*front"):
        assemble(describe_videos(folder))


def test_native_folders_and_evaluation_turn_pictures_too(tmp_path):
    folder = write_cameras(tmp_path / "set", [{"name": "front", "azimuth_deg": 0, "fov_deg": 40}], frame_rate=8)
    save_turned(upright(), folder / "walk/front/0.png", 1)
    dataset = assemble(describe_videos(folder), matte=Matte(how="none"))
    write_dataset(dataset, tmp_path / "native")
    path = tmp_path / "native/walk/front/00000.png"
    save_turned(upright(), path, 8)
    np.testing.assert_array_equal(read_dataset(tmp_path / "native").frames, dataset.frames)
    np.testing.assert_allclose(read_videos(((path,),))[0][0, 0], upright() / 255, atol=1e-6)


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


@pytest.mark.parametrize(("aspect", "size"), [("2/1", (48, 16)), ("1/2", (24, 32)), ("1/1", (24, 16))])
def test_pixels_of_a_video_that_are_not_square_are_made_so(tmp_path, aspect, size):
    write_video(tmp_path / "stored.mp4", np.stack([upright()] * 3))
    stored = tmp_path / "stored.mp4"
    ffmpeg("-i", stored, "-vf", f"setsar={aspect}", "-c:v", "libx264", "-qp", "0", tmp_path / "a.mp4")
    clip = open_clip(tmp_path / "a.mp4")
    assert (clip.width, clip.height) == size
    frames = np.stack(list(clip.frames()))
    assert frames.shape == (3, size[1], size[0], 4)
    corners = [frames[1, y, x, :3].astype(int) for y, x in ((2, 2), (2, -3), (-3, 2))]
    assert np.abs(np.subtract(corners, [(200, 0, 0), (0, 160, 0), (0, 0, 180)])).max() < 12


def test_a_turned_video_is_upright_and_its_pixels_square(tmp_path):
    write_video(tmp_path / "stored.mp4", np.stack([np.rot90(upright(), -1)] * 3))
    ffmpeg("-i", tmp_path / "stored.mp4", "-vf", "setsar=1/2", "-c:v", "libx264", "-qp", "0", tmp_path / "sar.mp4")
    ffmpeg("-display_rotation", 90, "-i", tmp_path / "sar.mp4", "-c", "copy", tmp_path / "a.mp4")
    clip = open_clip(tmp_path / "a.mp4")
    assert (clip.width, clip.height) == (48, 16)  # upright 24x16, of pixels twice as wide as high
    frame = next(clip.frames())
    corners = [frame[y, x, :3].astype(int) for y, x in ((2, 2), (2, -3), (-3, 2))]
    assert np.abs(np.subtract(corners, [(200, 0, 0), (0, 160, 0), (0, 0, 180)])).max() < 12


def test_an_animation_among_numbered_pictures_is_not_cut_to_its_first(tmp_path):
    images = [Image.fromarray(draw_disc(time)[0]) for time in (0, 1)]
    images[0].save(tmp_path / "0.webp", save_all=True, append_images=images[1:])
    with pytest.raises(UserError, match=r"0\.webp: an animation of 2 pictures, expected a single one"):
        read_image(tmp_path / "0.webp")
