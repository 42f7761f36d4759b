"""Inputs: case k of a reader is a sound folder of its kind with one file damaged, the same for the same seed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.fuzz.containers import mutate_file


@dataclass(frozen=True)
class Reader:
    """What is tried."""

    name: str
    read: Callable[[Path, Path], Any]  # a source, and a path that does not exist, which it may write to
    write_seeds: Callable[[Path], None]  # sound inputs, each a folder in the one given
    entry: str = ""  # pattern of the file that is read; "" for the whole folder, as where no file fits
    weight: float = 1.0  # share of the time
    leaves: bool = False  # whether it may write beside its source, or write and then refuse


@dataclass(frozen=True)
class Seed:
    """A sound input."""

    folder: Path
    entry: str  # name of what is read, in the folder; "" is the folder
    files: tuple[str, ...]


def find_seeds(reader: Reader, folder: Path) -> tuple[Seed, ...]:
    """What `write_seeds` has written to `folder`, in order of names."""
    found = []
    for root in sorted(path for path in folder.iterdir() if path.is_dir()):
        entry = next((path.name for path in sorted(root.glob(reader.entry))), "") if reader.entry else ""
        files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        found.append(Seed(root, entry, tuple(files)))
    if not found:
        raise ValueError(f"{folder}: no seeds of {reader.name}")
    return tuple(found)


def _disturb(root: Path, name: str, files: tuple[str, ...], rng: random.Random) -> str:
    """Something else than damage to a file's content."""
    path, how = root / name, rng.randrange(4)
    if how == 0:
        path.unlink()
        return "removed"
    if how == 1:
        path.unlink()
        path.mkdir()
        return "a folder in its place"
    if how == 2:
        other = rng.choice(files)
        path.write_bytes((root / other).read_bytes())
        return f"content of {other}"
    path.rename(path.with_name(rng.choice(("x", path.name.upper(), f"{path.stem}_1{path.suffix}"))))
    return "renamed"


def make_case(reader: Reader, seeds: tuple[Seed, ...], seed: int, number: int, target: Path) -> tuple[Path, str]:
    """Writes case `number` to the folder `target`, which does not exist.

    Returns:
      What to read, and what was done to it.
    """
    rng = random.Random(f"{seed}/{reader.name}/{number}")
    chosen = rng.choice(seeds)
    shutil.copytree(chosen.folder, target, copy_function=shutil.copyfile)
    # What lies beside the file that is read matters less.
    name = chosen.entry if chosen.entry and rng.random() < 0.7 else rng.choice(chosen.files)
    if len(chosen.files) > 1 and rng.random() < 0.06:
        said = _disturb(target, name, chosen.files, rng)
    else:
        data, said = mutate_file(name, (target / name).read_bytes(), rng)
        (target / name).write_bytes(data)
    source = target / chosen.entry if chosen.entry else target
    return source, f"{chosen.folder.name}/{name}: {said}"
