"""Components by name: `dict(fn="module:function", **kwargs)` in a config becomes a function."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from dimo_jax.core.errors import UserError
from dimo_jax.core.renames import current_name


def resolve(spec: Mapping[str, Any], *, key: str) -> functools.partial[Any]:
    """Turns a component's config into a function with its options bound.

    Args:
      spec: `fn`, as "module:function", and keyword options of that function. Options whose value is None are left
        to the function's own default.
      key: the config key the spec stands under; errors name it.

    Raises:
      UserError: no `fn`, a module or function that does not exist, or an option the function does not take.
    """
    if not hasattr(spec, "items"):  # a ConfigDict is no Mapping
        raise UserError(f'config.{key}: found {str(spec)[:60]!r}, expected dict(fn="module:function", ...)')
    options = {name: value for name, value in dict(spec).items() if name != "fn" and value is not None}
    name = spec.get("fn")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.]*\w:\w+", name) or name.startswith("."):
        raise UserError(f'config.{key}.fn: found {str(name)[:80]!r}, expected "module:function"')
    module_name, function_name = current_name(name).split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"config.{key}.fn: cannot import module {module_name!r}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"config.{key}.fn: module {module_name!r} has no function {function_name!r}")
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [option for option in options if option not in parameters and not takes_any]
    if unknown:
        expected = ", ".join(p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY) or "none"
        raise UserError(f"config.{key}.{unknown[0]}: not an option of {name} (options: {expected})")
    return functools.partial(function, **options)
