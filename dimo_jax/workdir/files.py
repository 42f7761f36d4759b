"""Small files that other processes may read at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(value: Mapping[str, Any], path: Path, *, durable: bool = False) -> None:
    """Writes a JSON file that appears whole or not at all.

    Args:
      value: what the file shall hold.
      path: the file; an older one is replaced.
      durable: wait until it is on the disk, so that it survives a power cut, too.

    Raises:
      OSError: it cannot be written; an older file is unharmed.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("w") as file:
            file.write(json.dumps(value, indent=1))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file or no object in it."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
