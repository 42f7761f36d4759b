"""The sequence, the rays and the loss of AnimaX, without a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.diffusion import flow
from dimo_jax.systems.animax import loss, outputs, rays, sequence


def test_a_sequence_holds_condition_and_video_of_both_halves_in_the_papers_order():
    """[c_rgb, x_rgb, c_pose, x_pose], Eq. 3, with f = 2."""
    condition = np.array([0.0, 10]).reshape(1, 1, 2, 1, 1, 1)
    video = np.array([[1.0, 2, 3], [11, 12, 13]]).reshape(1, 1, 2, 3, 1, 1, 1)
    whole = sequence.join(condition, video)
    np.testing.assert_array_equal(whole.ravel(), [0, 1, 2, 3, 10, 11, 12, 13])
    again = sequence.split(whole)
    np.testing.assert_array_equal(again[0], condition)
    np.testing.assert_array_equal(again[1], video)
    assert sequence.shared_positions(8) == (0, 1, 2, 3, 0, 1, 2, 3)
    np.testing.assert_array_equal(sequence.modalities(8), [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(sequence.frame_timesteps(jnp.array([7.0]), 8), [[0, 7, 7, 7, 0, 7, 7, 7]])
    for frames in (7, 2):
        with pytest.raises(ValueError, match=f"sequence of {frames} frames"):
            sequence.split(np.zeros((1, 1, frames, 1, 1, 1)))


def test_rays_leave_the_eye_and_meet_their_pixels():
    cameras = orbit([0.0, 110.0], [0.0, 20.0], radius=3.0, fov_deg=40.0, height=48, width=80)
    found = np.asarray(rays.plucker_rays(cameras, 6, 10), np.float64)
    direction, moment = found[..., :3], found[..., 3:]
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.sum(direction * moment, axis=-1), 0, atol=1e-5)
    for view in range(2):
        pose = np.asarray(cameras.world_to_camera[view], np.float64)
        eye = -pose[:3, :3].T @ pose[:3, 3]
        np.testing.assert_allclose(moment[view], np.cross(eye, direction[view]), atol=1e-5)
        seen = (eye + 2.5 * direction[view]) @ pose[:3, :3].T + pose[:3, 3]
        assert (seen[..., 2] > 0).all()
        pixels = seen[..., :2] / seen[..., 2:] * cameras.focal[view] + cameras.center[view]
        columns, rows = np.meshgrid(np.arange(4, 80, 8), np.arange(4, 48, 8))
        np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=-1), atol=1e-3)


def test_the_condition_is_left_out_whole_for_a_fifth_of_the_samples():
    kept = loss.drop_condition(jax.random.key(0), jnp.ones((2000, 2, 2, 3)))
    rows = np.asarray(kept.reshape(2000, -1))
    assert set(rows.sum(axis=1)) == {0.0, 12.0}
    assert abs((rows[:, 0] == 0).mean() - 0.2) < 0.03
    assert (loss.drop_condition(jax.random.key(0), kept, rate=0.0) == kept).all()


def test_the_loss_sees_noisy_frames_alone():
    rng = np.random.default_rng(0)
    condition, target = rng.normal(size=(1, 1, 2, 2, 2, 3)), rng.normal(size=(1, 1, 2, 3, 2, 2, 3))
    predicted = sequence.join(condition, target)

    def error(predicted):
        return jnp.mean((outputs.read_velocity(predicted, predicted, jnp.ones(1), "velocity") - target) ** 2)

    assert error(predicted) == 0
    slope = np.asarray(jax.grad(error)(predicted + 1.0))
    assert (slope[:, :, [0, 4]] == 0).all()
    assert (np.delete(slope, [0, 4], axis=2) > 0).all()
    assert error(sequence.join(condition + 9, target + 2)) == pytest.approx(4, rel=1e-5)


def test_a_change_from_the_still_is_read_as_the_velocity_that_leads_to_it():
    """x_s = (1 - s) x + s noise: whoever predicts x - still exactly has the velocity noise - x."""
    rng = np.random.default_rng(0)
    condition, video, noise = (
        rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 2, 2, 2, 4), *[(2, 3, 2, 3, 2, 2, 4)] * 2)
    )
    levels = np.array([0.3, 0.8], np.float32)
    noisy = flow.mix(video, noise, levels)
    latents = sequence.join(jnp.asarray(condition), noisy)
    change = sequence.join(jnp.asarray(condition), video - condition[:, :, :, None])
    found = outputs.read_velocity(change, latents, levels, "change")
    np.testing.assert_allclose(found, noise - video, atol=1e-4)
    same = sequence.join(jnp.asarray(condition), noise - video)
    np.testing.assert_array_equal(outputs.read_velocity(same, latents, levels, "velocity"), noise - video)
    clean = outputs.read_velocity(change, latents, np.zeros(2, np.float32), "change")
    assert np.isfinite(clean).all()
