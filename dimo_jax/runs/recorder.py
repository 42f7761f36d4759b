"""What a run leaves for those who watch it: metrics, TensorBoard, a line a minute in `train.log`, and `status.json`."""

from __future__ import annotations

import contextlib
import logging as standard_logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.io.images import to_uint8
from dimo_jax.io.metrics_log import Board, MetricsLog
from dimo_jax.runtime import status
from dimo_jax.runtime.durations import format_span

LOG_FILE = "train.log"
SECONDS_PER_LINE = 60.0
SECONDS_PER_STATUS = 1.0


class Recorder:
    """Takes what training reports; a `dimo_jax.training.loop.Watcher`."""

    def __init__(
        self,
        config: ConfigDict,
        folder: Path,
        log: MetricsLog,
        board: Board,
        *,
        num_steps: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        config: of the run.
        folder: its workdir, for `status.json`.
        log: takes a row at a time.
        board: takes the same for TensorBoard.
        num_steps: of the whole run.
        clock: seconds.
        """
        self._folder, self._log, self._board, self._clock = folder, log, board, clock
        self._total = num_steps
        self._images = config.batch.motions * config.batch.views * config.batch.frames
        self._last, self._last_line, self._last_status = (clock(), 0), -float("inf"), -float("inf")
        self._phase: tuple[str, float] | None = None

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """One row of metrics, with memory, and speed since the row before; the log's line when a minute has passed."""
        now = self._clock()
        working = now - self._last[0] - values.get("compile_seconds", 0.0)
        rate = (step - self._last[1]) / max(working, 1e-9)
        self._last = now, step
        speed = {"steps_per_second": rate, "images_per_second": rate * self._images, "memory_gib": memory_gib()}
        self._log.write(step, {"stage": stage, **values, **speed})
        self._board.scalars(step, {**values, **speed})
        # What a phase begins with is mostly compilation, from which nothing follows for the steps to come.
        phase = stage, values["resolution"]
        left = (self._total - step) / rate if phase == self._phase else None
        self._phase = phase
        facts = dict(step=step, num_steps=self._total, stage=stage, **values, **speed, seconds_left=left)
        if now - self._last_status >= SECONDS_PER_STATUS or step == self._total:
            self._last_status = now
            status.write_status(self._folder, status.TRAINING, **facts)
        if now - self._last_line >= SECONDS_PER_LINE or step == self._total:
            self._last_line = now
            log_line(describe(facts))

    def images(self, step: int, stage: str, histograms: Mapping[str, np.ndarray], preview: np.ndarray) -> None:
        """Truth beside rendering of one image, and histograms."""
        self._board.image(step, f"{stage}/truth_and_rendering", to_uint8(np.concatenate(list(preview), axis=1)))
        for name, values in histograms.items():
            self._board.histogram(step, f"{stage}/{name}", values)

    def resumed(self, step: int) -> None:
        """Drops rows of steps that will be repeated."""
        self._log.truncate_after(step)
        self._board.resume(step)
        self._last = self._clock(), step


def describe(facts: Mapping[str, Any]) -> str:
    """How far a run is, in one line: `facts` as `status.json` has them."""
    terms = ", ".join(f"{name.removeprefix('loss/')} {facts[name]:.4g}" for name in facts if name.startswith("loss/"))
    left = "" if facts["seconds_left"] is None else f", {format_span(facts['seconds_left'])} left at this speed"
    size = f", {facts['resolution']:.0f} px" if facts["resolution"] else ""
    speed = f"{facts['images_per_second']:.0f} images/s" if size else f"{facts['steps_per_second']:.2f} steps/s"
    return (
        f"step {facts['step']} of {facts['num_steps']} ({facts['stage']}{size}): "
        f"loss {facts['loss']:.4g} ({terms}), PSNR {facts['psnr']:.2f} dB, {speed}, {facts['memory_gib']:.1f} GiB{left}"
    )


def memory_gib() -> float:
    """Memory in use, in GiB: of the fullest local device where devices have their own, else of this process."""
    used = [(device.memory_stats() or {}).get("bytes_in_use", 0) for device in jax.local_devices()]
    if max(used) > 0:
        return max(used) / 2**30
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30
    except OSError:
        return peak_memory_gib()


def peak_memory_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class _LogFile(standard_logging.FileHandler):
    """A log that gives up in silence where the disk is full: the metrics' own error says so in one line."""

    def handleError(self, record: standard_logging.LogRecord) -> None:
        """Stops writing."""
        del record
        standard_logging.getLogger().removeHandler(self)


@contextlib.contextmanager
def log_to(folder: Path) -> Iterator[None]:
    """Within it, what is logged (dimo_jax's own, and warnings of others) is appended to `train.log` in `folder`."""
    handler = _LogFile(folder / LOG_FILE, encoding="utf-8")
    handler.setFormatter(standard_logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(lambda record: record.levelno > standard_logging.INFO or "dimo_jax" in record.pathname)
    root = standard_logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def log_line(text: str) -> None:
    """Logs a line of progress; beside a progress bar only into the file."""
    if sys.stderr.isatty():
        write_to_log(text)
    else:
        logging.info("%s", text)


def write_to_log(text: str) -> None:
    """Adds a line to `train.log` where `log_to` has opened it, and says it nowhere else."""
    record = standard_logging.LogRecord("dimo_jax", standard_logging.INFO, __file__, 0, text, None, None)
    for handler in standard_logging.getLogger().handlers:
        if isinstance(handler, _LogFile):
            handler.handle(record)
