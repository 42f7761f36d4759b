"""What help prints: the list of apps, and the flags of one."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import dimo_jax
from dimo_jax.cli.flags import APP, HOSTS, default_of
from dimo_jax.cli.parameters import CONFIG, REQUIRED, Parameter, list_apps, read_app

_SHOWN = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", CONFIG: "FILE"}
_LAUNCH = "python launch.py"


def describe_apps(*, width: int | None = None) -> str:
    """All apps with a line each, and how to go on; lines of `width` characters, or as the terminal is."""
    program, columns = program_name(), width or _find_width()
    lines = _wrap(f"{dimo_jax.__doc__}".partition("\n\n")[0], "", columns)
    lines += ["", f"  {program} --config=configs/dimo.py", "      trains"]
    lines += [f"  {program} --app=NAME --help", "      tells what an app does, its flags, and an example", "", "apps:"]
    names = list_apps()
    longest = max(map(len, names))
    for name in names:
        first, *rest = _wrap(read_app(name).summary.rstrip("."), " " * (longest + 4), columns)
        lines += [f"  {name:{longest}}  {first.lstrip()}", *rest]
    return "\n".join(lines)


def describe_app(name: str, *, width: int | None = None) -> str:
    """What an app does, its flags with kinds, defaults and docs, those of the launcher that apply, and an example."""
    app, program, columns = read_app(name), program_name(), width or _find_width()
    lines = _wrap(f"{program} --app={name}: {app.summary}", "", columns) + [""]
    for paragraph in app.about.split("\n\n"):
        lines += [*_wrap(paragraph, "", columns), ""]
    lines += [f"flags of {name}:", *_describe_flags(app.parameters.values(), columns), "", "flags of the launcher:"]
    lines += _describe_flags((APP, *(HOSTS if name == "train" else ())), columns)
    if CONFIG in {parameter.kind for parameter in app.parameters.values()}:
        lines += ["  --config.KEY=VALUE", "      after --config=FILE: a value in place of the file's"]
    lines += ["  --helpfull", "      lists what the libraries take, too, such as --verbosity"]
    if app.example:
        lines += ["", "example:", textwrap.indent(app.example.replace(_LAUNCH, program), "  ")]
    return "\n".join(lines)


def program_name() -> str:
    """What to type before the flags, as this process was started."""
    name = Path(sys.argv[0]).name
    return "dimo-jax" if name.startswith("dimo-jax") else _LAUNCH


def _describe_flags(parameters: Iterable[Parameter], width: int) -> list[str]:
    ordered = sorted(parameters, key=lambda each: each.default is not REQUIRED)
    return [line for each in ordered for line in (f"  {_head(each)}", *_wrap(each.doc, "      ", width))]


def _head(parameter: Parameter) -> str:
    """The flag, what it takes, and its default, unless its doc tells what none means."""
    default = default_of(parameter)
    choices = "|".join(str(choice) for choice in parameter.choices if choice != "")
    is_switch = parameter.kind == "bool"
    flag = f"--[no]{parameter.name}" if is_switch else f"--{parameter.name}={choices or _SHOWN[parameter.kind]}"
    if parameter.default is REQUIRED and default is None:
        return f"{flag} (needed)"
    if default is None or default == "" or (not default and "default:" in parameter.doc):
        return flag
    return f"{flag} (default: {str(default).lower() if is_switch else default})"


def _wrap(text: str, indent: str, width: int) -> list[str]:
    joined = " ".join(text.split())
    options = dict(break_long_words=False, break_on_hyphens=False)
    return textwrap.wrap(joined, width, initial_indent=indent, subsequent_indent=indent, **options)  # type: ignore[arg-type]


def _find_width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)
