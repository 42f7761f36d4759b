"""What apps there are and which flags they take, read from their source: importing one would load jax first.

An app is a module of `dimo_jax/apps` with a function `run`, and each keyword of it is a flag. Its annotation gives the
flag's kind and choices, its default the flag's, and its entry under `Args:` what help says.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

REQUIRED = inspect.Parameter.empty  # in the place of a default
CONFIG = "ConfigDict"
KINDS = ("str", "int", "float", "bool", CONFIG)
_PACKAGE = Path(__file__).resolve().parents[1]
_RUN = re.compile(r"^def run\(", re.MULTILINE)
_SECTION = re.compile(r"^(Args|Example|Raises|Returns):\n", re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """A keyword of an app's `run`, and a flag."""

    name: str
    kind: str  # one of `KINDS`
    default: Any = REQUIRED  # literal
    choices: tuple[Any, ...] = ()  # all values there are; empty: any
    doc: str = ""  # one line


@dataclass(frozen=True)
class App:
    """A command."""

    name: str
    summary: str  # what it does, in a line: the first of its module
    about: str  # what `run` says above its arguments
    example: str  # command lines
    parameters: Mapping[str, Parameter]


def list_apps() -> tuple[str, ...]:
    """Names of all apps, in alphabetical order."""
    return tuple(sorted(path.stem for path in (_PACKAGE / "apps").glob("*.py") if _RUN.search(path.read_text())))


@functools.cache
def read_app(name: str) -> App:
    """An app as its source describes it.

    Raises:
      TypeError: `run` has a parameter that no flag can be made of: not keyword-only, with an annotation that is none of
        `KINDS`, `Literal[...]` of strings or of integers, their union with None, or a constant's name that stands for
        one of these; or with a default that is no literal and no constant's name.
    """
    tree = _parse(f"apps.{name}")
    run = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    if run.args.args or run.args.posonlyargs or run.args.vararg or run.args.kwarg:
        raise TypeError(f"apps/{name}.py: run has parameters that are not keyword-only")
    sections = _split_sections(ast.get_docstring(run) or "")
    docs = _parse_docs(sections.get("Args", ""))
    parameters = {}
    for argument, default in zip(run.args.kwonlyargs, run.args.kw_defaults, strict=True):
        try:
            kind, choices = _read_annotation(argument.annotation, tree)
            value = REQUIRED if default is None else _evaluate(default, tree)
        except ValueError as error:
            raise TypeError(f"apps/{name}.py: run: {argument.arg}: {error}") from error
        parameters[argument.arg] = Parameter(argument.arg, kind, value, choices, docs.get(argument.arg, ""))
    summary = (ast.get_docstring(tree) or "").partition("\n")[0].removeprefix(f"`--app={name}`: ")
    example = sections.get("Example", "")
    return App(name, summary, sections[""], example, MappingProxyType(parameters))


def owners_of(flag: str) -> list[str]:
    """Names of the apps that take a flag."""
    return [name for name in list_apps() if flag in read_app(name).parameters]


@functools.cache
def _parse(module: str) -> ast.Module:
    """The source of a module, named without "dimo_jax."."""
    return ast.parse((_PACKAGE / f"{module.replace('.', '/')}.py").read_text())


def _split_sections(docstring: str) -> dict[str, str]:
    """Google-style sections by their titles; what stands above them by ""."""
    above, *rest = _SECTION.split(docstring)
    return {"": above.strip()} | {title: textwrap.dedent(text).strip() for title, text in zip(rest[::2], rest[1::2])}


def _parse_docs(section: str) -> dict[str, str]:
    """The lines of `Args:` by their names."""
    entries = (entry.partition(":") for entry in re.split(r"\n(?=\S)", section))
    return {name: " ".join(text.split()) for name, _, text in entries}


def _read_annotation(node: ast.expr | None, tree: ast.Module) -> tuple[str, tuple[Any, ...]]:
    """The kind of a parameter, and its choices."""
    match node:
        case ast.BinOp(left=one, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _read_annotation(one, tree)
        case ast.Name(id=kind) if kind in KINDS:
            return kind, ()
        case ast.Name(id=name):
            return _read_annotation(*_find(name, tree))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            value = ast.literal_eval(inner)
            choices = value if isinstance(value, tuple) else (value,)
            kinds = {type(choice).__name__ for choice in choices}
            if kinds in ({"str"}, {"int"}):
                return kinds.pop(), choices
    shown = "none" if node is None else ast.unparse(node)
    raise ValueError(f"found annotation {shown}, expected one of {', '.join(KINDS)}, or Literal of strings or integers")


def _evaluate(node: ast.expr, tree: ast.Module) -> Any:
    return _evaluate(*_find(node.id, tree)) if isinstance(node, ast.Name) else ast.literal_eval(node)


def _find(name: str, tree: ast.Module) -> tuple[ast.expr, ast.Module]:
    """What a name stands for at the top of a module, and the module of this package that says so."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value, tree
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                return value, tree
            case ast.ImportFrom(module=str(module), names=aliases) if module.startswith("dimo_jax."):
                for alias in aliases:
                    if name == (alias.asname or alias.name):
                        return _find(alias.name, _parse(module.removeprefix("dimo_jax.")))
    raise ValueError(f"found the name {name}, expected a constant of its module or of one that it imports from")
