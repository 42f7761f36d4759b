"""States are saved by steps, by the clock and on request, and never when they hold NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.core.errors import Stopped
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.training import save_policy as module
from dimo_jax.training.save_policy import SavePolicy
from dimo_jax.training.tracker import LossNotFinite, Tracker


class Kept:
    """A store and a clock that the test turns."""

    def __init__(self):
        self.steps, self.waits, self.now, self.reason = [], 0, 0.0, ""

    def save(self, step, state, *, notes):
        self.steps.append(step)

    def wait(self):
        self.waits += 1


def make_state(value=1.0):
    empty = dict(neighbors=None, density=None, reference=None, dropped=None, alive=None)
    moments = {"mu": {"means": jnp.full(3, value)}, "count": jnp.int32(1)}
    return TrainState(step=jnp.int32(1), params={"means": jnp.zeros(3)}, optimizer=moments, **empty)


@pytest.fixture
def kept():
    return Kept()


def make_policy(kept, **options):
    return SavePolicy(kept, Tracker(), stop=lambda: kept.reason, clock=lambda: kept.now, **options)


def test_steps_and_minutes(kept):
    policy = make_policy(kept, every=10, minutes=2)
    saved = []
    for step in range(1, 31):
        kept.now += 25.0
        if policy.is_due(step):
            policy.save(step, make_state())
            saved.append(step)
    assert saved == [5, 10, 15, 20, 25, 30] == kept.steps
    assert kept.waits == 0


def test_clock_can_be_left_out(kept):
    policy = make_policy(kept, every=10, minutes=0)
    kept.now = 1e9
    assert [step for step in range(1, 31) if policy.is_due(step)] == [10, 20, 30]


def test_request_saves_and_stops(kept):
    policy = make_policy(kept, every=10, minutes=0)
    assert not policy.is_due(3)
    kept.reason = "SIGTERM"
    assert policy.is_due(3)
    with pytest.raises(Stopped, match="SIGTERM after step 3, which is saved; the same command goes on from there"):
        policy.save(3, make_state())
    assert (kept.steps, kept.waits) == ([3], 1)


def test_signal_to_another_process_stops_this_one_after_the_same_step(kept, monkeypatch):
    """Two processes that agree every 4 steps; the other one, faked, has got SIGTERM."""
    wishes = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(module, "agree", lambda wish: wishes.append(wish) or 2)
    policy = make_policy(kept, every=3, minutes=0, agree_every=4)
    assert [step for step in range(1, 5) if policy.is_due(step)] == [3, 4]
    assert wishes == [0]
    with pytest.raises(Stopped, match="a signal to another process after step 4"):
        policy.save(4, make_state())


def test_nan_is_never_saved(kept):
    policy = make_policy(kept, every=10, minutes=0)
    says = r"step 10: 3 of 3 numbers of optimizer\.mu\.means are NaN, though its loss is finite"
    with pytest.raises(LossNotFinite, match=says):
        policy.save(10, make_state(np.nan))
    assert kept.steps == []
