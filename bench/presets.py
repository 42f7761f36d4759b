"""Config files by path."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

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
