"""Names for results that do not overwrite those that are there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path


def free_number(folder: Path, names: Sequence[tuple[str, str]], *, overwrite: bool = False) -> str:
    """What a set of results puts into its files' names so that it overwrites none: "", or "_2", "_3" and so on.

    One number serves the whole set, so that its files are told from those of another call.

    Args:
      folder: where they are to lie; it need not exist.
      names: of all of them, each in two parts between which the number stands, such as ("walk", "_grid.mp4").
      overwrite: whether the user asked for it; then "".
    """
    numbers = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    taken = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return next(n for n in numbers if overwrite or not any(f"{stem}{n}{ending}" in taken for stem, ending in names))
