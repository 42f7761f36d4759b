"""JSON as its standard has it: without the NaN and Infinity that Python's writer would put there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

FIELD = "non_finite"


def encode(value: Mapping[str, Any], *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """A mapping as strict JSON.

    JSON has no NaN or infinity: such numbers become null, and a field `non_finite` maps each one's name to "nan", "inf"
    or "-inf", so that nothing is lost.

    Args:
      value: names to numbers, texts, arrays (also of numpy and JAX), lists or mappings.
      indent: spaces a level; None writes one line.
      ensure_ascii: escapes what is not ASCII.
    """
    found: dict[str, str] = {}
    clean = _without_non_finite(_plain(value), "", found)
    if found:
        clean[FIELD] = found
    return json.dumps(clean, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def _plain(value: Any) -> Any:
    """Turns arrays and numpy scalars into what JSON has; the values' own precision is kept."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "dtype") else value


def _without_non_finite(value: Any, name: str, found: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _without_non_finite(v, f"{name}.{k}" if name else k, found) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_non_finite(v, f"{name}[{i}]", found) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        found[name] = str(value)
        return None
    return value
