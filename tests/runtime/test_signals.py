"""Signals end a run: at once outside of training, between two steps within."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dimo_jax.core.errors import Stopped
from dimo_jax.runtime.signals import Signals


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


def test_a_second_interrupt_ends_at_once_even_while_the_first_is_said(monkeypatch):
    sent = []

    def write(file, text):
        sent.append(text)
        if len(sent) == 1:
            send(signal.SIGINT)
        return len(text)

    monkeypatch.setattr(os, "write", write)
    with Signals() as signals, pytest.raises(Stopped, match="SIGINT for the second time; what came after"):
        train(signals, [signal.SIGINT])
    assert len(sent) == 1


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


COMPILES = """
import sys
import jax, jax.numpy as jnp
from dimo_jax.runtime.signals import Signals, leave
from dimo_jax.core.errors import Stopped


@jax.jit
def slow(x):
    for i in range(700):
        x = jnp.sin(x) @ x + jnp.cumsum(jnp.sort(x, axis=i % 2), 0)
    return x


jax.block_until_ready(x := jnp.ones((64, 64)))
try:
    with Signals() as signals, signals.deferred():
        jax.monitoring.register_event_duration_secs_listener(
            lambda name, *_, **__: name.endswith("to_mlir_module_duration") and print("compiling", flush=True))
        slow(x)
except Stopped as error:
    print(f"stopped: {error}", flush=True)
    leave(error.exit_code, error)
"""


def test_an_interrupt_while_a_program_is_compiled_says_so_and_the_second_ends_at_once():
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "-c", COMPILES], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout.readline() == "compiling\n"
        begin = time.monotonic()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        said = process.stderr.readline()
        assert said.startswith("SIGINT: stopping after the next step, whose program is being compiled: that is waited")
        process.send_signal(signal.SIGINT)
        assert "SIGINT for the second time" in process.stdout.read()
        assert process.wait(timeout=60) == Stopped.exit_code
        took = time.monotonic() - begin
        assert took < 5, f"{took:.1f} s, though the compilation itself takes longer"
    finally:
        process.kill()
        process.communicate()
