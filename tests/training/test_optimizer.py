"""Adam with a rate per group."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import KeyPoints, Params
from dimo_jax.training import density, schedules
from dimo_jax.training.gaussians import init_points
from dimo_jax.training.latents import init_latents
from dimo_jax.training.optimizer import GROUPS, build_optimizer, label


def make_params():
    points, alive = init_points(jax.random.key(0), capacity=6, num_points=4)
    params = Params(
        latents=init_latents(jax.random.key(1), num_motions=2, dim=3),
        decoder={"params": {"layer": {"kernel": jnp.ones((2, 2))}}},
        key_points=KeyPoints(positions=jnp.zeros((5, 3)), log_radii=jnp.zeros(5)),
        gaussians=points,
    )
    return params, alive


def test_every_leaf_has_a_group():
    labels = jax.tree.leaves(label(make_params()[0]))
    assert set(labels) == set(GROUPS)


def test_each_group_moves_at_its_own_rate():
    params, _ = make_params()
    rates = {group: 10.0 ** -(i + 1) for i, group in enumerate(GROUPS)}
    rates["means"] = dict(fn="dimo_jax.training.schedules:log_linear", initial=1e-2, final=1e-4, num_steps=10)
    optimizer = build_optimizer(rates, key="rates")
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    expected = rates | {"means": 1e-2}
    for update, group in zip(jax.tree.leaves(updates), jax.tree.leaves(label(params)), strict=True):
        np.testing.assert_allclose(update, -expected[group], rtol=1e-5)


@pytest.mark.parametrize("b2", [0.999, 0.99])
def test_equals_optax_adam_over_steps(b2):
    params, _ = make_params()
    optimizer = build_optimizer(dict.fromkeys(GROUPS, 1e-2), key="rates", b2=b2)
    reference = optax.adam(1e-2, b2=b2, eps=1e-15)
    ours, theirs = params, params
    our_state, their_state = optimizer.init(params), reference.init(params)
    for step in range(4):
        gradients = jax.tree.map(lambda x, step=step: jnp.cos(x * 3 + step), ours)
        update, our_state = optimizer.update(gradients, our_state, ours)
        ours = optax.apply_updates(ours, update)
        update, their_state = reference.update(gradients, their_state, theirs)
        theirs = optax.apply_updates(theirs, update)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_missing_group_names_its_key():
    with pytest.raises(UserError, match=r"config\.stage1\.rates.*'sh'"):
        build_optimizer({group: 1.0 for group in GROUPS if group != "sh"}, key="stage1.rates")


def test_moments_of_rewritten_slots_start_at_zero():
    params, _ = make_params()
    optimizer = build_optimizer(dict.fromkeys(GROUPS, 1e-2), key="rates")
    _, state = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    changed = jnp.arange(6) == 3
    adam, _ = density.reset_moments(state, changed)
    for moments in (*jax.tree.leaves(adam.mu.gaussians), *jax.tree.leaves(adam.nu.gaussians)):
        assert bool(jnp.all(moments[3] == 0))
        assert bool(jnp.all(moments[:3] != 0))
    assert bool(jnp.all(adam.mu.latents.mu != 0))


def test_warmup_grows_linearly_and_then_changes_nothing():
    plain = schedules.log_linear(initial=1e-2, final=1e-4, num_steps=100)
    warm = schedules.log_linear(initial=1e-2, final=1e-4, num_steps=100, warmup_steps=10)
    np.testing.assert_allclose([warm(s) / plain(s) for s in (0, 4, 9, 10, 50)], [0.1, 0.5, 1, 1, 1], rtol=1e-5)
    constant = schedules.log_linear(initial=3.0, final=3.0, num_steps=1, warmup_steps=4)
    np.testing.assert_allclose([constant(s) for s in (0, 1, 3, 9)], [0.75, 1.5, 3, 3], rtol=1e-5)


def test_log_linear_is_straight_in_the_logarithm():
    schedule = schedules.log_linear(initial=1e-2, final=1e-4, num_steps=100, start=50)
    np.testing.assert_allclose([schedule(s) for s in (0, 50, 100, 150, 900)], [1e-2, 1e-2, 1e-3, 1e-4, 1e-4], rtol=1e-4)


def test_resolution_phases():
    phases = ((0, 64), (100, 128), (300, 256))
    assert [schedules.resolution_at(phases, s) for s in (0, 99, 100, 299, 300, 999)] == [64, 64, 128, 128, 256, 256]
