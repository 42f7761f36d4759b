"""SIGTERM and SIGINT end a run cleanly: between two steps while it trains, at once otherwise."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from dimo_jax.core.errors import Stopped

_COMPILER = ("jax", "_src", "compiler.py")


class Signals:
    """A context in which SIGTERM and SIGINT raise `Stopped`, or are only remembered inside of `deferred`.

    Signals reach the main thread only; in another thread the context changes nothing.
    """

    def __init__(self) -> None:
        self._received = ""
        self._is_deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def received(self) -> str:
        """The name of the signal that has come, or ""."""
        return self._received

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it a signal is remembered; who works there asks `received` and stops at the next good moment."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._received:
            raise Stopped(_outside(self._received))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self._is_deferred:
            self._received = name
            raise Stopped(_outside(name))
        if self._received and number == signal.SIGINT:
            raise Stopped(f"{name} for the second time; what came after the last checkpoint is lost")
        is_first = not self._received
        self._received = self._received or name  # first, for the second may come while it is said
        if is_first:
            # Not logged: the signal may have come in the middle of a write to the log.
            work = "the step at hand"
            if is_compiling(frame):
                work = "the next step, whose program is being compiled: that is waited for, and may take minutes"
            os.write(2, f"\n{name}: stopping after {work}; Ctrl-C once more ends at once\n".encode())


def _outside(name: str) -> str:
    return f"{name} while no step was under way; nothing is lost, and the same command goes on"


def leave(code: int, error: BaseException) -> NoReturn:
    """Exits with a code; at once, too, where `error` has interrupted a compilation.

    XLA compiles in a thread of its own, which goes on, and which a regular exit waits for: for minutes maybe.
    """
    if any(_is_compiler(frame) for frame, _ in traceback.walk_tb(error.__traceback__)):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def is_compiling(frame: FrameType | None) -> bool:
    """Whether what runs in a frame was called, near or far, by jax's compiler."""
    return any(_is_compiler(caller) for caller, _ in traceback.walk_stack(frame))


def _is_compiler(frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).parts[-3:] == _COMPILER
