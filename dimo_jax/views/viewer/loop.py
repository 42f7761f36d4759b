"""Keeps what is shown at what is chosen: choices come from any thread at any rate, one thread follows the latest."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

Show = Callable[[Any, Any, Any], None]  # a motion, a frame of it, and choices, of the session's own kinds
MOST_UPDATES = 30  # a second
IDLE_SECONDS = 0.5


class Viewer:
    """The choices of all who watch, and the loop that shows them."""

    def __init__(self, session: Any, show: Show) -> None:
        """A viewer of a `Session`, or another that has its `begin`, `settle`, `pose` and `advance`.

        `show` is called by the thread that calls `update`, whenever there is something new.
        """
        self.session = session
        self._show = show
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._wake.set()  # the first choices wait to be shown
        self._choices = session.begin()
        self._shown: Any = None
        self._motion = session.settle(self._choices)
        self._frame = session.pose(self._motion, self._choices.frame)

    @property
    def choices(self) -> Any:
        """What is chosen now."""
        return self._choices

    def choose(self, **changes: Any) -> None:
        """Changes some of the choices; returns at once. Fields as in `Choices`."""
        with self._lock:
            self._choices = dataclasses.replace(self._choices, **changes)
        self._wake.set()

    def update(self, seconds: float = 0.0) -> bool:
        """Shows the present choices, `seconds` later for a motion that plays; returns whether anything changed."""
        choices, before = self._advance(seconds), self._shown
        if choices == before:
            return False
        new_motion = before is None or choices.motion != before.motion
        if new_motion:
            self._motion = self.session.settle(choices)
        if new_motion or before is None or choices.frame != before.frame:
            self._frame = self.session.pose(self._motion, choices.frame)
        self._show(self._motion, self._frame, choices)
        self._shown = choices
        return True

    def _advance(self, seconds: float) -> Any:
        with self._lock:
            choices = self._choices
            if choices.playing and seconds > 0:
                frame = self.session.advance(choices, seconds)
                self._choices = choices = dataclasses.replace(choices, frame=frame)
            return choices

    def run(self, stop: threading.Event) -> None:
        """Updates until `stop` is set, at most `MOST_UPDATES` times a second, and not at all while nothing changes."""
        last = time.perf_counter()
        while not stop.is_set():
            if not self.choices.playing:
                self._wake.wait(IDLE_SECONDS)
                last = time.perf_counter()
            self._wake.clear()
            now = time.perf_counter()
            self.update(now - last)
            last = now
            stop.wait(max(0.0, 1 / MOST_UPDATES - (time.perf_counter() - now)))
