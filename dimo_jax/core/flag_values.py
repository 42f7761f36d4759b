"""What several apps read from their flags."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import shorten, split_list

LONGEST = 150  # bytes of a file's name that names of motions may make up


def parse_numbers(name: str, text: str, *, count: int | None = None) -> tuple[float, ...]:
    """Numbers separated by commas.

    Args:
      name: of the flag, for errors.
      text: its value.
      count: how many there must be; None for any.

    Raises:
      UserError: something else than numbers, or another count of them.
    """
    expected = "numbers" if count is None else f"{count} numbers"
    try:
        numbers = tuple(float(part) for part in split_list(text))
    except ValueError as error:
        raise UserError(f"--{name}: found {text!r}, expected {expected} separated by commas") from error
    if not all(map(math.isfinite, numbers)) or (count is not None and len(numbers) != count):
        raise UserError(f"--{name}: found {text!r}, expected {expected} separated by commas")
    return numbers


def check_least(least: float, **values: float) -> None:
    """Raises UserError for the first value below `least` or not finite; the values go by the names of their flags."""
    for name, value in values.items():
        if not (value >= least and math.isfinite(value)):
            raise UserError(f"--{name}: found {value:g}, expected at least {least:g}")


def check_among(known: Sequence[Any], **values: Any) -> None:
    """Raises UserError for the first value that is not `known`; the values go by the names of their flags."""
    for name, value in values.items():
        if value not in known:
            raise UserError(f"--{name}: found {value!r}, expected {describe_choices(known, value)}")


def describe_choices(known: Sequence[Any], found: Any, *, how: str = "one of") -> str:
    """What was expected in place of a wrong value: "one of a, b", and the nearest where one is near.

    Args:
      known: all values there are; "" among them, which stands for none, is not told.
      found: the wrong value.
      how: "one of", or "some of" where several may be given.
    """
    names = [str(choice) for choice in known if choice != ""]
    near = find_nearest(str(found), names)
    return f"{how} {', '.join(names)}" + (f"; did you mean {near!r}?" if near else "")


def find_nearest(found: str, known: Sequence[str]) -> str:
    """The known name that is most like a mistyped one, whatever their case; "" where none is like it."""
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(found.casefold(), [*folded], n=1)
    return folded[near[0]] if near else ""


def check_between(least: float, most: float, **values: float) -> None:
    """Raises UserError for the first value out of `least` to `most`; the values go by the names of their flags."""
    for name, value in values.items():
        if not least <= value <= most:
            raise UserError(f"--{name}: found {value:g}, expected {least:g} to {most:g}")


def check_folder(path: str | os.PathLike[str], flag: str) -> None:
    """Checks that a folder exists or can be made.

    Args:
      path: of the folder.
      flag: name of the flag that gave it, for errors.

    Raises:
      UserError: it, or what it would lie in, is a file or may not be written to.
    """
    folder = Path(path)
    nearest = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not nearest.is_dir():
        where = "" if nearest == folder else f" at {nearest}"
        raise UserError(f"--{flag}={folder}: found a file{where}, expected a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"--{flag}={folder}: found no permission to write to {nearest}, expected a folder to write to")


def check_use(given: Mapping[str, Any], defaults: Mapping[str, Any], *, needs: str) -> None:
    """Checks that the user has left alone what means nothing without other flags.

    Args:
      given: values by the names of their flags.
      defaults: those of the flags to check; more are ignored.
      needs: what they would mean something with, for errors.

    Raises:
      UserError: one of them has another value.
    """
    for name, default in defaults.items():
        if given[name] != default:
            raise UserError(f"--{name}: found {given[name]!r}, expected {needs} with it")


def join_names(names: Sequence[str]) -> str:
    """Names of motions as one part of a file's name: all of them or, where that is long, the first and the last."""
    whole = "_".join(names)
    if len(whole.encode()) <= LONGEST:
        return whole
    first, last = (shorten(name, LONGEST // 2 - 10) for name in (names[0], names[-1]))
    return f"{first}_{len(names) - 2}_more_{last}" if len(names) > 2 else f"{first}_{last}"
