"""How a run occupies its folder, and what it leaves there however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from dimo_jax.core.errors import NO_ROOM, Stopped, UserError, WriteFailed
from dimo_jax.core.types import Batch
from dimo_jax.runs.recorder import log_to, write_to_log
from dimo_jax.runtime import status
from dimo_jax.runtime.files import write_json
from dimo_jax.runtime.lock import hold
from dimo_jax.training.tracker import LossNotFinite

FAILURES = "nonfinite"


@contextlib.contextmanager
def occupy(folder: Path) -> Iterator[None]:
    """Makes `folder` this process's: holds its lock, logs to `train.log`, and notes in `status.json` how the run ends.

    Of a run's several processes the first does so; for the others it is an empty context.

    Raises:
      UserError: another process runs there, or it cannot be written to.
      WriteFailed: in place of an OSError that says that the disk takes no more.
    """
    if jax.process_index() != 0:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir={folder}: cannot be made ({error.strerror}), expected a folder to write to"
        ) from error
    with hold(folder) as held, log_to(folder), _noting_end(folder):
        if held.before is not None:
            logging.info("the run before (%s) ended without a word, as after kill -9 or a power cut", held.before)
        status.write_status(folder, status.TRAINING)
        yield
        status.write_status(folder, status.FINISHED)


@contextlib.contextmanager
def _noting_end(folder: Path) -> Iterator[None]:
    def note(state: str, error: BaseException) -> None:
        message = " ".join(str(error).split()) or type(error).__name__
        write_to_log(f"{state}: {message}")
        # The error itself is what the user must see, even where it cannot be noted.
        with contextlib.suppress(OSError):
            status.write_status(folder, state, message=message)

    try:
        yield
    except Stopped as error:
        note(status.STOPPED, error)
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            note(status.FAILED, error)
            raise
        where = error.filename or folder
        failed = WriteFailed(
            f"{where}: cannot be written ({error.strerror}); the last checkpoint is intact, and with room to write the "
            "same command goes on from there"
        )
        note(status.FAILED, failed)
        raise failed from error
    except Exception as error:
        note(status.FAILED, error)
        raise


def save_failure(error: LossNotFinite, folder: Path, steps: Sequence[int]) -> LossNotFinite:
    """Writes the batch of a bad step to `nonfinite/step_<step>.npz`, with a JSON file that says what was bad.

    Args:
      error: what training ended with.
      folder: the workdir.
      steps: of the checkpoints there, latest first.

    Returns:
      The error to raise: the same, telling also where the batch is and what the last good checkpoint is.
    """
    stem = folder / FAILURES / f"step_{error.step:06d}"
    stem.parent.mkdir(exist_ok=True)
    np.savez_compressed(stem.with_suffix(".npz"), **named_arrays(error.batch))
    facts = {"step": error.step, "terms": error.terms, "message": str(error)}
    write_json(facts, stem.with_suffix(".json"))
    last = f"checkpoint {steps[0]} is intact" if steps else "there is no checkpoint yet"
    told = LossNotFinite(
        error.step,
        error.terms,
        f"{error}; its batch is in {stem.with_suffix('.npz')}, {last}, and --app=replay --workdir={folder} looks for "
        "the cause",
    )
    told.batch = error.batch
    return told


def named_arrays(batch: Batch | None) -> dict[str, Any]:
    """The arrays of a batch by their names, such as "images" and "cameras.focal"."""
    leaves = jax.tree.leaves_with_path(batch)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}
