"""Names that users give, in any script: which of them are meant by a list or a pattern, and how they name files."""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Callable, Sequence

from dimo_jax.core.errors import UserError

LONGEST = 80  # characters of a file's name that are made of one name
LONGEST_BYTES = 180  # of a file's name in UTF-8; file systems take 255, of which endings and numbers need some
# Windows keeps these for devices, with any ending. Data that is copied there would be unreadable.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def fold(name: str) -> str:
    """What file systems that ignore case or composition compare names by."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def split_list(text: str, known: Sequence[str] = ()) -> tuple[str, ...]:
    """The parts of a list separated by commas, without blanks around them and without empty ones.

    A name of `known` that holds commas itself is one part, and the longest such name wins.
    """
    pieces, whole = text.split(","), {fold(name.strip()) for name in known}
    most = 1 + max((name.count(",") for name in known), default=0)
    parts: list[str] = []
    while pieces:
        starts = {end: ",".join(pieces[:end]).strip() for end in range(min(most, len(pieces)), 0, -1)}
        end = next((end for end, part in starts.items() if fold(part) in whole), 1)
        parts.append(starts[end])
        pieces = pieces[end:]
    return tuple(part for part in parts if part)


def choose_names(
    asked: str | Sequence[str],
    known: Sequence[str],
    *,
    fail: Callable[[str], UserError],
    patterns: bool = False,
) -> list[list[int]]:
    """Which of the `known` names each part of a list means.

    A part is taken for the first of these that fits any name: the name itself; the name but for case and composition;
    with `patterns`, a pattern (`*`, `?`, `[...]`) that ignores case. So every name can be chosen, whatever it holds.

    Args:
      asked: names as a sequence, or as a text in which commas separate them (see `split_list`).
      known: all names; one that stands there twice is chosen with both.
      fail: makes the error about a part that fits nothing.
      patterns: whether a part may be a pattern.

    Returns:
      For every part the indices of the names that it means, rising; at least one.

    Raises:
      UserError: a part that fits nothing.
    """
    folded, found = [fold(name) for name in known], []
    for part in split_list(asked, known) if isinstance(asked, str) else asked:
        same = [index for index, name in enumerate(known) if part in (name, name.strip())]
        alike = same or [index for index, name in enumerate(folded) if fold(part) in (name, name.strip())]
        if not alike and patterns:
            alike = [index for index, name in enumerate(folded) if fnmatch.fnmatchcase(name, fold(part))]
        if not alike:
            raise fail(part)
        found.append(alike)
    return found


def words_of(text: str) -> list[str]:
    """The words of a name: runs of letters, marks and digits of any script, and "RunFast" is two."""
    spaced, before = [], ""
    text = unicodedata.normalize("NFC", text)
    for index, letter in enumerate(text):
        after = text[index + 1 : index + 2]
        if letter.isupper() and (before.islower() or (before.isdecimal() and after.islower())):
            spaced.append(" ")
        spaced.append(letter if _is_letter(letter) and letter != "_" else "" if _is_joiner(letter) else " ")
        before = letter
    return "".join(spaced).split()


def to_file_name(text: str, *, default: str, keep: str = "._-", longest: int = LONGEST) -> str:
    """A plain file or folder name made of any text.

    Letters, marks, digits and symbols of any script stay, and the characters of `keep`; each run of others becomes one
    underscore.

    Args:
      text: any.
      default: the name where nothing of the text is left.
      keep: punctuation that stays.
      longest: characters; the name also has `LONGEST_BYTES` bytes at most.
    """
    letters = []
    for letter in unicodedata.normalize("NFC", text):
        if _is_letter(letter) or letter in keep:
            letters.append(letter)
        elif not _is_joiner(letter) and letters[-1:] != ["_"]:
            letters.append("_")
    name = shorten("".join(letters).strip("._")[:longest], LONGEST_BYTES).rstrip("._") or default
    return f"_{name}" if fold(name.split(".")[0]) in _DEVICES else name


def shorten(name: str, num_bytes: int) -> str:
    """The longest beginning of a name that has no more than so many bytes in UTF-8."""
    return name.encode()[:num_bytes].decode(errors="ignore")


def make_distinct(names: Sequence[str], *, taken: Sequence[str] = ()) -> tuple[str, ...]:
    """The names, numbered where an earlier one, or one of `taken`, is the same but for case."""
    used, distinct = {fold(name) for name in taken}, []
    for stem in names:
        name, number = stem, 2
        while fold(name) in used:
            name, number = f"{stem}_{number}", number + 1
        used.add(fold(name))
        distinct.append(name)
    return tuple(distinct)


def to_text(value: str) -> str:
    """A name as text that any file can hold: JSON may write half of a surrogate pair, which is no character."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_letter(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return letter == "_" or kind[0] in "LMN" or (kind == "So" and letter != "\N{REPLACEMENT CHARACTER}")


def _is_joiner(letter: str) -> bool:
    """Whether it only says how its neighbours are drawn, such as a zero-width joiner."""
    return unicodedata.category(letter) == "Cf"
