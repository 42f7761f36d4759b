"""Config files by path, and changes of single keys."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError


def load_module(spec: str) -> tuple[Any, str]:
    """The module of a config file "path.py:string" and its config string.

    Raises:
      UserError: no such file.
    """
    path, _, preset = spec.partition(":")
    if not Path(path).is_file():
        raise UserError(f"--configs: no file {path!r}, expected config files such as configs/dimo.py:demo")
    loader = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    return module, preset


def apply_change(config: ConfigDict, change: str) -> None:
    """Sets a key of `config`, as "KEY=VALUE" says: the value is read as Python where it is that, else as text.

    Raises:
      UserError: there is no such key, or it takes no such value.
    """
    key, _, text = change.partition("=")
    *path, last = key.split(".")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    try:
        for part in path:
            config = config[part]
        config[last]  # a key that nothing reads would change nothing in silence
        config[last] = value
    except (KeyError, TypeError) as error:
        raise UserError(f"--set={change}: {error.args[0]}; expected KEY=VALUE of a key of the config") from error
