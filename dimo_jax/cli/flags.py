"""Flags of the chosen app, made of its signature, and those of the launcher itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absl import flags

from dimo_jax.cli.parameters import CONFIG, REQUIRED, App, Parameter
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import describe_choices

WORKDIR = "runs/dimo"  # where an app needs a workdir and none is given
APP = Parameter("app", "str", "train", doc="what to run; --help without it lists all")
# Those that count before a config is read, as a config may ask for the devices.
HOSTS = (
    Parameter(
        "coordinator",
        "str",
        None,
        doc="HOST:PORT of process 0 of a run on several hosts, or auto: as the cluster's environment says",
    ),
    Parameter("num_processes", "int", None, doc="number of hosts' processes"),
    Parameter("process_id", "int", None, doc="index of this process, from 0"),
)


class _ChoiceParser(flags.ArgumentParser):
    """Takes one of some values, by its text."""

    def __init__(self, choices: tuple[Any, ...]) -> None:
        super().__init__()
        self.choices = {str(choice): choice for choice in choices}

    def parse(self, argument: Any) -> Any:
        """The choice of this text; raises ValueError with those there are and the nearest."""
        if str(argument) not in self.choices:
            raise ValueError(describe_choices([*self.choices], argument))
        return self.choices[str(argument)]

    def flag_type(self) -> str:
        """As absl's help has it."""
        return "choice"


_PARSERS = {"str": flags.ArgumentParser, "int": flags.IntegerParser, "float": flags.FloatParser}


def define(parameter: Parameter, values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flag of a parameter."""
    name, default, doc = parameter.name, default_of(parameter), parameter.doc
    if parameter.kind == CONFIG:
        from ml_collections import config_flags  # not above: most apps read the config of a run

        config_flags.DEFINE_config_file(name, default, doc, flag_values=values)
    elif parameter.kind == "bool":
        flags.DEFINE_bool(name, default, doc, flag_values=values)
    else:
        parser = _ChoiceParser(parameter.choices) if parameter.choices else _PARSERS[parameter.kind]()
        flags.DEFINE(parser, name, default, doc, flag_values=values, serializer=flags.ArgumentSerializer())


def default_of(parameter: Parameter) -> Any:
    """The value of a flag that is not given; None, too, where it must be."""
    if parameter.default is REQUIRED:
        return WORKDIR if parameter.name == "workdir" else None
    return parameter.default


def define_flags(app: App, values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of the launcher and of one app; those of other apps are unknown then."""
    for parameter in (APP, *HOSTS, *app.parameters.values()):
        define(parameter, values)


def options_of(app: App, values: Mapping[str, flags.Flag[Any]] | flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
    """Keyword arguments for an app, from parsed flags.

    Raises:
      UserError: one that it needs is missing.
    """
    options = {name: values[name].value for name in app.parameters}
    for name, parameter in app.parameters.items():
        if parameter.default is REQUIRED and options[name] is None:
            raise UserError(f"--{name}: not given, expected --{name}=..., which this app needs")
    return options
