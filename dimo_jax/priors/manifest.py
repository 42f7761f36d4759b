"""`manifest.jsonl`: one line for everything that was done, in order, so that a stopped run goes on where it was.

A line is {"step", "item", "key", "status", ...}. `key` is a digest of what the result depends on: of several lines with
the same step and item the last one counts, and only while its key is the present one and its files are unchanged.
There are no times in it: a run that was stopped ends with the same lines as one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from absl import logging

from dimo_jax.core.errors import UserError
from dimo_jax.io.metrics_log import encode_row
from dimo_jax.priors.failures import Failure
from dimo_jax.runtime.lock import hold

FILE = "manifest.jsonl"
DONE, FAILED = "done", "failed"
Record = dict[str, Any]


def digest_of(value: Any) -> str:
    """sha256 of a JSON value, its keys sorted: the same for equal values, in every run."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_path(path: Path) -> str:
    """sha256 of a file; of a folder, that over the relative names and the sha256 of all files in it, sorted."""
    if path.is_dir():
        parts = [(str(each.relative_to(path)), digest_path(each)) for each in sorted(path.rglob("*")) if each.is_file()]
        return digest_of(parts)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Manifest:
    """The lines of a folder's `manifest.jsonl`. A context manager; while it is open no other process can open it."""

    def __init__(self, folder: Path) -> None:
        """Reads the lines that are there; one that a killed run left unfinished is removed.

        Args:
          folder: of the whole work; it is created.

        Raises:
          UserError: another process, or a sampler that a killed one has left, works there, or a line is no record.
        """
        self.folder = folder
        self.path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        self._latest: dict[tuple[str, str], Record] = {}
        self._checked: set[tuple[str, str]] = set()
        with contextlib.ExitStack() as stack:
            # The file first: a folder with nothing but a lock would not be known for one of ours.
            try:
                self._file = stack.enter_context(self.path.open("ab+"))
            except OSError as error:
                raise UserError(f"{self.path}: cannot be opened ({error.strerror}), expected a file of ours") from error
            self.lock = stack.enter_context(hold(folder, flag="out")).descriptor  # for programs that are started here
            for record in _parse(self._read_whole(), self.path):
                self._latest[record["step"], record["item"]] = record
            self._stack = stack.pop_all()

    def _read_whole(self) -> bytes:
        """The lines that are there; the beginning of one that is not whole is removed."""
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            logging.warning("%s: removed an unfinished last line of %d bytes", self.path, len(data) - len(whole))
            self._file.truncate(len(whole))
        return whole

    def find(self, step: str, item: str, key: str) -> Record | None:
        """The finished record of a step and item, if its key is the present one and its files are unchanged."""
        record = self._latest.get((step, item))
        if record is None or record["status"] != DONE or record["key"] != key:
            return None
        if (step, item) not in self._checked:
            for name, sha256 in record.get("files", {}).items():
                path = self.folder / name
                if not path.exists() or digest_path(path) != sha256:
                    logging.warning("%s: is not what %s recorded, so that %s is done again", path, FILE, step)
                    return None
            self._checked.add((step, item))
        return record

    def done(self, step: str, item: str, key: str, *, files: tuple[str, ...] = (), **fields: Any) -> Record:
        """Writes down what is finished, and returns the record.

        Args:
          step: its name.
          item: what it was done for.
          key: digest of what it depends on.
          files: finished files and folders, relative to the manifest's folder; their sha256 are recorded.
          fields: anything else that JSON can hold.
        """
        found = {name: digest_path(self.folder / name) for name in files}
        record = {"step": step, "item": item, "key": key, "status": DONE, **fields}
        self._checked.add((step, item))
        return self._append(record | ({"files": found} if found else {}))

    def failed(self, step: str, item: str, key: str, failure: Failure, **fields: Any) -> Record:
        """Writes down what went wrong, and returns the record."""
        record = {"step": step, "item": item, "key": key, "status": FAILED, "reason": failure.reason}
        if failure.suggestion:
            record["suggestion"] = failure.suggestion
        return self._append(record | fields)

    def _append(self, record: Mapping[str, Any]) -> Record:
        line = encode_row(record)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        plain: Record = json.loads(line)
        self._latest[plain["step"], plain["item"]] = plain
        return plain

    def close(self) -> None:
        """Gives the folder free."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parse(data: bytes, path: Path) -> Iterator[Record]:
    """The records of a manifest's lines.

    Raises:
      UserError: a line is no JSON object with step, item, key and status, or its files are no names with hashes.
    """
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is not JSON, expected one object per line") from error
        names = ("step", "item", "key", "status")
        if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in names):
            raise UserError(f"{path}: line {number} lacks one of {', '.join(names)}")
        files = record.get("files", {})
        if not isinstance(files, dict) or not all(isinstance(sha256, str) for sha256 in files.values()):
            raise UserError(f"{path}: line {number} has files {str(files)[:60]!r}, expected names with their sha256")
        yield record
