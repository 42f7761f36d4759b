"""Samplers of rectified flow against exact solutions, and diffusers where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.diffusion.flow import draw_levels, guide, mix, shift_levels, target_velocity
from dimo_jax.diffusion.samplers import plan_levels, sample_euler, sample_unipc

SPREAD = 0.5


def exact_velocity(x, timestep):
    """The velocity of data ~ N(0, SPREAD^2): noise and data expected at x."""
    level = timestep / 1000
    variance = (1 - level) ** 2 * SPREAD**2 + level**2
    return x * (level - (1 - level) * SPREAD**2) / variance


@pytest.mark.parametrize("sample", [sample_euler, sample_unipc])
def test_noise_becomes_data_of_a_known_spread(sample):
    noise = jax.random.normal(jax.random.key(0), (4, 6))
    found = sample(exact_velocity, noise, plan_levels(200, shift=1.0))
    np.testing.assert_allclose(found, SPREAD * noise, rtol=0.02)


def test_unipc_needs_fewer_steps_than_euler():
    noise = jax.random.normal(jax.random.key(0), (64,))
    velocity = lambda x, t: exact_velocity(x, t)  # noqa: E731
    errors = {
        name: float(jnp.max(jnp.abs(sample(velocity, noise, plan_levels(20, shift=1.0)) - SPREAD * noise)))
        for name, sample in (("euler", sample_euler), ("unipc", sample_unipc))
    }
    assert errors["unipc"] < 0.5 * errors["euler"]


def test_levels_are_wans():
    levels = plan_levels(50, shift=3.0)
    assert len(levels) == 51
    assert levels[0] == 1 - 1e-6
    assert levels[-1] == 0
    assert (np.diff(levels) < 0).all()
    np.testing.assert_allclose(levels[1], shift_levels(1 - 0.999 / 50, 3.0))
    with pytest.raises(ValueError, match="0 steps, expected at least 1"):
        plan_levels(0)


def test_lines_lead_from_data_to_noise_at_the_target_velocity():
    data, noise = jax.random.normal(jax.random.key(1), (2, 3, 4, 5))
    np.testing.assert_allclose(mix(data, noise, jnp.zeros(3)), data)
    np.testing.assert_allclose(mix(data, noise, jnp.ones(3)), noise)
    rate = (mix(data, noise, jnp.full(3, 0.75)) - mix(data, noise, jnp.full(3, 0.25))) / 0.5
    np.testing.assert_allclose(rate, target_velocity(data, noise), atol=1e-5)
    np.testing.assert_allclose(guide(data, noise, 1.0), data, atol=1e-6)
    np.testing.assert_allclose(guide(data, noise, 3.0), noise + 3 * (data - noise), atol=1e-6)


def test_levels_to_train_at_lie_between_0_and_1_and_lean_where_the_shift_says():
    levels = draw_levels(jax.random.key(0), (2000,))
    assert 0 < levels.min() < levels.max() < 1
    assert abs(float(jnp.median(levels)) - 0.5) < 0.05
    assert abs(float(jnp.median(draw_levels(jax.random.key(0), (2000,), shift=3.0))) - 0.75) < 0.05


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 50])
def test_unipc_matches_diffusers(num_steps):
    torch = pytest.importorskip("torch", reason="torch is not installed: no second opinion")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: no second opinion")
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    )
    scheduler.set_timesteps(num_steps)
    noise = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    weight = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32) / 2
    x = torch.from_numpy(noise)
    for timestep in scheduler.timesteps:
        velocity = torch.tanh(x @ torch.from_numpy(weight)) * (0.3 + timestep / 1000)
        x = scheduler.step(velocity, timestep, x).prev_sample
    found = sample_unipc(
        lambda x, timestep: jnp.tanh(x @ weight) * (0.3 + timestep / 1000), noise, plan_levels(num_steps, shift=3.0)
    )
    np.testing.assert_allclose(found, x.numpy(), atol=1e-4, rtol=1e-4)


def test_euler_matches_diffusers():
    torch = pytest.importorskip("torch", reason="torch is not installed: no second opinion")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: no second opinion")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    levels = plan_levels(50)
    scheduler.set_timesteps(sigmas=levels[:-1])
    noise = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    x = torch.from_numpy(noise)
    for timestep in scheduler.timesteps:
        x = scheduler.step(torch.sin(x) * (0.3 + timestep / 1000), timestep, x).prev_sample
    found = sample_euler(lambda x, timestep: jnp.sin(x) * (0.3 + timestep / 1000), noise, levels)
    np.testing.assert_allclose(found, x.numpy(), atol=1e-4, rtol=1e-4)
