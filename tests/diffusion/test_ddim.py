"""DDIM and score distillation against exact scores, and diffusers where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.diffusion import noise as schedule
from dimo_jax.diffusion.ddim import plan_steps, sample_ddim
from dimo_jax.diffusion.distillation import (
    WEIGHTS,
    Span,
    anneal,
    distillation_gradient,
    distillation_loss,
    draw_timestep,
    separate,
)
from dimo_jax.diffusion.noise import add_noise, plan_alphas, target, to_noise

SPREAD = 0.5
ALPHAS = jnp.asarray(plan_alphas(), jnp.float32)


def exact_noise(x, timestep, mean=0.0):
    """The noise expected in x where data ~ N(mean, SPREAD^2)."""
    alpha = ALPHAS[jnp.asarray(timestep, jnp.int32)]
    return jnp.sqrt(1 - alpha) * (x - jnp.sqrt(alpha) * mean) / (alpha * SPREAD**2 + 1 - alpha)


def exact_velocity(x, timestep, mean=0.0):
    alpha = ALPHAS[jnp.asarray(timestep, jnp.int32)]
    found = exact_noise(x, timestep, mean)
    return (found - jnp.sqrt(1 - alpha) * x) / jnp.sqrt(alpha)


@pytest.mark.parametrize(("predict", "kind"), [(exact_noise, "epsilon"), (exact_velocity, "v")])
def test_noise_becomes_data_of_a_known_spread(predict, kind):
    noise = jax.random.normal(jax.random.key(0), (4, 6))
    found = sample_ddim(predict, noise, num_steps=250, prediction=kind)
    np.testing.assert_allclose(found, SPREAD * noise, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("num_steps", [1, 7, 50])
@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_ddim_matches_diffusers(num_steps, kind):
    torch = pytest.importorskip("torch", reason="torch is not installed: no second opinion")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: no second opinion")
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="epsilon" if kind == "epsilon" else "v_prediction",
    )
    scheduler.set_timesteps(num_steps)
    rng = np.random.default_rng(3)
    noise, weight = (rng.normal(size=size).astype(np.float32) for size in ((2, 3, 4), (4, 4)))
    np.testing.assert_array_equal(plan_steps(num_steps, plan_alphas())[0], scheduler.timesteps.numpy())
    np.testing.assert_allclose(plan_alphas(), scheduler.alphas_cumprod.numpy(), rtol=1e-5)
    x = torch.from_numpy(noise)
    for timestep in scheduler.timesteps:
        found = torch.tanh(x @ torch.from_numpy(weight)) * (0.3 + timestep / 1000)
        x = scheduler.step(found, timestep, x).prev_sample
    toy = lambda x, t: jnp.tanh(x @ weight) * (0.3 + t / 1000)  # noqa: E731
    found = sample_ddim(toy, jnp.asarray(noise), num_steps=num_steps, prediction=kind)
    np.testing.assert_allclose(found, x.numpy(), atol=1e-4, rtol=1e-4)


def test_the_last_step_leaves_the_noise_of_timestep_0_or_none():
    """By a network that knows the data, and so the noise."""
    data, noise = jax.random.normal(jax.random.key(0), (2, 1000))
    alphas = jnp.asarray(plan_alphas(), jnp.float32)

    def predict(x, t):
        alpha = alphas[jnp.asarray(t, jnp.int32)]
        return (x - jnp.sqrt(alpha) * data) / jnp.sqrt(1 - alpha)

    left = sample_ddim(predict, noise, num_steps=10) - data
    assert abs(float(left.std()) - np.sqrt(1 - plan_alphas()[0])) < 0.002
    np.testing.assert_allclose(sample_ddim(predict, noise, num_steps=10, clean=True), data, atol=1e-5)


def test_noise_and_velocity_say_the_same():
    data, noise = jax.random.normal(jax.random.key(1), (2, 3, 4))
    alphas = jnp.array([0.9, 0.5, 0.1])
    noisy = add_noise(data, noise, alphas)
    for kind in ("epsilon", "v"):
        asked = target(data, noise, alphas, prediction=kind)
        np.testing.assert_allclose(to_noise(asked, noisy, alphas, prediction=kind), noise, atol=1e-5)
    with pytest.raises(ValueError, match="expected 'epsilon' or 'v'"):
        to_noise(data, noisy, alphas, prediction="x0")
    with pytest.raises(ValueError, match="0 steps"):
        plan_steps(0, plan_alphas())


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_gradient_of_distillation_is_the_known_one(weight):
    """For data ~ N(mean, SPREAD^2) its mean over the noise is w sqrt(a (1 - a)) (z - mean) / (a SPREAD^2 + 1 - a)."""
    drawn, mean, timestep = jnp.array([2.0, -1.0]), jnp.array([0.5, 0.5]), 400
    predict = lambda x, t: exact_noise(x, t, mean)  # noqa: E731
    noise = jax.random.normal(jax.random.key(0), (20000, 2))
    noise = jnp.concatenate([noise, -noise])  # both signs: what depends on the noise alone cancels
    found = distillation_gradient(predict, jnp.broadcast_to(drawn, noise.shape), noise, timestep, weight=weight)
    alpha = ALPHAS[timestep]
    rate = jnp.sqrt(alpha * (1 - alpha)) / (alpha * SPREAD**2 + 1 - alpha)
    np.testing.assert_allclose(found.mean(axis=0), WEIGHTS[weight](alpha) * rate * (drawn - mean), rtol=1e-3)
    slope = jax.grad(distillation_loss)(drawn, found[0])
    np.testing.assert_allclose(slope, found[0] / 2, rtol=1e-6)


def test_what_is_drawn_goes_to_the_middle_of_a_known_prior():
    mean = jnp.array([0.7, -1.2, 0.3])
    predict = lambda x, t: exact_noise(x, t, mean)  # noqa: E731

    def step(x, row):
        key, progress = row
        time_key, noise_key = jax.random.split(key)
        timestep = draw_timestep(time_key, *anneal(progress))
        found = distillation_gradient(predict, x, jax.random.normal(noise_key, x.shape), timestep)
        return x - 0.02 * found, None

    rows = (jax.random.split(jax.random.key(0), 3000), jnp.linspace(0, 1, 3000))
    start = jnp.tile(jnp.array([3.0, 3.0, 3.0]), (64, 1))
    found = jax.lax.scan(step, start, rows)[0]
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=0.05)
    assert float(jnp.abs(found - mean).max()) < 0.7  # each ends within the prior's spread or so


def test_the_network_s_own_derivative_is_left_out():
    def loss(drawn):
        found = distillation_gradient(lambda x, t: 5 * x, drawn, jnp.zeros(3), 500)
        return jnp.sum(found)

    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones(3)), 0)
    with pytest.raises(ValueError, match="weight is 'x'"):
        distillation_gradient(lambda x, t: x, jnp.ones(3), jnp.ones(3), 5, weight="x")


def test_timesteps_lie_in_a_span_that_narrows():
    low, high = anneal(jnp.array([0.0, 0.5, 1.0, 2.0]), last=Span(0.1, 0.3))
    np.testing.assert_allclose(low, [0.02, 0.06, 0.1, 0.1], atol=1e-6)
    np.testing.assert_allclose(high, [0.98, 0.64, 0.3, 0.3], atol=1e-6)
    drawn = jax.vmap(lambda key: draw_timestep(key, 0.1, 0.3))(jax.random.split(jax.random.key(0), 500))
    assert 100 <= int(drawn.min()) < 110
    assert 290 < int(drawn.max()) <= 300
    assert schedule.NUM_TRAIN_STEPS == 1000


def test_a_networks_arrays_are_handed_to_a_program():
    kernel = jax.random.normal(jax.random.key(0), (64, 64))
    call, arrays = separate(lambda x, timestep: (x @ kernel) * timestep, jnp.zeros((2, 64)))
    assert [each.shape for each in arrays] == [(64, 64)]
    sample = jax.random.normal(jax.random.key(1), (2, 64))
    program = jax.jit(call).lower(arrays, sample, jnp.int32(3))
    assert len(program.as_text()) < 5_000  # no array in it
    np.testing.assert_allclose(
        program.compile()(arrays, sample, jnp.int32(3)), 3 * sample @ kernel, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(call([2 * kernel], sample, jnp.int32(1)), 2 * sample @ kernel, rtol=1e-4, atol=1e-4)
