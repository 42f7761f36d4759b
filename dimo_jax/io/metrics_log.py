"""Numbers of a run while it goes: `metrics.jsonl` for programs, TensorBoard for the eye."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from absl import logging
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from dimo_jax.core.errors import UserError
from dimo_jax.io.images import check_frames
from dimo_jax.runtime.files import replace_file
from dimo_jax.runtime.strict_json import encode

NUM_BINS = 50  # of a histogram


def encode_row(row: Mapping[str, Any]) -> str:
    """One line of strict JSON, without the newline; see `strict_json.encode`."""
    return encode(row, ensure_ascii=False)


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Reads `metrics.jsonl`. A last line without a newline, which a killed run leaves, is not a row.

    Raises:
      UserError: no such file, or another line is no JSON object with an integer `step`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a metrics.jsonl")
    return [row for _, row in _parse(path.read_bytes(), path)]


def _parse(data: bytes, path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is not JSON, expected one object per line") from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise UserError(f"{path}: line {number} has no integer 'step', expected one in every line")
        rows.append((line + b"\n", row))
    return rows


class MetricsLog:
    """Appends rows to a JSON Lines file; every row is flushed, so that a killed run loses at most the last.

    A context manager. An existing file is continued. If its last line is torn (no newline at its end), that line is
    removed and a warning says so.
    """

    def __init__(self, path: Path | str):
        """Args:
        path: the file, by custom `metrics.jsonl`; its folder is created.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._remove_torn_line()
        self._file = self.path.open("ab")

    def _remove_torn_line(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        end = data.rfind(b"\n") + 1
        if end != len(data):
            logging.warning("%s: removed an unfinished last line of %d bytes", self.path, len(data) - end)
            with self.path.open("rb+") as file:
                file.truncate(end)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one row, `{"step": step, **values}`, encoded by `encode_row`.

        Args:
          step: counts over all stages, so that it only grows within a run.
          values: names to numbers (Python, numpy or JAX), texts, lists or mappings; `step` is not among them. By
            custom `stage` (a text), `loss`, `loss/<term>`, `psnr`, `seconds`.
        """
        if "step" in values:
            raise ValueError("'step' stands among the values, expected it as the first argument only")
        self._file.write(encode_row({"step": int(step), **values}).encode() + b"\n")
        self._file.flush()

    def truncate_after(self, step: int) -> int:
        """Drops the rows later than a restored step, so that the resumed run does not write them twice. Atomic.

        Args:
          step: the last step to keep.

        Returns:
          The number of rows dropped.

        Raises:
          UserError: the file has a line that is no row; it is left as it is.
        """
        self._file.close()
        try:
            rows = _parse(self.path.read_bytes(), self.path)
            kept = [line for line, row in rows if row["step"] <= step]
            if len(kept) < len(rows):
                with replace_file(self.path) as temporary:
                    temporary.write_bytes(b"".join(kept))
        finally:
            self._file = self.path.open("ab")
        return len(rows) - len(kept)

    def close(self) -> None:
        """Closes the file; a later `write` is an error."""
        self._file.close()

    def __enter__(self) -> Self:
        """Gives the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self.close()


class Board:
    """Writes TensorBoard event files. A context manager."""

    def __init__(self, folder: Path | str):
        """Args:
        folder: where the event files lie; created. Every process writes one of its own.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Not SummaryWriter: a thread writes its events, and once that has died of a full disk, adding to it hangs.
        self._writer = EventsWriter(str(Path(folder) / "events"), filename_suffix=f".{os.getpid()}")

    def resume(self, step: int) -> None:
        """Lets TensorBoard hide what earlier processes wrote for steps later than `step`."""
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(Event(step=step, wall_time=time.time(), **what))
        self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes numbers; names with a slash are grouped by what stands before it. NaN and infinity are kept."""
        for name, value in values.items():
            self._write(step, summary=summary.scalar(name, float(value)))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes one image [H,W,3] uint8."""
        self._write(step, summary=summary.image(name, check_frames(image, rank=3), dataformats="HWC"))

    def histogram(self, step: int, name: str, values: np.ndarray | Iterable[float]) -> None:
        """Writes the distribution of the finite values of an array of any shape.

        A histogram has no place for NaN and infinity: their number goes to the scalar `<name>/num_non_finite`,
        written whenever it is not 0. Without finite values there is no histogram.
        """
        flat = np.asarray(values, np.float32).ravel()
        finite = flat[np.isfinite(flat)]
        if len(finite) < len(flat):
            self._write(step, summary=summary.scalar(f"{name}/num_non_finite", len(flat) - len(finite)))
        if len(finite):
            self._write(step, summary=summary.histogram(name, finite, NUM_BINS))

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()

    def __enter__(self) -> Self:
        """Gives the board itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flushes and closes the event file."""
        self.close()
