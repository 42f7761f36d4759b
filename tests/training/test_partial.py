"""Steps that move some arrays of a model: the rest stays, and the average starts as a mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.training import partial

CHOSEN = dict(moves=True, stays=False, too=dict(inner=True))


def model():
    return dict(moves=jnp.arange(3.0), stays=jnp.full(2, 7.0), too=dict(inner=jnp.ones([])))


def test_what_is_taken_can_be_put_back():
    arrays = partial.take(model(), CHOSEN)
    assert [each.shape for each in arrays] == [(3,), ()]
    put = partial.put(model(), tuple(2 * each for each in arrays), CHOSEN)
    expected = dict(moves=2 * jnp.arange(3.0), stays=jnp.full(2, 7.0), too=dict(inner=jnp.full([], 2.0)))
    jax.tree.map(np.testing.assert_array_equal, put, expected)


def test_steps_move_what_is_chosen_and_its_average_forgets_the_start():
    optimizer = partial.build_optimizer(100, 0.1, 1.0)
    state = partial.begin(jnp.int32(40), model(), CHOSEN, optimizer)
    places = []
    for taken in range(20):
        gradients = tuple(jnp.ones_like(each) for each in partial.take(state.params, CHOSEN))
        state = partial.advance(state, gradients, CHOSEN, optimizer, share=0.99, taken=jnp.int32(taken))
        places.append(float(state.params["too"]["inner"]))
    assert int(state.step) == 60
    np.testing.assert_array_equal(state.params["stays"], 7.0)
    assert places == sorted(places, reverse=True)
    # At a share of .99 from the first step on it would still be within a fifth of where it began.
    inner = float(partial.averaged(state, CHOSEN)["too"]["inner"])
    assert places[-1] < inner < 1 - 0.5 * (1 - places[-1])


@pytest.mark.parametrize(("taken", "share"), [(0, 0.2), (5, 1.0), (99, 0.1)])
def test_the_rate_grows_and_falls(taken, share):
    """Adam's first step is as long as the rate is."""
    optimizer = partial.build_optimizer(100, 0.1, 1e9)
    state = optimizer.init((jnp.zeros([]),))
    step = jax.jit(lambda state: optimizer.update((jnp.ones([]),), state))
    for _ in range(taken + 1):
        updates, state = step(state)
    assert -float(updates[0]) / 0.1 == pytest.approx(share, abs=0.01)
