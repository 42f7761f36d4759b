"""The curves of a rig's motion space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.systems.rig.decoder import CurveDecoder, Start, phase

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_curves_of_loops_go_round_and_others_may_end_anywhere():
    times = jnp.array([0.0, 1e-3, 0.3, 1.0 - 1e-3, 1.0])
    closed, opened = (phase(times, loop, num_harmonics=4) for loop in (1.0, 0.0))
    assert closed.shape == (5, 13)
    np.testing.assert_allclose(closed[0], closed[-1], atol=2e-5)
    np.testing.assert_allclose(closed[1] - closed[0], closed[-1] - closed[-2], atol=2e-3)  # and as fast
    assert np.abs(opened[0] - opened[-1]).max() > 1


def test_it_begins_as_the_clips_are():
    rng = np.random.default_rng(0)
    times = [np.arange(32) / 32, np.linspace(0, 1, 32), np.arange(32) / 32]
    loops = np.array([True, False, True])
    mix = rng.normal(size=(5, 9))
    curves = [phase(t, float(loop), num_harmonics=2, xp=np) for t, loop in zip(times, loops)]
    vectors = np.array([curve @ rng.normal(size=(7, 5)) @ mix for curve in curves])
    weights = rng.uniform(0.1, 2, size=9)
    decoder = CurveDecoder(num_channels=9, rank=5, num_harmonics=2, width=4, depth=1)
    dim = 7 * 5
    variables = decoder.init(jax.random.key(0), jnp.zeros(dim), jnp.zeros(1), jnp.zeros([]))
    variables, codes = decoder.settle(variables, Start(vectors, times, loops, weights), dim)
    for code, true, t, loop in zip(codes, vectors, times, loops):
        found = decoder.apply(variables, jnp.asarray(code), jnp.asarray(t), jnp.asarray(float(loop)))
        assert np.abs(found - true).max() < 0.1 * np.abs(true).max()
    assert np.std(codes, axis=0).max() < 1.1
    few, codes = decoder.settle(variables, Start(vectors, times, loops, weights), 4)
    assert codes.shape == (3, 4)
    assert np.count_nonzero(few["params"]["lift"]) == 4
