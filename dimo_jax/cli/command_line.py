"""Parses the command line: help where it is asked for, and one line that a user can act on where something is wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from dimo_jax.cli.config_files import use_packaged_config
from dimo_jax.cli.flags import APP, HOSTS, define, define_flags
from dimo_jax.cli.parameters import App, Parameter, list_apps, owners_of, read_app
from dimo_jax.cli.usage import describe_app, describe_apps
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_among, find_nearest
from dimo_jax.runtime import hosts

_KINDS = {"int": "an integer", "float": "a number", "bool": "true or false", "string": "text"}
_EARLY = (*HOSTS, APP, Parameter("object_list", "str", None), Parameter("help", "bool", False))
_HELP = {"-h": "--help", "-?": "--help", "--helpshort": "--help"}


def parse_flags(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Defines and parses the flags of the app that `argv` chooses; returns what is left.

    Joins the other hosts of a run where the flags say so.

    Raises:
      UserError: an unknown app, flag or config key, a value of the wrong type, a config file that is missing or fails,
        hosts that cannot be reached.
      SystemExit: help was asked for, and has been printed (0); or nothing was, so that nothing has been done (2).
    """
    early = _parse_early(argv)
    if len(argv) < 2:
        print(describe_apps(), file=sys.stderr)
        sys.exit(UserError.exit_code)
    check_among(list_apps(), app=early.app)
    if early.help:
        print(describe_app(early.app) if early["app"].present else describe_apps())
        sys.exit(0)
    app = read_app(early.app)
    define_flags(app, values)
    _prepare_devices(early)
    argv = use_packaged_config(argv)
    path = _find_config(argv)
    if path is not None and "config" in app.parameters and not Path(path.split(":", 1)[0]).is_file():
        raise UserError(f"--config={path}: no such file, expected a config file such as configs/dimo.py")
    try:
        rest: list[str] = values(argv)
    except UserError:
        raise
    # A config file is a program, so what it may raise is open.
    except Exception as error:
        if isinstance(error, flags.UnrecognizedFlagError):
            raise UserError(_explain_unknown(error.flagname, app)) from error
        config = None if path is None or "config" not in values else _load_config(path, values)
        raise UserError(_explain(error, argv, config, values)) from error
    if path is not None:
        _check_loaded(values["config"].value, path)
    return rest


def _parse_early(argv: list[str]) -> flags.FlagValues:
    """The flags that count before those of an app are known."""
    early = flags.FlagValues()
    early.set_gnu_getopt()  # else the value of an unknown flag, written after a blank, would end the search
    for parameter in _EARLY:
        define(parameter, early)
    try:
        early([_HELP.get(argument, argument) for argument in argv], known_only=True)
    except (flags.Error, ValueError) as error:
        raise UserError(_explain(error, argv, None, early)) from error
    return early


def _prepare_devices(early: flags.FlagValues) -> None:
    """Joins the other hosts, or leaves the accelerators to the processes that train the objects of a list."""
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


def _load_config(path: str, values: flags.FlagValues) -> Any:
    """The config of a file without overrides, to tell its own failures from those of the overrides."""
    try:
        config = values["config"].parser.parse(path)
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


def _explain(error: Exception, argv: list[str], config: Any, values: flags.FlagValues) -> str:
    for argument in argv[1:]:
        name = argument.partition("=")[0].lstrip("-")
        missing = find_missing_key(name, config) if name.startswith("config.") and "[" not in name else None
        if missing and config is not None:
            return f"--{name}: {missing}"
    illegal = re.match(r"flag --([^=]+)=(.*?): (.*)", str(error), re.DOTALL)
    if isinstance(error, flags.IllegalFlagValueError) and illegal:
        name, value, reason = illegal.groups()
        kind = values[name].parser.flag_type() if name in values else ""
        return f"--{name}: found {value!r}, expected {_KINDS.get(kind) or ' '.join(reason.split())}"
    return f"command line: {' '.join(str(error).split()) or _name(error)}"


def _explain_unknown(name: str, app: App) -> str:
    """What is wrong with a flag that an app does not take."""
    takes = [*app.parameters]
    if name.startswith("config.") and "config" in takes:
        return f"--{name}: no --config=FILE stands before it, expected one such as --config=configs/dimo.py"
    near = find_nearest(name, [*takes, *(parameter.name for parameter in _EARLY)])
    meant = f"did you mean --{near}?"
    owners = owners_of(name.partition(".")[0]) or owners_of(name.removeprefix("no"))
    if not owners:
        listed = f"expected one of those that --app={app.name} --help lists"
        return f"--{name}: no such flag, {meant if near else listed}"
    known = ", ".join(f"--{each}" for each in takes)
    found = f"--{name}: found a flag of {', '.join(owners)} that --app={app.name} does not take"
    return f"{found}, expected some of {known}" + (f"; {meant}" if near else "")


def find_missing_key(name: str, config: Any) -> str | None:
    """What is wrong with "config.a.b" as a key of `config`; None where nothing is."""
    path = "config"
    for key in name.split(".")[1:]:
        keys = list(config) if hasattr(config, "keys") else []
        if key not in keys:
            near = find_nearest(key, keys)
            expected = f"{near!r}?" if near else f"one of {', '.join(sorted(keys))}" if keys else "no key below it"
            return f"{path} has no key {key!r}, expected {expected}"
        path, config = f"{path}.{key}", config[key]
    return None
