"""How one input ends: in success, in one line, or in what no reader may do."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimo_jax.core.errors import UserError

ACCEPTED, REFUSED = "accepted", "refused"
MAX_MESSAGE = 2000  # characters of the one line
_STARVED = ("MemoryError", "llocate", "out of memory", "OutOfMemory")  # of a refusal that is want of memory
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """How one input ended."""

    kind: str  # ACCEPTED, REFUSED, or what is wrong
    said: str = ""
    place: str = ""  # where in the program, of what is wrong
    what: str = ""  # the damage
    seconds: float = 0.0
    peak_bytes: int = 0


def place_of(error: BaseException) -> str:
    """The last frames of a traceback: the last of all, and the last of this repository."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(str(_ROOT / "dimo_jax"))]
    own += [frame for frame in frames if frame.filename.startswith(str(_ROOT / "third_party"))]
    named = (f"{'/'.join(Path(f.filename).parts[-3:])}:{f.lineno} {f.name}" for f in (*own[-1:], *frames[-1:]))
    return " < ".join(dict.fromkeys(named))


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, with what tells whether a file has changed."""
    facts = {path: path.stat() for path in folder.rglob("*") if path.exists()}
    return {str(path): (f.st_size, f.st_mtime_ns) if path.is_file() else (0, 0) for path, f in facts.items()}


def judge(read: Callable[[Path, Path], Any], source: Path, out: Path, *, leaves: bool) -> Outcome:
    """Reads `source` in this process and says how that ends; memory and time are for others to watch.

    Args:
      read: of a reader.
      source: what it reads.
      out: where it may write; nothing else of its folder may change, nor anything be left there of a refused input.
      leaves: see `Reader`.
    """
    before = _listing(out.parent)
    noise: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, file, line, *_: noise.append(
            f"{'/'.join(Path(file).parts[-3:])}:{line} {category.__name__}: {message}"
        )
        try:
            read(source, out)
            outcome = Outcome(ACCEPTED)
        except UserError as error:
            said = " ".join(str(error).splitlines())
            outcome = Outcome(REFUSED, said)
            if (
                not said
                or len(said) > MAX_MESSAGE
                or not any(name in said for name in (str(out.parent), "--", "text: "))
            ):
                outcome = Outcome("message", said[:300], place_of(error))
            elif any(word in said for word in _STARVED):
                outcome = Outcome("memory", said[:300], place_of(error))
        except BaseException as error:
            outcome = Outcome(type(error).__name__, " ".join(str(error).split())[:300], place_of(error))
    # Of jax, about every program that is started beside it.
    serious = [line for line in noise if "RuntimeWarning" in line and "os.fork()" not in line]
    if serious and outcome.kind in (ACCEPTED, REFUSED):
        outcome = Outcome("warning", serious[0][:300], serious[0].split(" ")[0])
    if leaves or outcome.kind not in (ACCEPTED, REFUSED):
        return outcome
    after = _listing(out.parent)
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    if outcome.kind == ACCEPTED:
        changed = [name for name in changed if not Path(name).is_relative_to(out) or ".tmp" in Path(name).name]
    if not changed:
        return outcome
    kinds = sorted({re.sub("[0-9a-f]{4,}", "#", Path(name).name) for name in changed})
    return Outcome("leftover", f"{sorted(changed)[:3]}; {outcome.kind}: {outcome.said}"[:300], ", ".join(kinds)[:100])
