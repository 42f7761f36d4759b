import numpy as np
import pytest

from bench import atop
from dimo_jax.data.articulated.categories import make_shape
from dimo_jax.data.articulated.videos import film


def test_figures_tell_the_still_from_the_truth(monkeypatch):
    monkeypatch.setattr(atop, "lpips", lambda pred, truth: np.abs(pred - truth).mean(axis=(1, 2, 3)))
    truth = film(make_shape("oven", 1000), num_frames=3, side=32).frames
    still = np.repeat(truth[:, :1], 3, axis=1)
    same, worse = atop.judge(truth, truth), atop.judge(still, truth)
    assert same["moved"] == pytest.approx(1)
    assert worse["moved"] == 0
    assert same["lpips"] == 0 < worse["lpips"]
    assert worse["moving"] < worse["psnr"] < same["psnr"]


@pytest.mark.parametrize("seed", [1000, 1003])
def test_another_drawer_is_seen_and_is_not_the_part(seed):
    found = film(make_shape("drawer", seed), num_frames=2, side=64)
    other, own = atop.mask_other_drawer(seed, found) > 0, found.masks[:, 0] > 0
    assert other.sum() > 100
    assert not (other & own).any()
    assert found.frames[:, 0, ..., 3][other].mean() > 200
