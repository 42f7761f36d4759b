"""Signals end a run: at once outside of training, between two steps within."""

import os
import signal

import pytest

from dimo_jax.apps.signals import Signals
from dimo_jax.errors import Stopped


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_outside_of_training_it_ends_at_once(number):
    says = f"{number.name} while no step was under way; nothing is lost"
    with Signals(), pytest.raises(Stopped, match=says):
        send(number)


def train(signals, numbers):
    """Where these signals arrive, one after the other."""
    with signals.deferred():
        for number in numbers:
            send(number)
        return "trained"


def test_while_training_it_is_remembered():
    # Twice, because schedulers repeat themselves.
    with Signals() as signals, pytest.raises(Stopped, match="SIGTERM while no step was under way"):
        train(signals, [signal.SIGTERM, signal.SIGTERM])
    assert signals.received() == "SIGTERM"
    with Signals() as signals:
        assert train(signals, []) == "trained"


def test_second_interrupt_ends_at_once():
    with Signals() as signals, pytest.raises(Stopped, match="SIGINT for the second time; what came after"):
        train(signals, [signal.SIGINT, signal.SIGINT])


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
