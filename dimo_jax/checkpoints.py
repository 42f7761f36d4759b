"""Checkpoints: orbax, asynchronous and atomic, with the config beside the state; and models in one file."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.errors import UserError

CONFIG_FILE = "config.json"
MODEL_VERSION = 1
MAX_MODEL_BYTES = 4 << 30  # of a model file, after decompression
_OWN = "dimo_jax."


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
    temporary = workdir / f".{CONFIG_FILE}.part"
    temporary.write_text(json.dumps(to_plain(config), indent=1, sort_keys=True))
    temporary.replace(workdir / CONFIG_FILE)


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
        return ConfigDict(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise UserError(
            f"--workdir={workdir}: no {CONFIG_FILE} in it, expected the workdir of a training run"
        ) from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error


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
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_MODEL_BYTES:
            raise UserError(f"{path}: {size} bytes when decompressed, expected {MAX_MODEL_BYTES} at most")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        version, step = int(arrays.pop("version")), int(arrays.pop("step"))
        config, facts = (json.loads(str(arrays.pop(name))) for name in ("config", "facts"))
        if not isinstance(config, dict) or not isinstance(facts, dict):
            raise ValueError("config and facts are not objects")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(
            f"{path}: not a model file ({reason}), expected one of --app=export --format=checkpoint"
        ) from error
    if version != MODEL_VERSION:
        raise UserError(f"{path}: found a model file of version {version}, expected {MODEL_VERSION}")
    for key, name in _find_functions(config, "config"):
        if not str(name).startswith(_OWN):
            raise UserError(
                f"{path}: {key} names {str(name)[:80]!r}, expected a function of dimo_jax in a model file; models with "
                "components of your own are used from the run's folder"
            )
    return ModelFile(ConfigDict(config), facts, step, arrays)


def _find_functions(config: Any, key: str) -> list[tuple[str, Any]]:
    """All `fn` of a config, with the keys that lead there."""
    if isinstance(config, list):
        return [found for index, each in enumerate(config) for found in _find_functions(each, f"{key}[{index}]")]
    if not isinstance(config, dict):
        return []
    own = [(f"{key}.fn", config["fn"])] if "fn" in config else []
    return own + [found for name, each in config.items() for found in _find_functions(each, f"{key}.{name}")]


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints`; a context manager that waits for what is being written."""

    def __init__(self, workdir: Path, *, keep: int = 3) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(Path(workdir).absolute() / "checkpoints", options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, latest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, state: Any) -> None:
        """Starts writing `state`; returns before it is on disk."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, step: int, template: Any) -> Any:
        """Reads the state of `step`; shapes and types must be those of `template` (arrays or ShapeDtypeStructs)."""
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), template)
        return self._manager.restore(step, args=ocp.args.StandardRestore(placed))

    def restore_latest(self, template_at: Any) -> tuple[int, Any] | None:
        """The latest state that can be read, or None where there is none.

        A damaged checkpoint is named in the log, and the one before it is used.

        Args:
          template_at: function from a step to the state's template.

        Raises:
          UserError: there are checkpoints but none can be read.
        """
        steps = self.steps()
        for step in steps:
            try:
                return step, self.restore(step, template_at(step))
            except (ValueError, OSError, KeyError, FileNotFoundError) as error:
                first_line = (str(error).splitlines() or [type(error).__name__])[0]
                logging.warning("checkpoint %d is damaged or of another config (%s)", step, first_line[:200])
        if steps:
            raise UserError(f"{self._manager.directory}: none of the checkpoints {steps} can be read with this config")
        return None
