"""Pictures are cut to the figure before they are laid side by side."""

import numpy as np
import pytest

from dimo_jax.views.gallery import crop, find_figure


@pytest.mark.parametrize("shape", [(32, 32), (32, 48), (48, 32)])
@pytest.mark.parametrize("seed", range(5))
def test_the_box_holds_the_figure_and_stays_in_the_picture(shape, seed):
    rng = np.random.default_rng(seed)
    alpha = np.zeros((3, *shape))
    for frame in alpha:
        top, left = rng.integers(0, shape[0] - 6), rng.integers(0, shape[1] - 6)
        frame[top : top + 6, left : left + 4] = 1
    top, left, side = find_figure(alpha)
    wide = round(side * shape[1] / shape[0])
    assert 0 <= top <= shape[0] - side
    assert 0 <= left <= shape[1] - wide
    assert alpha[:, top : top + side, left : left + wide].sum() == alpha.sum()


def test_a_small_figure_is_shown_large():
    alpha = np.zeros((2, 64, 64))
    alpha[:, 40:48, 10:14] = 1
    box = find_figure(alpha)
    assert box[2] == 9
    frames = np.repeat(np.uint8(255 * alpha)[..., None], 3, axis=-1)
    cut = crop(frames, box)
    assert cut.shape == frames.shape
    assert (cut > 127).mean() == pytest.approx(8 * 4 / 9**2, abs=0.02)


def test_empty_pictures_are_left_whole():
    assert find_figure(np.zeros((2, 24, 32))) == (0, 0, 24)
    frames = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop(frames, (0, 0, 24)), frames)
