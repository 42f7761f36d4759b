"""Config files by path, and configs of another length."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError

STEPS = ("_from", "_until", "_every")


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


def scale_steps(config: ConfigDict, share: float) -> ConfigDict:
    """The config with all that counts steps multiplied by `share`: lengths, phases, schedules and density control.

    0 stays 0, anything else stays at least 1; the motion graph is refreshed, and the run logged and saved, as often as
    before. Changes `config` and returns it.
    """
    if share == 1:
        return config

    def scaled(steps: int) -> int:
        return max(1, round(share * steps)) if steps else 0

    for stage in (config.stage1, config.stage2):
        starts: dict[int, int] = {scaled(first): size for first, size in stage.phases}
        stage.phases = tuple(sorted(starts.items()))
        for name in stage:
            if name == "num_steps" or (name.endswith(STEPS) and name != "refresh_every"):
                stage[name] = scaled(stage[name])
        for spec in (*stage.rates.values(), *stage.losses.values()):
            for name in ("num_steps", "warmup_steps", "start"):
                if isinstance(spec, ConfigDict) and name in spec:
                    spec[name] = scaled(spec[name])
            if isinstance(spec, ConfigDict) and spec.get("stop") is not None:
                spec.stop = max(scaled(spec.stop), spec.get("start", 0) + 1)
    return config
