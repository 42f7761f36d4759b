"""The files that a glTF file refers to, as programs of every system write them: of its own folder, and no other."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import fold

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|[\\/]")


def find_file(model: Path, uri: str) -> Path:
    """The file of the model's folder, or below it, that a URI means.

    A URI is percent-encoded and has slashes. Programs also write plain names, backslashes, and names whose case differs
    from the disk's; each is taken where it means one file.

    Args:
      model: path of the glTF file.
      uri: as it stands there, no data URI.

    Raises:
      UserError: it means no file, several, or one elsewhere; the message says which.
    """
    shown, folder = repr(uri[:80]), model.parent.resolve()
    if not uri or "\0" in uri:
        raise UserError(f"{model}: refers to {shown}, expected the name of a file of its own folder")
    names = dict.fromkeys(
        name.replace(*change) for change in (("", ""), ("\\", "/")) for name in (urllib.parse.unquote(uri), uri)
    )
    inside = [name for name in names if (folder / name).resolve().is_relative_to(folder)]
    for name in inside:
        if (folder / name).is_file():
            return (folder / name).resolve()
    for name in inside:
        alike = _find_alike(folder, Path(name).parts)
        if len(alike) > 1:
            two = " and ".join(str(path.relative_to(folder)) for path in alike[:2])
            raise UserError(f"{model}: refers to {shown}, of which there are {two}, expected one")
        if alike and alike[0].resolve().is_relative_to(folder):
            return alike[0].resolve()
    raise UserError(f"{model}: refers to {shown}, {_explain(folder, uri, inside)}{_hint(folder, names)}")


def _find_alike(folder: Path, parts: tuple[str, ...]) -> list[Path]:
    """Files at a relative path, case and composition of its letters aside."""
    found = [folder]
    for part in parts:
        if part in (".", ".."):
            found = [path / part for path in found]
            continue
        entries = [entry for path in found if path.is_dir() for entry in sorted(path.iterdir())]
        found = [entry for entry in entries if fold(entry.name) == fold(part)]
    return [path for path in found if path.is_file()]


def _explain(folder: Path, uri: str, inside: list[str]) -> str:
    if scheme := _SCHEME.match(uri):
        return f"an address ({scheme[1]}), expected a file of its own folder"
    if _DRIVE.match(uri):
        return "a place on the computer that it was made on, expected a file of its own folder"
    spelled = urllib.parse.unquote(uri).replace("\\", "/")
    if not (folder / spelled).resolve().is_relative_to(folder):
        return "which lies outside its own folder"
    if any((folder / name).is_dir() for name in inside):
        return "a folder, expected a file"
    return "which does not exist beside it"


def _hint(folder: Path, names: dict[str, None]) -> str:
    """Names the file of that name that lies right beside the model, where one does."""
    last = re.split(r"[\\/]", next(iter(names)))[-1]
    alike = _find_alike(folder, (last,)) if last not in ("", ".", "..") else []
    return f"; {alike[0].name!r} lies there: it should refer to that" if alike else ""
