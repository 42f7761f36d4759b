"""`--app=status`: the state of a running or finished run, from its folder alone and without loading jax."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimo_jax.errors import UserError
from dimo_jax.workdir import status
from dimo_jax.workdir.files import read_json
from dimo_jax.workdir.lock import Owner, find_owner
from dimo_jax.workdir.spans import format_span

DOING = {status.TRAINING: "training", status.SHOWING: "trained; evaluating and drawing"}
STATE = "state:       "
SCORES = ("held_out_views", "held_out_frames", "static_baseline")


def run(*, workdir: str) -> None:
    """Prints how the run in `workdir` stands: whether a process works there, how far it is, its last scores.

    Of a folder in which an `--object_list` is trained it prints a line for each object that has begun.

    Raises:
      UserError: there is no run.
    """
    print("\n".join(report(Path(workdir), time.time())))


def report(folder: Path, now: float) -> list[str]:
    """The lines that `run` prints; `now` in seconds since 1970.

    Raises:
      UserError: there is no run in `folder`.
    """
    if not folder.is_dir():
        raise UserError(f"--workdir={folder}: no such folder, expected the workdir of a training run")
    owner, facts = find_owner(folder), status.read_status(folder)
    summary = read_json(folder / "summary.json")
    objects = [] if (folder / "config.json").is_file() else sorted(each.parent for each in folder.glob("*/config.json"))
    if objects and (folder / "logs").is_dir():  # the workdir of an --object_list
        states = {each: report(each, now)[0].removeprefix(STATE) for each in objects}
        return [f"{each.name + ':':<{max(len(x.name) for x in objects) + 1}} {state}" for each, state in states.items()]
    if not (folder / "config.json").is_file() and (owner is None or not owner.alive):
        raise UserError(f"--workdir={folder}: no config.json in it, expected the workdir of a training run")
    lines = [f"{STATE}{_state(owner, facts, summary)}"]
    if facts.get("step"):
        is_running = owner is not None and owner.alive
        try:
            lines += _progress(facts, now, is_running=is_running)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{folder / status.STATUS_FILE}: is damaged ({reason}), expected a run's facts") from error
    steps = sorted(int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdecimal())
    saved = ""
    if steps:
        age = now - (folder / "checkpoints" / str(steps[-1])).stat().st_mtime
        saved = f" (the last {format_span(age)} ago)"
    lines.append(f"checkpoints: {', '.join(map(str, steps)) or 'none'}{saved}")
    for name in SCORES:
        scores = (summary or {}).get(name)
        if isinstance(scores, dict):
            numbers = ", ".join(
                f"{key} {value:.4g}"
                for key, value in scores.items()
                if key != "num_images" and isinstance(value, (int, float))
            )
            lines.append(f"{name.replace('_', ' ') + ':':<18} {numbers}")
    return lines


def _state(owner: Owner | None, facts: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    state, why = facts.get("state"), facts.get("message", "")
    if owner is not None and owner.alive:
        return f"running, {DOING.get(str(state), 'starting')} ({owner})"
    if state == status.STOPPED:
        return f"stopped: {why}"
    if state == status.FAILED:
        return f"failed: {why}"
    if state == status.FINISHED or (state is None and summary is not None):
        return "finished"
    if owner is not None:
        return f"ended without a word, as after kill -9 or a power cut ({owner}); the same command goes on"
    return "not finished; the same command goes on"


def _progress(facts: Mapping[str, Any], now: float, *, is_running: bool) -> list[str]:
    step, total = facts["step"], facts["num_steps"]
    lines = [f"step:        {step} of {total} ({facts['stage']}, {facts['resolution']:.0f} px)"]
    lines.append(f"loss:        {facts['loss']:.4g}, PSNR {facts['psnr']:.2f} dB of the training batch")
    if is_running and facts["state"] == status.TRAINING:
        left = "" if facts["seconds_left"] is None else f"; {format_span(facts['seconds_left'])} left at this speed"
        speed = f"{facts['steps_per_second']:.2f} steps/s, {facts['images_per_second']:.0f} images/s"
        lines.append(f"speed:       {speed}, {facts['memory_gib']:.1f} GiB{left}")
    lines.append(f"updated:     {format_span(now - facts['time'])} ago")
    return lines
