"""Finds the config files that come with the package, for commands that run away from a checkout."""

from __future__ import annotations

from pathlib import Path

from absl import logging

from dimo_jax import configs

_FLAGS = ("--config", "-config")
_FOLDER = "configs"


def use_packaged_config(argv: list[str]) -> list[str]:
    """Puts the packaged file in place of a `--config=configs/FILE[:PRESET]` that the working folder does not have.

    Says so in the log. Everything else stays as it is; what is in neither place is left for the parser to refuse.

    Args:
      argv: a command line, with the program at its start.

    Returns:
      the command line with which to go on.
    """
    result = list(argv)
    for index, argument in enumerate(argv[1:], 1):
        name, equals, value = argument.partition("=")
        if name in _FLAGS and equals:
            result[index] = f"{name}={_find(value)}"
        elif name in _FLAGS and index + 1 < len(argv):
            result[index + 1] = _find(argv[index + 1])
    return result


def _find(value: str) -> str:
    """The value of --config with which to go on."""
    file, colon, preset = value.partition(":")
    packaged = _locate(file)
    if packaged is None or Path(file).exists():
        return value
    logging.info("--config=%s: not in this folder, so the one of the package is taken (%s)", file, packaged)
    return f"{packaged}{colon}{preset}"


def _locate(file: str) -> Path | None:
    """Where the package has "configs/FILE"; None where it has no such file."""
    path = Path(file)
    if path.is_absolute() or path.parts[:1] != (_FOLDER,) or ".." in path.parts:
        return None
    found = Path(configs.__path__[0], *path.parts[1:])
    return found if found.is_file() else None
