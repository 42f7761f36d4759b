"""One run at a time in a folder: a lock that the kernel gives back when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dimo_jax.core.errors import UserError
from dimo_jax.runtime.files import read_json

try:
    import fcntl
except ImportError:  # Windows: two processes at once make the same frames twice, and a run cannot hold its folder
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
_PATIENCE = 0.5  # seconds: longer than `find_owner` of another process holds its shared lock


@dataclass(frozen=True)
class Owner:
    """Who wrote a lock file."""

    host: str
    pid: int
    since: float  # seconds since 1970
    alive: bool  # whether the lock is still held; False: the process ended without releasing it

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {began}"


@dataclass(frozen=True)
class Held:
    """A lock that is held."""

    before: Owner | None  # who held it last and ended without releasing it
    descriptor: int  # a program that inherits it keeps the lock, though its parent be killed


def find_owner(folder: Path) -> Owner | None:
    """Who runs in `folder`, or ended there without a word; None where nobody does. Writes nothing."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            alive = False
        except BlockingIOError:
            alive = True
        found = read_json(folder / LOCK_FILE)
    finally:
        os.close(descriptor)
    if found is None:
        # Taken a moment ago, its owner not yet written; or released.
        return Owner("an unknown host", 0, time.time(), True) if alive else None
    pid, since = found.get("pid"), found.get("since")
    return Owner(
        str(found.get("host")),
        pid if isinstance(pid, int) else 0,
        float(since) if isinstance(since, (int, float)) and 0 <= since <= time.time() else 0.0,
        alive,
    )


def check_free(folder: Path) -> None:
    """Raises UserError where another process runs in `folder`."""
    owner = find_owner(folder)
    if owner is not None and owner.alive:
        raise UserError(_refusal(folder, owner))


def _refusal(folder: Path, owner: Owner | None, flag: str = "workdir") -> str:
    who = f"{owner or 'another process'}, or by what it has left running"
    return f"--{flag}={folder}: in use by {who}; expected a folder in which nothing runs"


@contextlib.contextmanager
def hold(folder: Path, *, flag: str = "workdir") -> Iterator[Held]:
    """Holds the lock of an existing `folder`, which errors name as that of `--flag`.

    The lock is `flock(2)` on the file `.lock`, which names host and process. It ends with the process, after `kill -9`,
    too, so that no lock is ever stale. On network file systems it holds between hosts where the file system passes
    `flock` on (NFS since Linux 2.6.12, Lustre with `-o flock`).

    Raises:
      UserError: another process holds it, the folder cannot be written to, or its file system has no locks.
    """
    path = folder / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}), expected a folder to write to") from error
    try:
        before = find_owner(folder)
        _take(descriptor, folder, flag)
        try:
            mine = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
            _replace_content(descriptor, json.dumps(mine), path)
            yield Held(before, descriptor)
        finally:
            # Only a killed process leaves its name.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path, flag: str) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise UserError(_refusal(folder, find_owner(folder), flag)) from error
            time.sleep(0.05)
        except OSError as error:
            raise UserError(
                f"--{flag}={folder}: its file system has no file locks ({error.strerror}), expected one that has, so "
                "that two runs cannot write there at once"
            ) from error


@contextlib.contextmanager
def wait_for(path: Path) -> Iterator[bool]:
    """Waits for the lock on a file of its own; yields False where there is none, as on some network file systems."""
    with contextlib.ExitStack() as stack:
        locked = fcntl is not None
        if locked:
            try:
                fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
            except OSError:
                locked = False
        yield locked


def _replace_content(descriptor: int, text: str, path: Path) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}), expected room for a run's files") from error
