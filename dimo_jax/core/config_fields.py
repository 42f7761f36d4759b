"""Single fields of a config, read and checked: what is wrong is said with its key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve


def get(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; raises UserError where there is none."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, (Mapping, ConfigDict)) or part not in value:
            raise UserError(f"config.{key}: not found in the config, expected as in configs/dimo.py")
        value = value[part]
    return value


def check_finite(value: Any, key: str) -> None:
    """Raises UserError for NaN and infinity: JSON, in which a run keeps its config, has neither."""
    if isinstance(value, (Mapping, ConfigDict)):
        for name, each in value.items():
            check_finite(each, f"{key}.{name}")
    elif isinstance(value, (tuple, list)):
        for index, each in enumerate(value):
            check_finite(each, f"{key}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}: found {value}, expected a finite number")


def check_count(value: Any, least: int, key: str) -> None:
    """Raises UserError where the value of a key is no integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"config.{key}: found {value!r}, expected an integer of at least {least}")


def check_positive(value: Any, bound: float | None, key: str) -> None:
    """Raises UserError where the value of a key is no number above 0, and below `bound` if there is one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < (float("inf") if bound is None else bound):
        expected = "a number above 0" + (f" and below {bound}" if bound else "")
        raise UserError(f"config.{key}: found {value!r}, expected {expected}")


def check_path(given: str, key: str, expected: str) -> Path:
    """The file or folder that the value of a key names; raises UserError where none is given, or it is not there."""
    if not given:
        raise UserError(f"config.{key}: not given, expected {expected}")
    if not Path(given).exists():
        raise UserError(f"config.{key}: no such file or folder ({given}), expected {expected}")
    return Path(given)


def check_phases(phases: Any, key: str) -> None:
    """Raises UserError where the value of a key is no schedule of resolutions."""

    def is_pair(phase: Any) -> bool:
        return isinstance(phase, (tuple, list)) and len(phase) == 2 and all(type(number) is int for number in phase)

    valid = isinstance(phases, (tuple, list)) and len(phases) > 0 and all(is_pair(phase) for phase in phases)
    if valid:
        steps, sizes = zip(*phases)
        valid = steps[0] == 0 and list(steps) == sorted(set(steps)) and min(sizes) > 0
    if not valid:
        raise UserError(
            f"config.{key}: found {phases!r}, expected pairs ((first step, pixels), ...), the first at step 0 and the "
            "steps ascending"
        )


def check_fields(
    config: Mapping[str, Any],
    section: str,
    *,
    counts: Mapping[str, int],
    positive: Mapping[str, float | None],
    slots: Sequence[str] = (),
) -> None:
    """Checks fields of a section (or of the whole config, ""), by their keys in it.

    Args:
      config: whole.
      section: key of the part that they stand in.
      counts: the least that each integer may be.
      positive: the bound that each number above 0 must stay under, or None.
      slots: components that can be resolved.

    Raises:
      UserError: the first that is wrong.
    """
    prefix = f"{section}." if section else ""
    for key, least in counts.items():
        check_count(get(config, prefix + key), least, prefix + key)
    for key, bound in positive.items():
        check_positive(get(config, prefix + key), bound, prefix + key)
    for key in slots:
        check_slot(get(config, prefix + key), prefix + key)


def check_slot(spec: Any, key: str) -> None:
    """Raises UserError where the value of a key is no component that can be resolved."""
    if not isinstance(spec, (Mapping, ConfigDict)):
        raise UserError(f'config.{key}: found {spec!r}, expected dict(fn="module:function", ...)')
    resolve(spec, key=key)
