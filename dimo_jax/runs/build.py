"""From a config to the system that it trains."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from dimo_jax.core.resolve import resolve
from dimo_jax.data.dataset import Dataset
from dimo_jax.training.system import System

DEFAULT = dict(fn="dimo_jax.systems.dimo.system:Dimo")  # of runs whose config names none


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
