"""How much of its time a device waits for the host's next batch."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any

MAX_AHEAD = 4  # steps given to the device and not done; each holds a batch


class DataWait:
    """Adds up the time in which the loop stood without a batch while the device had nothing left to do.

    Steps are dispatched ahead of the device, so a loop that waits does no harm as long as the last step still runs;
    whether it does is asked without waiting for it. The loop waits only for a step `MAX_AHEAD` before the next, so that
    a fast host does not fill the memory with batches.
    """

    def __init__(self) -> None:
        self._waited, self._since = 0.0, time.perf_counter()
        self._total_waited, self._begin = 0.0, self._since
        self._running: collections.deque[Any] = collections.deque()

    def next(self, fetch: Callable[[], Any]) -> Any:
        """The batch that `fetch` returns; what the loop waits for it is measured."""
        if len(self._running) >= MAX_AHEAD:
            self._running.popleft().block_until_ready()
        begin = time.perf_counter()
        batch = fetch()
        if self._running and self._running[-1].is_ready():
            self._waited += time.perf_counter() - begin
        return batch

    def dispatched(self, output: Any) -> None:
        """A step that will yield the array `output` has been given to the device."""
        self._running.append(output)

    def take_share(self) -> float:
        """Share in 0..1 of the time since the last call that the device waited."""
        now = time.perf_counter()
        share = self._waited / max(now - self._since, 1e-9)
        self._total_waited += self._waited
        self._waited, self._since = 0.0, now
        return share

    def describe(self) -> str:
        """The share of the whole time, in words."""
        share = (self._total_waited + self._waited) / max(time.perf_counter() - self._begin, 1e-9)
        return f"the device waited for data in {share:.1%} of the time"
