"""The benchmark of playback: a track on its spline does not tremble, one beside it does."""

import numpy as np
import pytest

from bench import playback


def test_wobble_is_the_distance_from_the_spline_through_the_training_frames():
    frames = np.arange(0, 41) / 10
    smooth = np.stack([frames**3 - frames, 2 * frames, 0 * frames], axis=-1)[:, None]
    assert playback._leave_spline(smooth, 10) == pytest.approx(0, abs=1e-9)
    wave = 0.1 * np.sin(2 * np.pi * frames)  # 0 at the training frames
    trembling = smooth + wave[:, None, None] * np.asarray([1.0, 0, 0])
    assert playback._leave_spline(trembling, 10) == pytest.approx(np.abs(wave).mean(), rel=1e-6)
