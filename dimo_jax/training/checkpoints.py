"""Checkpoints: written by orbax in a thread, complete or absent, checked when read.

workdir/checkpoints/<step>/default/        the state, as orbax writes it
workdir/checkpoints/<step>/notes.json      what the loop remembers beside the state
workdir/checkpoints/<step>/manifest.json   size and sha256 of every file
workdir/damaged/<step>/                    checkpoints that could not be read when a run went on
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from dimo_jax.core.errors import UserError, WriteFailed
from dimo_jax.runtime import manifest
from dimo_jax.runtime.files import read_json, write_json

NOTES_FILE = "notes.json"
_STATE, _PART = "default", ".{}.part"
_ORBAX_METADATA = "_CHECKPOINT_METADATA"  # in folders that orbax's own manager wrote, for runs without manifests


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints`; a context manager that waits for what is being written.

    Of several processes, the first writes and all read. A checkpoint appears under its step's name once all of it is on
    the disk; until then it is a hidden folder, which the next run removes.
    """

    def __init__(self, workdir: Path, *, keep: int = 3, owner: bool = False) -> None:
        """Args:
        workdir: the run's folder; nothing is made in it before the first save.
        keep: the latest so many stay, and the best besides.
        owner: this process alone writes here: `restore_latest` then also removes what a killed run left half-written,
          and sets damaged checkpoints aside.
        """
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._keep, self._owner = keep, owner
        self._thread: threading.Thread | None = None
        self._failure: tuple[int, Exception] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()  # another error is on its way to the user already

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, latest first."""
        if not self.folder.is_dir():
            return []
        return sorted((int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()), reverse=True)

    def notes(self, step: int) -> dict[str, Any]:
        """What was saved beside the state of `step`; empty for runs that had no notes yet."""
        return read_json(self.folder / str(step) / NOTES_FILE) or {}

    def best(self) -> int | None:
        """The step with the highest `score` in its notes, the later one of equals; None where no step has one."""
        scores = {step: self.notes(step).get("score") for step in self.steps()}
        return max((step for step in scores if scores[step]), key=lambda step: (scores[step], step), default=None)

    def save(self, step: int, state: Any, *, notes: Mapping[str, Any] | None = None) -> None:
        """Copies `state` and starts writing it; returns before it is on disk.

        Args:
          step: its name; a step that there is a checkpoint of is not saved again.
          state: pytree of arrays, none of them of size 0.
          notes: what else a resumed run must know, as JSON has it. `score`, a list of numbers compared from the
            first on, decides which checkpoint is the best.

        Raises:
          WriteFailed: the checkpoint before this one could not be written.
        """
        self.wait()
        if jax.process_index() != 0 or step in self.steps():
            return
        # Copied, because the step that follows overwrites donated buffers, which a view would share on a CPU.
        host = jax.tree.map(lambda x: np.array(x, copy=True), state)
        self._thread = threading.Thread(target=self._write, args=(step, host, dict(notes or {})), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when what was saved is on disk.

        Raises:
          WriteFailed: it could not be written; the checkpoints before it are as they were.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            step, error = self._failure
            self._failure = None
            latest = next(iter(self.steps()), None)
            intact = f"checkpoint {latest} is intact" if latest is not None else "there is none before it"
            raise WriteFailed(
                f"{self.folder}: checkpoint {step} could not be written ({_reason(error)}); {intact}, and with room to "
                "write the same command goes on from there"
            ) from error

    def _write(self, step: int, state: Any, notes: Mapping[str, Any]) -> None:
        part = self.folder / _PART.format(step)
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            _checkpointer().save(part / _STATE, args=ocp.args.StandardSave(state))
            write_json(notes, part / NOTES_FILE)
            manifest.write_manifest(part)
            part.rename(self.folder / str(step))
            manifest.sync_folder(self.folder)
            self._delete_old()
        # Whatever orbax raises here would otherwise end a thread, not the run.
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            self._failure = step, error

    def _delete_old(self) -> None:
        best = self.best()
        for step in self.steps()[self._keep :]:
            if step != best:
                # Renamed first, because a folder that is half deleted would look like a damaged checkpoint.
                gone = self.folder / _PART.format(step)
                (self.folder / str(step)).rename(gone)
                shutil.rmtree(gone)

    def restore(self, step: int, template: Any) -> Any:
        """Reads the state of `step`, on this process's first device.

        Args:
          step: of a checkpoint.
          template: pytree of arrays or ShapeDtypeStructs, with the state's shapes and types.

        Raises:
          ValueError: files are damaged or missing, or hold other shapes or types than `template`.
        """
        folder = self.folder / str(step)
        if (folder / manifest.MANIFEST_FILE).exists() or not (folder / _ORBAX_METADATA).exists():
            manifest.verify(folder)
        empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
        state = _checkpointer().restore(folder / _STATE, args=ocp.args.StandardRestore(empty))
        for (path, found), expected in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(empty), strict=True):
            if (found.shape, found.dtype) != (expected.shape, expected.dtype):
                raise ValueError(
                    f"{jax.tree_util.keystr(path)}: found {found.dtype}{list(found.shape)}, expected "
                    f"{expected.dtype}{list(expected.shape)}"
                )
        return jax.device_put(state, jax.local_devices()[0])

    def restore_latest(self, template_at: Any, *, before: int | None = None) -> tuple[int, Any] | None:
        """The latest state that can be read, or None where there is none.

        A damaged checkpoint is named in the log, and the one before it is used.

        Args:
          template_at: function from a step to the state's template.
          before: only checkpoints of earlier steps count.

        Raises:
          UserError: there are checkpoints but none can be read.
        """
        steps = [step for step in self.steps() if before is None or step < before]
        if self._owner:
            self._remove_unfinished()
        for step in steps:
            try:
                state = self.restore(step, template_at(step))
            # Damaged bytes can make the reader raise anything.
            except Exception as error:
                logging.warning("checkpoint %d is damaged or of another config (%s)", step, _reason(error))
                continue
            if self._owner:
                self._set_aside([later for later in steps if later > step])
            return step, state
        if steps:
            raise UserError(f"{self.folder}: none of the checkpoints {steps} can be read with this config")
        return None

    def _remove_unfinished(self) -> None:
        for part in self.folder.glob(_PART.format("*")):
            logging.warning("removed %s, a checkpoint that was not written (or deleted) to its end", part)
            shutil.rmtree(part)

    def _set_aside(self, steps: list[int]) -> None:
        """Makes room for the steps that will be taken again, without destroying what may still be of use."""
        for step in steps:
            target = self.folder.parent / "damaged" / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            (self.folder / str(step)).rename(target)
            logging.warning("moved checkpoint %d to %s", step, os.path.relpath(target, self.folder.parent))


def _checkpointer() -> ocp.Checkpointer:
    """Writes and reads on this process alone, whatever other processes do."""
    process = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process{process}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _reason(error: BaseException) -> str:
    """The first line of what an error says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
