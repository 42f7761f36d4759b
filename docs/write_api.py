"""Writes docs/api.md from signatures and docstrings: `python docs/write_api.py`; a test compares the two."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import flax.struct

import dimo_jax

PAGE = Path(__file__).with_name("api.md")
HEAD = """# The public names

Written by `python docs/write_api.py` from signatures and docstrings; [library.md](library.md) shows them at work.
"""


def describe(name: str, value: Any) -> str:
    """One section: how it is called, and what its docstring says."""
    source = getattr(value, "__module__", "").replace(".", "/")
    kind = "class" if inspect.isclass(value) else "function"
    is_tree = inspect.isclass(value) and issubclass(value, flax.struct.PyTreeNode)
    said = _fields(value) if is_tree else f"{name}{_signature(value)}"
    parts = [f"## `dj.{name}`", f"{kind} of `{source}.py`", _block(said), _text(value)]
    if inspect.isclass(value) and not is_tree:
        for member_name, member in sorted(vars(value).items()):
            if not member_name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                function = member.fget if isinstance(member, property) else member
                said = member_name if isinstance(member, property) else f"{member_name}{_signature(member)}"
                parts += [f"### `{name}.{member_name}`", _block(said), _text(function)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fields(value: Any) -> str:
    """The fields of a pytree with what is said beside them, such as their shapes."""
    lines = inspect.getsource(value).splitlines()
    return "\n".join(line.strip() for line in lines if re.match(r" {4}\w+: ", line))


def _find(name: str) -> Any:
    value = getattr(dimo_jax, name)
    return getattr(value, name) if inspect.ismodule(value) else value


def _signature(value: Any) -> str:
    signature = inspect.signature(value)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "parent")]
    text = str(signature.replace(parameters=parameters))
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def _text(value: Any) -> str:
    """A docstring; what is indented in it (arguments, errors) keeps its lines."""
    text = inspect.getdoc(value) or ""
    if inspect.isclass(value) and value.__init__ is not object.__init__:
        text += "\n\n" + (inspect.getdoc(value.__init__) or "") if "Args" in (value.__init__.__doc__ or "") else ""
    summary, _, rest = text.partition("\n\n")
    return summary + (f"\n\n{_block(rest.replace('```', '').strip())}" if rest.strip() else "")


def write() -> str:
    """The whole page."""
    names = sorted(name for name in dimo_jax.__all__ if name != "__version__")
    return HEAD + "\n" + "\n".join(describe(name, _find(name)) for name in names)


if __name__ == "__main__":
    PAGE.write_text(write())
