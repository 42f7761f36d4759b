"""`status.json`: how far a run is, written by the run and read by `--app=status` and by people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimo_jax.runtime.files import read_json, write_json

STATUS_FILE = "status.json"
# What `state` may be; a run that was killed leaves one of the first two.
TRAINING, SHOWING, FINISHED, STOPPED, FAILED = "training", "showing", "finished", "stopped", "failed"


def write_status(folder: Path, state: str, **facts: Any) -> None:
    """Replaces the state, adds `facts` to those there, and notes the time.

    Raises:
      OSError: it cannot be written.
    """
    before = read_status(folder)
    write_json({**before, **facts, "state": state, "time": time.time()}, folder / STATUS_FILE)


def read_status(folder: Path) -> Mapping[str, Any]:
    """The facts in `status.json`; empty where there is none that can be read."""
    return read_json(folder / STATUS_FILE) or {}
