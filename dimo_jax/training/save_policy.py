"""When a state is saved, what must hold before it is, and where a run stops when it is told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from dimo_jax.core.errors import Stopped
from dimo_jax.training.system import State
from dimo_jax.training.tracker import LossNotFinite, Tracker


class Store(Protocol):
    """Where states are kept; `dimo_jax.training.checkpoints.Checkpoints` is one."""

    def save(self, step: int, state: State, *, notes: Mapping[str, Any]) -> None:
        """Keeps the state after `step` steps, and what the loop remembers beside it."""
        ...

    def wait(self) -> None:
        """Returns when what was saved is safe."""
        ...

    def restore_latest(self, template_at: Callable[[int], State]) -> tuple[int, State] | None:
        """The latest state that can be read and its step, or None; `template_at(step)` tells its shapes."""
        ...

    def notes(self, step: int) -> Mapping[str, Any]:
        """What was saved beside the state of `step`."""
        ...


def never() -> str:
    """No reason to stop."""
    return ""


_SAVE, _STOP = 1, 2  # what a process may wish for; the larger wish of any prevails


def agree(wish: int) -> int:
    """The largest wish of all processes of a run, so that all save, and stop, after the same step."""
    if jax.process_count() == 1:
        return wish
    return int(np.max(multihost_utils.process_allgather(np.int32(wish))))


class SavePolicy:
    """Saves every so many steps and minutes, and when a signal asks the run to stop."""

    def __init__(
        self,
        store: Store,
        tracker: Tracker,
        *,
        every: int,
        minutes: float,
        agree_every: int = 1,
        stop: Callable[[], str] = never,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        store: takes the states.
        tracker: is looked at before each save, so that no state follows a bad loss.
        every: steps between saves.
        minutes: save at the latest so long after the save before; 0: the clock does not matter.
        agree_every: with several processes, steps between their agreements on clock and signals, which are a sync.
        stop: tells why the run shall stop ("SIGTERM"), or "".
        clock: seconds.
        """
        self._store, self._tracker, self._every, self._stop, self._clock = store, tracker, every, stop, clock
        self._agree_every = agree_every if jax.process_count() > 1 else 1
        self._seconds = 60 * minutes
        self._last = clock()
        self._stops = False

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` is to be saved."""
        wish = 0
        if step % self._agree_every == 0:
            late = self._seconds > 0 and self._clock() - self._last >= self._seconds
            wish = agree(_STOP if self._stop() else _SAVE if late else 0)
            self._stops = wish == _STOP
        return step % self._every == 0 or wish > 0

    def save(self, step: int, state: State, **notes: Any) -> None:
        """Saves the state after `step`, then stops the run where `is_due` has heard that it shall.

        Args:
          step: steps taken.
          state: of one device; copied before this returns.
          **notes: what the loop remembers beside the state, as JSON has it.

        Raises:
          LossNotFinite: a loss since the last look, or a number of the state.
          WriteFailed: the save before this one failed; when stopping, or this one.
          Stopped: the run was asked to stop, and the state is safe.
        """
        self._tracker.look()
        check_finite(step, state)
        self._store.save(step, state, notes={**self._tracker.notes(), **notes})
        self._last = self._clock()
        if self._stops:
            self._store.wait()
            reason = self._stop() or "a signal to another process"
            raise Stopped(f"{reason} after step {step}, which is saved; the same command goes on from there")


def check_finite(step: int, state: State) -> None:
    """Raises LossNotFinite where a parameter or a moment of the optimizer is NaN.

    A gradient can be NaN although its loss is not; the state then holds NaN one step before a loss tells.
    """
    for path, leaf in jax.tree.leaves_with_path({"params": state.params, "optimizer": state.optimizer}):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and np.isnan(values := np.asarray(leaf)).any():
            name, count = jax.tree_util.keystr(path, simple=True, separator="."), int(np.isnan(values).sum())
            said = f"step {step}: {count} of {values.size} numbers of {name} are NaN, though its loss is finite"
            raise LossNotFinite(step, (), said)
