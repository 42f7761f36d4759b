"""Turns what absl and ml_collections say of a bad command line into one line that a user can act on."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from dimo_jax.cli.config_files import use_packaged_config
from dimo_jax.core.errors import UserError
from dimo_jax.runtime import hosts

_KINDS = {"int": "an integer", "float": "a number", "bool": "true or false", "string": "text"}


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags of `argv`; returns what is left. Joins the other hosts of a run where the flags say so.

    Raises:
      UserError: an unknown flag or config key, a value of the wrong type, a config file that is missing or fails, hosts
        that cannot be reached.
    """
    _prepare_devices(argv)
    argv = use_packaged_config(argv)
    path = _find_config(argv)
    if path is not None and not Path(path.split(":", 1)[0]).is_file():
        raise UserError(f"--config={path}: no such file, expected a config file such as configs/dimo.py")
    try:
        rest: list[str] = flags.FLAGS(argv)
    except UserError:
        raise
    # A config file is a program, so what it may raise is open.
    except Exception as error:
        config = None if path is None else _load_config(path)
        raise UserError(_explain(error, argv, config)) from error
    if path is not None:
        _check_loaded(flags.FLAGS["config"].value, path)
    return rest


def define_early_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Flags that count before a config is read, as a config may ask for the devices."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0 of a run on several hosts; auto: as the cluster's environment says",
        flag_values=values,
    )
    flags.DEFINE_integer("num_processes", None, "Number of hosts' processes", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Index of this process, from 0", flag_values=values)


def _prepare_devices(argv: list[str]) -> None:
    """Joins the other hosts, or leaves the accelerators to the processes that train the objects of a list."""
    early = flags.FlagValues()
    define_early_flags(early)
    flags.DEFINE_string("app", "train", "", flag_values=early)
    flags.DEFINE_string("object_list", None, "", flag_values=early)
    try:
        early(argv, known_only=True)
    except flags.Error:
        return  # the whole parse says what is wrong
    if early.object_list is not None:
        if early.coordinator is not None:
            raise UserError("--object_list: found --coordinator beside it, expected one of them")
        import jax  # not above: `--app=status` answers without it

        jax.config.update("jax_platforms", "cpu")
    elif early.coordinator is not None:
        if early.app != "train":
            raise UserError(f"--coordinator: found with --app={early.app}, expected it with --app=train only")
        hosts.join(early.coordinator, num_processes=early.num_processes, process_id=early.process_id)
    elif early.num_processes is not None or early.process_id is not None:
        raise UserError("--coordinator: not given, expected it with --num_processes and --process_id")


def _find_config(argv: list[str]) -> str | None:
    """The value of --config, written with "=" or as the next argument."""
    for index, argument in enumerate(argv[1:], 1):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            return value if equals else next(iter(argv[index + 1 :]), "")
    return None


def _load_config(path: str) -> Any:
    """The config of a file without overrides, to tell its own failures from those of the overrides."""
    try:
        config = flags.FLAGS["config"].parser.parse(path)
    except UserError:
        raise
    except Exception as error:
        # ml_collections puts the whole traceback into some messages; its end is the message.
        last = (str(error).strip().splitlines() or [""])[-1]
        prefix = "" if isinstance(error, ValueError | TypeError) else f"{_name(error)}: "
        raise UserError(f"--config={path}: {prefix}{last.removeprefix('ValueError: ')}") from error
    _check_loaded(config, path)
    return config


def _check_loaded(config: Any, path: str) -> None:
    """Checks that a config file has given a config; of a file that cannot be read we are told only on access."""
    if isinstance(config, ConfigDict):
        return
    try:
        hasattr(config, "keys")
    except OSError as error:
        raise UserError(f"--config={path}: {' '.join(str(error).split())}") from error
    raise UserError(f"--config={path}: found {type(config).__name__} from get_config, expected a ConfigDict")


def _name(error: BaseException) -> str:
    return type(error).__name__


def _explain(error: Exception, argv: list[str], config: Any) -> str:
    if isinstance(error, flags.UnrecognizedFlagError):
        return _explain_unknown(error.flagname)
    for argument in argv[1:]:
        name = argument.partition("=")[0].lstrip("-")
        missing = _find_missing_key(name, config) if name.startswith("config.") and "[" not in name else None
        if missing:
            return f"--{name}: {missing}"
    illegal = re.match(r"flag --([^=]+)=(.*?): (.*)", str(error), re.DOTALL)
    if isinstance(error, flags.IllegalFlagValueError) and illegal:
        name, value, reason = illegal.groups()
        kind = flags.FLAGS[name].parser.flag_type() if name in flags.FLAGS else ""
        expected = _KINDS.get(kind) or " ".join(reason.split()).removeprefix("value should be ")
        return f"--{name}: found {value!r}, expected {expected}"
    return f"command line: {' '.join(str(error).split()) or _name(error)}"


def _explain_unknown(name: str) -> str:
    if name.startswith("config."):
        return f"--{name}: no --config=FILE stands before it, expected one such as --config=configs/dimo.py"
    near = difflib.get_close_matches(name, list(flags.FLAGS), n=1)
    return f"--{name}: no such flag, expected " + (f"--{near[0]}?" if near else "one of those that --help lists")


def _find_missing_key(name: str, config: Any) -> str | None:
    """What is wrong with "config.a.b" as a key of `config`; None where nothing is."""
    path = "config"
    for key in name.split(".")[1:]:
        keys = list(config) if hasattr(config, "keys") else []
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            expected = f"{near[0]!r}?" if near else f"one of {', '.join(sorted(keys))}" if keys else "no key below it"
            return f"{path} has no key {key!r}, expected {expected}"
        path, config = f"{path}.{key}", config[key]
    return None
