"""What flags an app takes, read from its source: importing it would load jax before a mistyped flag is refused."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
from collections.abc import Mapping
from importlib.abc import InspectLoader
from types import MappingProxyType
from typing import Any

from dimo_jax.runs import choice

REQUIRED = inspect.Parameter.empty  # in the place of a default


@functools.cache
def parameters_of(module: str) -> Mapping[str, Any]:
    """Keywords of a module's function `run`, with their defaults or `REQUIRED`.

    A default is a literal or the name of a constant of `apps.choice`.
    """
    spec = importlib.util.find_spec(module)
    source = spec.loader.get_source(module) if spec and isinstance(spec.loader, InspectLoader) else None
    for node in ast.parse(source or "").body:
        if isinstance(node, ast.FunctionDef) and node.name == "run":
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return MappingProxyType({argument.arg: _evaluate(default) for argument, default in pairs})
    raise AttributeError(f"module {module} has no function 'run'")


def _evaluate(default: ast.expr | None) -> Any:
    if default is None:
        return REQUIRED
    return getattr(choice, default.id) if isinstance(default, ast.Name) else ast.literal_eval(default)
