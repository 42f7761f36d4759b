"""Checkpoints: orbax, asynchronous and atomic, with the config beside the state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.errors import UserError
from dimo_jax.train.parallel import globalize, localize, shared_sharding

CONFIG_FILE = "config.json"


def config_sha256(config: ConfigDict) -> str:
    """Hash of everything that a config says, independent of the order of its fields."""
    return hashlib.sha256(json.dumps(_plain(config), sort_keys=True).encode()).hexdigest()


def _plain(config: Any) -> Any:
    if isinstance(config, (ConfigDict, Mapping)):
        return {key: _plain(value) for key, value in config.items()}
    if isinstance(config, (tuple, list)):
        return [_plain(value) for value in config]
    return config


def save_config(config: ConfigDict, workdir: Path) -> None:
    """Writes the config into `workdir`, atomically."""
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / f".{CONFIG_FILE}.part"
    temporary.write_text(json.dumps(_plain(config), indent=1, sort_keys=True))
    temporary.replace(workdir / CONFIG_FILE)


def load_config(workdir: Path) -> ConfigDict:
    """Reads the config that trained the model in `workdir`.

    Raises:
      UserError: no such folder, or no readable config in it.
    """
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
        """Starts writing `state`; returns before it is on disk. To be called by every process of a run."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(globalize(state)))

    def restore(self, step: int, template: Any) -> Any:
        """Reads the state of `step`; shapes and types must be those of `template` (arrays or ShapeDtypeStructs)."""
        sharding = shared_sharding()
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), template)
        return localize(self._manager.restore(step, args=ocp.args.StandardRestore(placed)))

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
