"""The programs of a preset, as `worker` asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from bench.compile.programs import Program, list_programs
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError


def list_of_preset(*, preset: str, changes: Mapping[str, Any], **how: Any) -> list[Program]:
    """See `programs.list_programs`; `changes` are config keys and their values.

    Raises:
      UserError: no such preset or key, besides.
    """
    return list_programs(read_preset(get_config, preset, changes), **how)


def read_preset(get: Callable[[str], ConfigDict], preset: str, changes: Mapping[str, Any]) -> ConfigDict:
    """The config of a preset with changes.

    Raises:
      UserError: no such preset or key.
    """
    try:
        config = get(preset)
    except ValueError as error:
        raise UserError(f"--preset={preset}: {error}") from error
    config.lock()  # refuses keys that it has not
    for key, value in changes.items():
        try:
            config.update_from_flattened_dict({key: value})
        except (AttributeError, KeyError) as error:
            raise UserError(f"--set={key}={value}: preset {preset} has no such key") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"--set={key}={value}: {error}") from error
    return config
