"""Points that follow others."""

import numpy as np
from scipy.spatial.transform import Rotation

from dimo_jax.rigs.following import fit_following


def test_they_keep_their_place_however_all_turn():
    rng = np.random.default_rng(0)
    rest, marks = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    turns = Rotation.random(40, random_state=0).as_matrix()
    shifts = rng.normal(size=(40, 1, 3))
    tracks, targets = (np.einsum("fab,kb->fka", turns, points) + shifts for points in (rest, marks))
    poses = np.broadcast_to(turns[:, None], (40, 5, 3, 3))
    following = fit_following(tracks[:30], poses[:30], targets[:30], size=2.0, ridge=1e-8)
    np.testing.assert_allclose(following.place(tracks[30:], poses[30:]), targets[30:], atol=1e-3)
    turn, shift = Rotation.from_rotvec([0.3, 1.0, -2.0]).as_matrix(), np.array([5.0, -7.0, 11.0])
    moved = following.place(tracks @ turn.T + shift, turn @ poses)
    np.testing.assert_allclose(moved, following.place(tracks, poses) @ turn.T + shift, atol=1e-9)
    weak = fit_following(tracks, poses, targets, size=2.0, ridge=10.0)
    assert np.abs(weak.weights).max() < np.abs(following.weights).max()
