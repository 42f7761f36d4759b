"""The config of a run, kept in its folder: every later command reads how the model was trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.core.renames import rename_functions
from dimo_jax.runtime.files import write_json
from dimo_jax.training.model_file import load_model_file

CONFIG_FILE = "config.json"


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


def is_of(config: Mapping[str, Any], system: str) -> bool:
    """Whether a config trains the system of that name, "package.module:Class"."""
    return bool((config.get("system") or {}).get("fn") == system)


def find_trained(config: ConfigDict, system: str, section: str) -> str:
    """The workdir that a config for asking a trained model names, as `config.SECTION.trained`.

    Args:
      config: of configs/SECTION.py.
      system: that it has to be of, see `is_of`.
      section: of the config.

    Raises:
      UserError: it is of another system, or names none that is there.
    """
    if not is_of(config, system):
        raise UserError(f"--config: found the config of another system, expected configs/{section}.py")
    found, key = str(config[section].trained), f"config.{section}.trained"
    expected = f"the workdir of a run of configs/{section}.py (no weights are shipped)"
    if not found:
        raise UserError(f"{key}: not given, expected {expected}")
    if not Path(found).is_dir():
        raise UserError(f"{key}: no such folder ({found}), expected {expected}")
    return found


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
        return ConfigDict(rename_functions(dict(json.loads(path.read_text()))))
    except FileNotFoundError as error:
        raise UserError(
            f"--workdir={workdir}: no {CONFIG_FILE} in it, expected the workdir of a training run"
        ) from error
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}), expected a run's config") from error
