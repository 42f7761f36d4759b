"""The decoder that is a linear basis: near the canonical pose at the start, linear in its shares, and able to learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.systems.dimo.basis_decoder import basis_decoder

D, K = 5, 12
POSITIONS = jax.random.uniform(jax.random.key(0), (K, 3), minval=-0.5, maxval=0.5)


def make(**options):
    decoder = basis_decoder(**(dict(rank=6, width=16, num_position_bands=3, num_time_bands=2) | options))
    return decoder, decoder.init(jax.random.key(1), jnp.zeros(D), POSITIONS, jnp.zeros([]))


def disturb(variables, size=0.3):
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [x + size * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def test_it_begins_near_the_canonical_pose():
    decoder, variables = make(rank=96, width=256, num_position_bands=4, num_time_bands=4)
    codes = jax.random.normal(jax.random.key(5), (8, D))
    translations, rotations = jax.vmap(lambda z: decoder.apply(variables, z, POSITIONS, jnp.float32(0.3)))(codes)
    assert 0.01 < np.sqrt(np.mean(np.sum(translations**2, axis=-1))) < 0.2
    assert np.max(np.abs(rotations - np.asarray([1.0, 0, 0, 0]))) < 0.5


def test_poses_of_all_codes_and_times_span_no_more_than_the_rank():
    decoder, variables = make(rank=4)
    variables = disturb(variables)
    zs = jax.random.normal(jax.random.key(3), (9, D))
    times = jnp.linspace(0, 1, 7)
    over = jax.vmap(jax.vmap(decoder.apply, (None, None, None, 0)), (None, 0, None, None))
    translations, rotations = over(variables, zs, POSITIONS, times)
    assert translations.shape == (9, 7, K, 3)
    assert rotations.shape == (9, 7, K, 4)
    moved = np.concatenate([translations, rotations - np.asarray([1.0, 0, 0, 0])], axis=-1).reshape(63, -1)
    spectrum = np.linalg.svd(moved.astype(np.float64), compute_uv=False)
    assert spectrum[3] > 1e-3 * spectrum[0]
    assert spectrum[4] < 1e-5 * spectrum[0]


def test_one_pose_is_that_of_many():
    decoder, variables = make()
    variables = disturb(variables)
    zs = jax.random.normal(jax.random.key(3), (3, D))
    many = jax.vmap(decoder.apply, (None, 0, None, None))(variables, zs, POSITIONS, jnp.float32(0.3))
    one = decoder.apply(variables, zs[1], POSITIONS, jnp.float32(0.3))
    for all_of_them, alone in zip(many, one, strict=True):
        np.testing.assert_allclose(all_of_them[1], alone, atol=1e-6)


def test_a_smooth_branch_has_no_kinks_in_time():
    steps = []
    for activation in ("relu", "silu"):
        decoder, variables = make(width=64, branch_activation=activation)
        variables = disturb(variables, 0.1)
        times = jnp.linspace(0.4, 0.5, 401)
        paths = jax.vmap(decoder.apply, (None, None, None, 0))(variables, jnp.ones(D), POSITIONS, times)[0]
        turns = np.linalg.norm(np.diff(np.asarray(paths, np.float64), 2, axis=0), axis=-1).max(axis=1)
        steps.append(turns.max() / np.median(turns))
    assert steps[0] > 20  # a rectifier's corner is one step's turn
    assert steps[1] < 3
    with pytest.raises(UserError, match="branch_activation: found 'tanh', expected one of relu, silu"):
        make(branch_activation="tanh")


def test_it_learns_two_motions():
    """A swing about one axis at two speeds, told apart by the code."""
    decoder, variables = make(rank=16, width=64)
    codes, times = jnp.eye(2, D), jnp.linspace(0, 1, 11)
    swing = jnp.sin(2 * jnp.pi * jnp.asarray([1.0, 2.0])[:, None] * times)  # [2,T]
    truth = 0.3 * swing[..., None, None] * jnp.stack([POSITIONS[:, 1], -POSITIONS[:, 0], 0 * POSITIONS[:, 2]], axis=-1)
    over = jax.vmap(jax.vmap(decoder.apply, (None, None, None, 0)), (None, 0, None, None))
    optimizer = optax.adam(3e-3)

    def loss(variables):
        return jnp.mean((over(variables, codes, POSITIONS, times)[0] - truth) ** 2)

    @jax.jit
    def step(carry, _):
        variables, state = carry
        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return (optax.apply_updates(variables, updates), state), None

    (variables_after, _), _ = jax.lax.scan(step, (variables, optimizer.init(variables)), length=400)
    assert loss(variables_after) < 0.02 * loss(variables)
