"""Runs `worker`, and starts it anew where a program's compiler takes too long or ends the process."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from bench.compile.targets import Target
from bench.compile.worker import MARK
from dimo_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
# What lists the programs of a system, "module:function", and the preset of which there is most to know.
SYSTEMS = {
    "dimo": ("bench.compile.preset:list_of_preset", "paper"),
    "animax": ("bench.compile.generators:list_animax", "wan"),
    "atop": ("bench.compile.generators:list_atop", "imagedream"),
}
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "TPU_SKIP_MDS_QUERY": "1"}
ENVIRONMENT |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}  # no chip is used, so that several may compile at a time
_START_S = 600.0  # until the programs are known


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be compiled."""

    target: Target
    num_devices: int
    names: tuple[str, ...]  # of programs; () for all
    arguments: Mapping[str, Any]  # of `source`, as JSON has them
    source: str = SYSTEMS["dimo"][0]  # "module:function" that lists programs
    limit_s: float = 600.0  # for each program


def run(job: Job, python: Path, tell: Callable[[str, dict[str, Any]], None]) -> dict[str, dict[str, Any]]:
    """Compiles the programs of a job with the environment's `python`; `tell` hears of each when it is known.

    Returns:
      name -> what `compiler.describe` says, or `error`.

    Raises:
      UserError: the programs cannot be listed.
    """
    results: dict[str, dict[str, Any]] = {}
    while not _run_once(job, python, results, tell):
        pass
    return results


def _run_once(job: Job, python: Path, results: dict[str, Any], tell: Callable[[str, dict[str, Any]], None]) -> bool:
    """Whether all is done; else a program is the poorer by an `error`, and the rest is to be compiled by another."""
    request = dict(
        target=job.target.name,
        num_devices=job.num_devices,
        names=job.names,
        done=list(results),
        source=job.source,
        arguments=dict(job.arguments),
    )
    environment = (
        os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    )
    environment.pop("XLA_FLAGS", None)
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [str(python), "-m", "bench.compile.worker", json.dumps(request)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            return _listen(job, process, errors, results, tell)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _listen(
    job: Job, process: subprocess.Popen[str], errors: IO[str], results: dict[str, Any], tell: Callable[..., None]
) -> bool:
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    current: dict[str, Any] | None = None
    wanted = set(job.names)
    while True:
        try:
            line = lines.get(timeout=job.limit_s if current else _START_S)
        except queue.Empty:
            if current is None:
                raise UserError(f"--target={job.target.name}: no program was listed in {_START_S:g} s") from None
            _fail(current, f"not compiled in {job.limit_s:g} s (--limit)", results, tell)
            return wanted <= results.keys()
        if line is None:
            break
        event = json.loads(line)
        if event["kind"] == "refused":
            raise UserError(event["message"])
        if event["kind"] == "programs":
            if unknown := [name for name in job.names if name not in event["names"]]:
                raise UserError(f"--programs={unknown[0]}: expected some of {', '.join(event['names'])}")
            wanted = set(job.names or event["names"])
        elif event["kind"] == "begins":
            current = event
        else:
            current = None
            results[event["name"]] = event["found"]
            tell(event["name"], event["found"])
    if process.wait() == 0:
        return True
    errors.seek(0)
    last = next((line.strip() for line in reversed(deque(errors, maxlen=50)) if line.strip()), "nothing said")
    how = f"the compiler ended with code {process.returncode}: {last[:200]}"
    if current is None:
        raise UserError(f"--target={job.target.name}: {how}")
    _fail(current, how, results, tell)
    return wanted <= results.keys()


def _fail(current: dict[str, Any], message: str, results: dict[str, Any], tell: Callable[..., None]) -> None:
    results[current["name"]] = dict(error=message, is_step=current["is_step"])
    tell(current["name"], results[current["name"]])


def _read(stream: IO[str] | None, lines: queue.Queue[str | None]) -> None:
    for line in stream or ():
        if line.startswith(MARK):
            lines.put(line.removeprefix(MARK))
    lines.put(None)
