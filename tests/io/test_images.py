import numpy as np
import pytest
from PIL import Image

from dimo_jax.io.images import grid, side_by_side, to_uint8, upscale, write_png


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_to_uint8_rounds_clips_and_refuses_nan():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 3.0, 0.1 / 255, 0.9 / 255])
    np.testing.assert_array_equal(to_uint8(values), [0, 0, 128, 255, 255, 0, 1])
    with pytest.raises(ValueError, match="1 pixel values are NaN"):
        to_uint8(np.array([np.nan, 1]))


def test_upscale_by_whole_factors():
    frames = random_images(2, 3, 10, 6, 3)
    result = upscale(frames, min_height=25, method="nearest")
    np.testing.assert_array_equal(result, frames.repeat(3, axis=2).repeat(3, axis=3))
    assert upscale(frames, min_height=20).shape == (2, 3, 20, 12, 3)
    np.testing.assert_array_equal(upscale(frames, min_height=10), frames)
    with pytest.raises(ValueError, match="'bilinear'"):
        upscale(frames, method="bilinear")


def test_grid_puts_every_tile_in_its_place():
    images = random_images(2, 3, 8, 10, 3)
    result = grid(images, padding=2, background=(1, 2, 3))
    assert result.shape == (2 * 10 + 2, 3 * 12 + 2, 3)
    for r in range(2):
        for c in range(3):
            np.testing.assert_array_equal(result[2 + 10 * r :][:8, 2 + 12 * c :][:, :10], images[r, c])
    assert (result[0] == (1, 2, 3)).all()


def test_grid_of_videos_has_time_in_front():
    images = random_images(2, 2, 5, 32, 48, 3)
    labels = ["é", "ω"]
    video = grid(images, row_labels=labels, column_labels=labels)
    for t in range(5):
        np.testing.assert_array_equal(video[t], grid(images[:, :, t], row_labels=labels, column_labels=labels))


def test_labels_are_drawn_in_their_bands_and_nowhere_else():
    images = np.full((1, 2, 40, 60, 3), 77, np.uint8)
    result = grid(images, column_labels=["walk", ""], padding=4, text_size=14)
    top = result.shape[0] - 44
    assert top == 4 + 14 + 8
    assert (result[:top, 4:64] < 128).any()
    assert (result[:top, 68:] == 255).all()
    assert (result[top:][:40, 4:64] == 77).all()
    left = grid(images, row_labels=["walk"], padding=4, text_size=14)
    assert (left[:, :26] < 128).any()


def test_long_label_stays_within_its_tile():
    images = np.full((1, 2, 40, 60, 3), 255, np.uint8)
    result = grid(images, column_labels=["a very long name of a motion", ""], padding=4)
    assert (result[:, 64:] == 255).all()
    assert (result[:, 4:64] < 128).any()


def test_wrong_number_of_labels():
    with pytest.raises(ValueError, match="3 column_labels for 2 columns"):
        grid(random_images(1, 2, 4, 4, 3), column_labels=["a", "b", "c"])


def test_side_by_side():
    truth, prediction = random_images(4, 30, 30, 3), 255 - random_images(4, 30, 30, 3)
    pair = side_by_side(truth, prediction)
    np.testing.assert_array_equal(pair[:, -34:-4, 4:34], truth)
    np.testing.assert_array_equal(pair[:, -34:-4, 38:68], prediction)
    three = side_by_side(truth, truth, difference_gain=4)
    np.testing.assert_array_equal(three[:, -34:-4, 72:102], np.full_like(truth, 255))
    with pytest.raises(ValueError, match="expected the same"):
        side_by_side(truth, prediction[:, :20])


def test_difference_is_amplified():
    truth = np.full((8, 8, 3), 100, np.uint8)
    three = side_by_side(truth, truth + np.uint8(10), labels=None, difference_gain=4)
    assert (three[4:12, -12:-4] == 255 - 40).all()


def test_write_png_keeps_alpha(tmp_path):
    image = random_images(5, 6, 4)
    np.testing.assert_array_equal(np.asarray(Image.open(write_png(image, tmp_path / "deep" / "a.png"))), image)
