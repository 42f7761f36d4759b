"""How far long work is: on a terminal a bar below what is logged, in a redirected log a line now and then.

All bars of the package are made here, so that none of them fills a log file and no line of the log sticks to one.
"""

from __future__ import annotations

import contextlib
import logging as standard_logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from absl import logging
from tqdm import tqdm

from dimo_jax.runtime.durations import format_span

DELAY = 2.0  # seconds of work before a bar appears
SECONDS_PER_LINE = 30.0  # between the lines in a log
WINDOW = 60.0  # seconds whose mean speed tells the time left
T = TypeVar("T")


class Pace:
    """How many steps a second are done of late, without the time that compiling took.

    A rate is known from the second step on: the first of a kind is compiled, from which nothing follows for the others.
    """

    def __init__(self, *, ahead: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        ahead: steps that may be given to a device before the first of them is done; so many say nothing of its speed.
        clock: seconds.
        """
        self._ahead, self._clock = ahead, clock
        self._unseen = ahead
        self._paused = self._untold = 0.0
        self._marks: deque[tuple[float, int]] = deque()
        self._count = 0

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What happens within, such as compiling, is no step's time, and steps after it may have another speed."""
        begin = self._clock()
        try:
            yield
        finally:
            took = self._clock() - begin
            self._paused, self._untold = self._paused + took, self._untold + took
            self._marks.clear()
            self._unseen = self._ahead + 1  # and the one within

    def add(self, count: int = 1) -> None:
        """So many steps have been done, or have been given to the device."""
        self._count += count
        if self._unseen:
            self._unseen -= 1
            return
        now = self._clock() - self._paused
        self._marks.append((now, self._count))
        while len(self._marks) > 2 and self._marks[1][0] < now - WINDOW:
            self._marks.popleft()

    def rate(self) -> float:
        """Steps a second over the last minute; 0 where that is not known yet."""
        if len(self._marks) < 2:
            return 0.0
        (begin, before), (end, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(end - begin, 1e-9)

    def take_paused(self) -> float:
        """Seconds of pauses that have ended since this was last asked."""
        untold, self._untold = self._untold, 0.0
        return untold


class _Bar(tqdm):
    """A bar whose time left follows a `Pace`, not the mean since it began."""

    def __init__(self, pace: Pace, **options: Any) -> None:
        self._pace = pace
        super().__init__(**options)

    @property
    def format_dict(self) -> Any:
        return {**super().format_dict, "rate": self._pace.rate()}


class Progress:
    """Counts what is done of long work, and shows it; a context manager."""

    def __init__(
        self,
        total: int | None,
        description: str,
        *,
        unit: str,
        initial: int = 0,
        delay: float = DELAY,
        leave: bool = False,
        lines: bool = True,
        ahead: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        total: how much there is to do; None where nobody knows.
        description: what is done, such as "rendering".
        unit: what is counted, such as "image".
        initial: how much of `total` was done before.
        delay: seconds before a bar appears.
        leave: whether a finished bar stays on the terminal.
        lines: whether the log gets lines where there is no terminal; False where others write them.
        ahead: see `Pace`.
        clock: seconds.
        """
        self.pace = Pace(ahead=ahead, clock=clock)
        self._total, self._description, self._unit, self._count = total, description, unit, initial
        self._delay, self._leave, self._lines, self._clock = delay, leave, lines, clock
        self._begin = self._last_line = clock()
        self._is_terminal, self._has_spoken = sys.stderr.isatty(), False
        self._bar: _Bar | None = None

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._has_spoken and kind is None:
            took = format_span(self._clock() - self._begin)
            logging.info("%s: %d %ss done in %s", self._description, self._count, self._unit, took)

    def update(self, count: int = 1) -> None:
        """So much more is done."""
        self._count += count
        if count:
            self.pace.add(count)
        self._show(count)

    def pause(self) -> contextlib.AbstractContextManager[None]:
        """See `Pace.pause`."""
        return self.pace.pause()

    def tell(self, **facts: str) -> None:
        """Shows facts beside the bar, from its next step on."""
        if self._bar is not None:
            self._bar.set_postfix(refresh=False, **facts)

    def _show(self, count: int = 0) -> None:
        now = self._clock()
        if self._is_terminal and self._bar is not None:
            self._bar.update(count)
        elif self._is_terminal and now - self._begin >= self._delay:
            self._bar = _Bar(
                self.pace, total=self._total, initial=self._count, desc=self._description, unit=self._unit,
                leave=self._leave, mininterval=0.5, dynamic_ncols=True, file=sys.stderr,
            )  # fmt: skip
            self._bar.start_t -= now - self._begin
        elif not self._is_terminal and self._lines and now - self._last_line >= SECONDS_PER_LINE:
            self._last_line, self._has_spoken = now, True
            logging.info("%s", self._describe())

    def _describe(self) -> str:
        whole = "" if self._total is None else f" of {self._total}"
        rate = self.pace.rate()
        left = f", {format_span((self._total - self._count) / rate)} left" if rate and self._total else ""
        return f"{self._description}: {self._count}{whole} {self._unit}s{left}"


def track(items: Iterable[T], description: str, *, unit: str, total: int | None = None) -> Iterator[T]:
    """The same items, while a `Progress` counts those that whoever takes them is done with.

    Args:
      items: as many as `total` says, or as their own length.
      description, unit, total: see `Progress`.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, description, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()


class _AboveBars:
    """A stream on standard error whose writes take the place of the bars, which are then drawn anew below."""

    def write(self, text: str) -> int:
        """Writes a line."""
        stream: TextIO = sys.stderr
        with tqdm.external_write_mode(file=stream):
            return stream.write(text)

    def flush(self) -> None:
        """As of standard error."""
        sys.stderr.flush()

    def close(self) -> None:
        """Nothing: standard error stays open."""


def log_above_bars() -> None:
    """From here on what absl logs, and Python's warnings, stand above the bars instead of behind them."""
    logging.get_absl_handler().python_handler.setStream(_AboveBars())
    standard_logging.captureWarnings(True)
