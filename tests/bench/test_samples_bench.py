"""The benchmark of drawn motions: what stands for the key points in motions that training has not seen."""

import types

import numpy as np

from bench import samples


def test_true_points_nearest_to_the_key_points_stand_for_them():
    rng = np.random.default_rng(0)
    surface = rng.normal(size=(4, 3, 50, 3)).astype(np.float32)
    chosen = [7, 7, 31]
    key_points = surface[1, :, chosen].swapaxes(0, 1) + 1e-3  # [T,K,3] of the first motion that trains
    player = types.SimpleNamespace(
        trace=lambda codes, times: key_points[None],
        params=types.SimpleNamespace(latents=types.SimpleNamespace(mu=np.zeros((4, 2)))),
    )
    model = types.SimpleNamespace(player=player, trained_motions=np.array([1, 2]), num_frames=3)
    splits = np.array(["test", "train", "train", "test"])
    data = types.SimpleNamespace(surface=surface, splits=splits, num_motions=4)
    np.testing.assert_array_equal(samples.find_held_out(model, data), surface[[0, 3]][:, :, chosen])
    assert samples.find_held_out(model, types.SimpleNamespace(**vars(data) | {"surface": None})) is None
    everything = np.array(["train"] * 4)
    assert samples.find_held_out(model, types.SimpleNamespace(**vars(data) | {"splits": everything})) is None
