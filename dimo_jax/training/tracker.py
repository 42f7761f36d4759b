"""What steps report, looked at now and then: nothing waits for the device in between."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Batch
from dimo_jax.training.system import Metrics

WINDOW = 100  # steps whose mean PSNR is a checkpoint's score


class LossNotFinite(UserError):
    """The loss, or what the optimizer made of it, is NaN or infinite.

    Attributes:
      step: the first such step, counted from 1 over both stages.
      terms: names of the loss terms that are not finite; empty where the loss is but the state is not.
      batch: what the step saw, on the host; the loop fills it in.
    """

    exit_code = 3

    def __init__(self, step: int, terms: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.step, self.terms = step, terms
        self.batch: Batch | None = None


class Tracker:
    """Keeps the metrics of steps on the device until `look`, which fetches them and finds the first bad step."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, Metrics]] = []
        self._lost = 0
        self._phase = (0, 0)
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def begin_phase(self, stage: int, resolution: int) -> None:
        """Steps from here on belong to a stage (1 or 2) and have pictures so high: only alike steps are compared."""
        if self._phase != (stage, resolution):
            self._phase = stage, resolution
            self._recent.clear()

    def add(self, step: int, metrics: Metrics) -> None:
        """Remembers what a step reported; nothing is fetched."""
        self._pending.append((step, metrics.replace(preview=None)))

    def look(self) -> None:
        """Fetches what steps have reported since the last look.

        Raises:
          LossNotFinite: the loss of one of them is NaN or infinite.
        """
        pending, self._pending = self._pending, []
        jax.tree.map(lambda x: x.copy_to_host_async(), [metrics for _, metrics in pending])
        for step, on_device in pending:
            metrics = jax.tree.map(_scalar, on_device)
            if not math.isfinite(metrics.loss):
                bad = tuple(name for name, value in metrics.terms.items() if not math.isfinite(value))
                said = f"step {step}: the loss is {metrics.loss} (terms: {', '.join(bad) or 'none alone'})"
                raise LossNotFinite(step, bad, said)
            self._lost += int(metrics.overflow)
            self._recent.append(metrics.psnr)

    def take_lost(self) -> int:
        """Gaussian-tile pairs that found no room since this was last asked."""
        lost, self._lost = self._lost, 0
        return lost

    def notes(self) -> dict[str, Any]:
        """What a resumed run must know to report and count as the unbroken one, and the checkpoint's score.

        The score is (stage, resolution, mean training PSNR of the last 100 steps in dB); a phase has none before its
        hundredth step. Held-out views and frames choose nothing, so that scores on them stay what they say.
        """
        notes: dict[str, Any] = {"lost": self._lost, "phase": list(self._phase), "recent": list(self._recent)}
        if len(self._recent) == WINDOW:
            notes["score"] = [*self._phase, sum(self._recent) / WINDOW]
        return notes

    def load(self, notes: Mapping[str, Any]) -> None:
        """Goes on from the notes of a checkpoint."""
        self._lost = int(notes.get("lost", 0))
        stage, resolution = notes.get("phase", (0, 0))
        self._phase = int(stage), int(resolution)
        self._recent = deque(notes.get("recent", ()), maxlen=WINDOW)


def _scalar(x: jax.Array) -> float:
    """A number of a step; of one per device, which are equal, this process's first."""
    return float(np.ravel(x.addressable_data(0))[0])
