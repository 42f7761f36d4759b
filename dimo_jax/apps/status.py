"""`--app=status`: the state of a running or finished run, from its folder alone.

Without loading jax, as it is asked again and again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dimo_jax.core.errors import UserError
from dimo_jax.runtime import status
from dimo_jax.runtime.durations import format_span
from dimo_jax.runtime.files import read_json
from dimo_jax.runtime.lock import Owner, find_owner
from dimo_jax.runtime.manifest import read_time

DOING = {status.TRAINING: "training", status.SHOWING: "trained; evaluating and drawing"}
STATE = "state:       "
FACTS_FILE = "facts.json"  # of `restore`, which loads jax
SCORES = ("held_out_views", "held_out_frames", "static_baseline")


def run(*, workdir: str) -> None:
    """Prints how the run in `workdir` stands: whether a process works there, how far it is, its last scores, its
    motions.

    Of a folder in which an `--object_list` is trained it prints a line for each object that has begun.

    Args:
      workdir: folder of a training run, or of the runs of a list.

    Example:
      python launch.py --app=status --workdir=runs/dimo

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
        written = read_time(folder / "checkpoints" / str(steps[-1]))
        saved = "" if written is None else f" (the last {format_span(now - written)} ago)"
    lines.append(f"checkpoints: {', '.join(map(str, steps)) or 'none'}{saved}")
    return lines + _scores(summary or {}) + list_motions(read_json(folder / FACTS_FILE) or {})


def _scores(summary: Mapping[str, Any]) -> list[str]:
    """The figures of each score, and of each motion the PSNR of its figure on held-out views, the worst first."""
    lines: list[str] = []
    motions: dict[str, Mapping[str, Any]] = {}
    for name in SCORES:
        scores = summary.get(name)
        if isinstance(scores, dict):
            lines.append(f"{name.replace('_', ' ') + ':':<18} {', '.join(_figures(scores))}")
            if name != "static_baseline":
                motions = motions or {name: scores.get("motions") or {}}
    for name, each in motions.items():
        figures = {motion: row.get("psnr_foreground") for motion, row in each.items()}
        order = sorted(figures, key=lambda motion: (figures[motion] is None, figures[motion]))
        if order:
            lines.append(f"worst motion:      {order[0]}; PSNR of each motion's figure, {name.replace('_', ' ')}:")
        width = max(map(len, order), default=0)
        lines += [f"  {motion:<{width}}  {_decibels(figures[motion])}" for motion in order]
    return lines


def list_motions(facts: Mapping[str, Any]) -> list[str]:
    """The motions of a run, one a line: the name that other apps take, whether it trained, and what is said of it.

    `facts` as `restore.save_facts` writes them; of a run without them, or with none that can be read, there is no line.
    """
    names = facts.get("names")
    if not isinstance(names, list) or not names:
        return []
    splits = facts.get("splits") or ["train"] * len(names)
    captions = facts.get("captions") or [""] * len(names)
    counts = ", ".join(f"{splits.count(split)} {split}" for split in dict.fromkeys(splits))
    width = max(map(len, names))
    rows = [f"  {name:<{width}}  {split:<5}  {said}".rstrip() for name, split, said in zip(names, splits, captions)]
    return [f"motions:     {len(names)} ({counts})", *rows]


def _figures(scores: Mapping[str, Any]) -> Iterator[str]:
    for name, value in scores.items():
        is_none = name.endswith("_undefined") and not value
        if isinstance(value, int | float) and not (is_none or name.startswith("num_")):
            yield f"{name} {value:.4g}"


def _decibels(value: float | None) -> str:
    return "undefined" if value is None else f"{value:5.2f} dB"


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
    size = f", {facts['resolution']:.0f} px" if facts["resolution"] else ""  # 0: a run without pictures
    lines = [f"step:        {step} of {total} ({facts['stage']}{size})"]
    lines.append(f"loss:        {facts['loss']:.4g}, PSNR {facts['psnr']:.2f} dB of the training batch")
    if is_running and facts["state"] == status.TRAINING:
        left = "" if facts["seconds_left"] is None else f"; {format_span(facts['seconds_left'])} left at this speed"
        images = f", {facts['images_per_second']:.0f} images/s" if size else ""
        speed = f"{facts['steps_per_second']:.2f} steps/s{images}"
        lines.append(f"speed:       {speed}, {facts['memory_gib']:.1f} GiB{left}")
    lines.append(f"updated:     {format_span(now - facts['time'])} ago")
    return lines
