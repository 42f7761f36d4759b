"""`--object_list`: trains many objects one after the other, each in a process and a folder of its own."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from absl import logging

from dimo_jax.core.errors import Stopped, UserError
from dimo_jax.runtime.lock import find_owner

OWN_FLAGS = ("object_list", "shard", "workdir", "config.data.path")
PATIENCE = 90.0  # seconds for a training that was told to end, whose step may still be compiling
# PR_SET_PDEATHSIG of prctl(2), which outlives exec. Not in a `preexec_fn`: a process with threads must not fork so.
_TIED = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Item:
    """One object of a list."""

    name: str  # of its folder
    path: str  # of its dataset


def read_list(path: str) -> list[Item]:
    """Reads a list of objects: a dataset folder and, if it shall not be the folder's name, a name on every line.

    Blank lines and what follows a # are left out; paths with blanks stand in quotes.

    Raises:
      UserError: no such file, nothing in it, a line that is no object, or a name that comes twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--object_list={path}: cannot be read ({error}), expected a text file") from error
    items: dict[str, Item] = {}
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}, expected a dataset folder and a name") from error
        if not words:
            continue
        name = words[1] if len(words) > 1 else Path(words[0]).name
        if len(words) > 2 or name in ("", ".", "..", "logs") or "/" in name:
            raise UserError(
                f"{path}:{number}: found {line.strip()[:80]!r}, expected a dataset folder and a name for it"
            )
        if name in items:
            raise UserError(f"{path}:{number}: found the name {name[:80]!r} twice, expected another after the folder")
        items[name] = Item(name, words[0])
    if not items:
        raise UserError(f"--object_list={path}: found no object, expected a dataset folder on every line")
    return list(items.values())


def take_shard(items: Sequence[Item], shard: str) -> list[Item]:
    """Every N-th object from the I-th on, for `shard` "I/N"; all for "".

    Raises:
      UserError: it is not of that form, or I is not from 0 to N - 1.
    """
    if not shard:
        return list(items)
    index, slash, count = shard.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard: found {shard!r}, expected I/N with I from 0 to N - 1, such as 0/8")
    return list(items[int(index) :: int(count)])


def command_for(argv: Sequence[str], item: Item, workdir: Path) -> list[str]:
    """The command that trains one object: this process's own, `argv`, with the object's data and folder."""
    rest: list[str] = []
    arguments = iter(argv[1:])
    for argument in arguments:
        name, equals, _ = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name in OWN_FLAGS:
            if not equals:
                next(arguments, None)
            continue
        rest.append(argument)
    return [sys.executable, argv[0], *rest, f"--config.data.path={item.path}", f"--workdir={workdir / item.name}"]


def train_objects(object_list: str, shard: str, workdir: str) -> None:
    """Trains the objects of a share of a list; those that have a summary already are done.

    Raises:
      UserError: a bad list or share.
      SystemExit: some object failed, after all have been tried.
      Stopped: SIGTERM or SIGINT, which the object in training was told, too.
    """
    items, folder = take_shard(read_list(object_list), shard), Path(workdir)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    for number, item in enumerate(items, 1):
        where = f"object {number} of {len(items)}, {item.name}"
        if (folder / item.name / "summary.json").is_file():
            logging.info("%s: done before", where)
            continue
        log = folder / "logs" / f"{item.name}.log"
        logging.info("%s: training, see %s", where, log)
        reason = _train(command_for(sys.argv, item, folder), folder / item.name, log)
        if reason:
            failures[item.name] = reason
            logging.warning("%s: failed: %s", where, reason)
    print(f"{len(items) - len(failures)} of {len(items)} objects are trained in {folder.resolve()}")
    for name, reason in failures.items():
        print(f"failed: {name}: {reason} ({folder / 'logs' / name}.log)")
    if failures:
        sys.exit(1)


def _train(command: Sequence[str], workdir: Path, log: Path) -> str:
    """Trains one object, its output appended to `log`; returns what went wrong, or nothing."""
    _wait_for_free(workdir)
    before = log.stat().st_size if log.exists() else 0
    code = _run(command, log)
    if not code:
        return ""
    with log.open("rb") as file:
        file.seek(before)  # what earlier attempts said is not why this one failed
        return _explain(code, file.read().decode("utf-8", "replace"))


def _wait_for_free(workdir: Path) -> None:
    """Waits, for a while, for a training there whose parent was killed, and which is saving what it has."""
    end, told = time.monotonic() + PATIENCE, False
    while (owner := find_owner(workdir)) is not None and owner.alive and time.monotonic() < end:
        if not told:
            logging.info("%s: waiting for %s to end", workdir.name, owner)
        told = True
        time.sleep(0.5)


def _run(command: Sequence[str], log: Path) -> int:
    """Runs a command to its end and returns its exit code; signals to this process are passed on.

    Raises:
      Stopped: SIGTERM or SIGINT came, and the command has ended.
    """
    received: list[int] = []
    with (
        log.open("ab") as output,
        subprocess.Popen(
            _tie(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # else a terminal's Ctrl-C reaches it twice, which means: at once
        ) as process,
    ):

        def pass_on(number: int, _: FrameType | None) -> None:
            received.append(number)
            process.send_signal(number)  # not wait(), whose lock the interrupted wait() below holds

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if received:
        raise Stopped(f"{signal.Signals(received[0]).name}; the same command goes on, see {log}")
    return code


def _tie(command: Sequence[str]) -> Sequence[str]:
    """The command, which on Linux gets SIGTERM when this process dies, be it by kill -9."""
    return [sys.executable, "-c", _TIED, *command] if sys.platform == "linux" else command


def _explain(code: int, printed: str) -> str:
    """Why a training failed: the error that it printed last, or how it ended."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line for line in printed.splitlines() if line.strip()]
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
    return said or next(reversed(lines), f"exit code {code}")
