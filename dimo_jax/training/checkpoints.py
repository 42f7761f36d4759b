"""Checkpoints: written by orbax in a thread, complete or absent, checked when read; and models in one file.

workdir/checkpoints/<step>/default/        the state, as orbax writes it
workdir/checkpoints/<step>/notes.json      what the loop remembers beside the state
workdir/checkpoints/<step>/manifest.json   size and sha256 of every file
workdir/damaged/<step>/                    checkpoints that could not be read when a run went on
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError, WriteFailed
from dimo_jax.core.renames import current_name
from dimo_jax.io.npz import read_npz
from dimo_jax.runtime import manifest
from dimo_jax.runtime.files import read_json, write_json

CONFIG_FILE = "config.json"
MODEL_VERSION = 1
MAX_MODEL_BYTES = 4 << 30  # of a model file, after decompression
# Packages that a config's slots may name where it comes from outside.
_COMPONENTS = tuple(
    f"dimo_jax.{name}." for name in ("data.puppet", "losses", "metrics", "render", "skinning", "systems", "training")
)
NOTES_FILE = "notes.json"
_STATE, _PART = "default", ".{}.part"
_ORBAX_METADATA = "_CHECKPOINT_METADATA"  # in folders that orbax's own manager wrote, for runs without manifests


def config_sha256(config: ConfigDict) -> str:
    """Hash of everything that a config says, independent of the order of its fields."""
    return hashlib.sha256(json.dumps(to_plain(config), sort_keys=True).encode()).hexdigest()


def to_plain(config: Any) -> Any:
    """A config as plain dicts and lists, as JSON holds them."""
    if isinstance(config, (ConfigDict, Mapping)):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, (tuple, list)):
        return [to_plain(value) for value in config]
    return config


def save_config(config: ConfigDict, workdir: Path) -> None:
    """Writes the config into `workdir`, atomically."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(to_plain(config), workdir / CONFIG_FILE)


def load_config(workdir: Path) -> ConfigDict:
    """Reads the config that trained the model in `workdir`, a run's folder or a model file.

    Raises:
      UserError: no such folder or file, or no readable config in it.
    """
    if Path(workdir).is_file():
        return load_model_file(Path(workdir)).config
    path = Path(workdir) / CONFIG_FILE
    if not Path(workdir).is_dir():
        raise UserError(f"--workdir={workdir}: no such folder, expected the workdir of a training run")
    try:
        return ConfigDict(_rename_functions(dict(json.loads(path.read_text()))))
    except FileNotFoundError as error:
        raise UserError(
            f"--workdir={workdir}: no {CONFIG_FILE} in it, expected the workdir of a training run"
        ) from error
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}), expected a run's config") from error


@dataclass(frozen=True)
class ModelFile:
    """What `export.model_file.write_model` wrote."""

    config: ConfigDict
    facts: dict[str, Any]
    step: int
    arrays: dict[str, np.ndarray]  # "params/..." by path, and "alive"


def load_model_file(path: Path) -> ModelFile:
    """Reads a trained model from one file; nothing in it is unpickled.

    Raises:
      UserError: not such a file, too large, or its config names a function outside of dimo_jax: a model that somebody
        sends must not choose what is run.
    """
    expected = "one of --app=export --format=checkpoint"
    arrays = read_npz(path, f"a model file, {expected}", max_bytes=MAX_MODEL_BYTES)
    try:
        version, step = int(arrays.pop("version")), int(arrays.pop("step"))
        config, facts = (json.loads(str(arrays.pop(name))) for name in ("config", "facts"))
        if not isinstance(config, dict) or not isinstance(facts, dict):
            raise ValueError("config and facts are not objects")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path}: not a model file ({reason}), expected {expected}") from error
    if version != MODEL_VERSION:
        raise UserError(f"{path}: found a model file of version {version}, expected {MODEL_VERSION}")
    config = _rename_functions(config)
    for key, name in _find_functions(config, "config"):
        if not _is_component(name):
            raise UserError(
                f"{path}: {key} names {str(name)[:80]!r}, expected a function of dimo_jax in a model file; models with "
                "components of your own are used from the run's folder"
            )
    return ModelFile(ConfigDict(config), facts, step, arrays)


def _rename_functions(config: Any) -> Any:
    """A config with every `fn` under its present name."""
    if isinstance(config, list):
        return [_rename_functions(each) for each in config]
    if not isinstance(config, dict):
        return config
    return {
        key: current_name(value) if key == "fn" and isinstance(value, str) else _rename_functions(value)
        for key, value in config.items()
    }


def _is_component(name: Any) -> bool:
    """Whether `name` is "module:function" of a package with components, defined there and not imported from elsewhere.

    What a module imports is its attribute, too: through it a config could write files.
    """
    module, _, function = str(name).partition(":")
    if not module.startswith(_COMPONENTS):
        return False
    try:
        found = getattr(importlib.import_module(module), function, None)
    except (ImportError, ValueError):
        return False
    return getattr(found, "__module__", "") == module


def _find_functions(config: Any, key: str) -> list[tuple[str, Any]]:
    """All `fn` of a config, with the keys that lead there."""
    if isinstance(config, list):
        return [found for index, each in enumerate(config) for found in _find_functions(each, f"{key}[{index}]")]
    if not isinstance(config, dict):
        return []
    own = [(f"{key}.fn", config["fn"])] if "fn" in config else []
    return own + [found for name, each in config.items() for found in _find_functions(each, f"{key}.{name}")]


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
