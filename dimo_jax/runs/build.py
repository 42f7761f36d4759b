"""From a config to the system that it trains."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.data.dataset import Dataset
from dimo_jax.training.checks import check_engine
from dimo_jax.training.system import System
from dimo_jax.training.trainer import Trainer

DEFAULT = dict(fn="dimo_jax.systems.dimo.system:Dimo")  # of runs whose config names none
STEPS = ("num_steps", "warmup_steps", "start", "stop")  # of a stage, its learning rates and its terms
PERIODS = ("_from", "_until", "_every")


def _find(config: Mapping[str, Any]) -> functools.partial[System]:
    return resolve(config.get("system") or DEFAULT, key="system")


def check_system(config: Mapping[str, Any]) -> None:
    """Lets the system that `config.system` names check what it reads of the config.

    Raises:
      UserError: it cannot be resolved, or finds a mistake.
    """
    _find(config).func.check(config)  # type: ignore[attr-defined]


def build_system(config: ConfigDict, dataset: Dataset) -> System:
    """The system that `config.system` names, for a dataset.

    Raises:
      UserError: it, or a component of it, cannot be resolved.
    """
    return _find(config)(config, dataset)


def make_trainer(config: ConfigDict, dataset: Dataset) -> Trainer:
    """What trains `config.system` on a dataset, step by step and in memory: no workdir, no files.

    Raises:
      UserError: the config is wrong, or does not fit the dataset.
    """
    check_engine(config)
    check_system(config)
    return Trainer(config, build_system(config, dataset), dataset)


def load_preset(name: str = "dimo:demo") -> ConfigDict:
    """The config of "FILE:PRESET", as `--config=configs/FILE.py:PRESET` gives it.

    Raises:
      UserError: there is no such file or preset.
    """
    file, _, preset = name.partition(":")
    try:
        module = importlib.import_module(f"dimo_jax.configs.{file}")
        return module.get_config(preset) if preset else module.get_config()
    except (ImportError, ValueError) as error:
        raise UserError(f"preset {name!r}: {error}") from error


def stretch(config: ConfigDict, factor: float) -> ConfigDict:
    """The same training in `factor` times as many steps: what happens at a step of a stage happens at its multiple.

    Scaled are, in every stage, the number of steps, first steps of phases, learning rates, `*_from`, `*_until`,
    `*_every`, and where terms begin and end. Steps that were 0 stay so, others stay at least 1, and a term that has an
    end ends after it begins. `refresh_every` stays: how fast a motion graph ages depends on steps, not on their share.

    Raises:
      UserError: a config without stages that have phases, as those of other systems than DIMO are.
    """
    stretched = config.copy_and_resolve_references()
    stages = [stage for stage in stretched.values() if isinstance(stage, ConfigDict) and "phases" in stage]
    if not stages:
        raise UserError("config: found no stages with phases, expected a config such as configs/dimo.py to stretch")
    for stage in stages:
        # Of phases that fall on one step the last counts.
        stage.phases = tuple({_scale(first, factor): size for first, size in stage.phases}.items())
        _stretch_fields(stage, factor)
    return stretched


def _stretch_fields(fields: ConfigDict, factor: float) -> None:
    ends = fields.get("stop") is not None and fields.stop > fields.get("start", 0)
    for name, value in fields.items():
        if isinstance(value, ConfigDict):
            _stretch_fields(value, factor)
        elif isinstance(value, int) and name != "refresh_every" and (name in STEPS or name.endswith(PERIODS)):
            fields[name] = _scale(value, factor)
    if ends:
        fields.stop = max(fields.stop, fields.get("start", 0) + 1)


def _scale(step: int, factor: float) -> int:
    return max(1, round(step * factor)) if step else 0
