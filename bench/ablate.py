"""Trains variants with one budget and writes one table of their scores on held-out views.

    python -m bench.ablate --out=runs/ablations    # the demo and the paper's ablations
    python -m bench.ablate --out=runs/quarter --budget=0.25 \\
        --configs=configs/dimo.py:demo,configs/ablations/rigid_arap.py:demo

Each variant runs in a process of its own, with its workdir below `--out`. What has finished is not run again, and what
was interrupted goes on, so the same command with more configs extends the table. The budget is a share of each config's
steps, with every schedule shortened alike. A config file with `list_presets` (no_joint_training.py) becomes several
runs, whose means make one row. All rows are scored on the same views and motions as long as their data are the same.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from dimo_jax.checkpoints import config_sha256
from dimo_jax.errors import UserError

TABLE_5 = ("no_factorization", "no_latent_space", "no_pretraining", "no_joint_training")
DEFAULT = ["configs/dimo.py:demo", *(f"configs/ablations/{name}.py:demo" for name in TABLE_5)]
COLUMNS = (("psnr", "PSNR (dB)"), ("psnr_foreground", "PSNR fg (dB)"), ("ssim", "SSIM"), ("lpips_vgg", "LPIPS"))
STEPS = ("_from", "_until", "_every")
COUNTS = ("num_images", "num_lpips_images")

CONFIGS = flags.DEFINE_list("configs", DEFAULT, "config files with their config strings, separated by commas")
OUT = flags.DEFINE_string("out", "runs/ablations", "folder of all runs and of table.md")
BUDGET = flags.DEFINE_float("budget", 1.0, "share of each config's steps", lower_bound=1e-6)
ONE = flags.DEFINE_string("one", None, "run this config in this process, in the workdir --out, and end")


def load_module(spec: str) -> tuple[Any, str]:
    """The module of a config file "path.py:string" and its config string.

    Raises:
      UserError: no such file.
    """
    path, _, preset = spec.partition(":")
    if not Path(path).is_file():
        raise UserError(f"--configs: no file {path!r}, expected config files such as configs/dimo.py:demo")
    loader = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    return module, preset


def load_config(spec: str, budget: float) -> ConfigDict:
    """The config of "path.py:string", with its steps scaled by `budget`."""
    module, preset = load_module(spec)
    try:
        config = module.get_config(preset) if preset else module.get_config()
    except ValueError as error:
        raise UserError(f"--configs={spec}: {error}") from error
    return scale_steps(config, budget)


def scale_steps(config: ConfigDict, share: float) -> ConfigDict:
    """The config with all that counts steps multiplied by `share`: lengths, phases, schedules and density control.

    0 stays 0, anything else stays at least 1; the motion graph is refreshed, and the run logged and saved, as often as
    before. Changes `config` and returns it.
    """
    if share == 1:
        return config

    def scaled(steps: int) -> int:
        return max(1, round(share * steps)) if steps else 0

    for stage in (config.stage1, config.stage2):
        starts: dict[int, int] = {scaled(first): size for first, size in stage.phases}
        stage.phases = tuple(sorted(starts.items()))
        for name in stage:
            if name == "num_steps" or (name.endswith(STEPS) and name != "refresh_every"):
                stage[name] = scaled(stage[name])
        for spec in (*stage.rates.values(), *stage.losses.values()):
            for name in ("num_steps", "warmup_steps", "start"):
                if isinstance(spec, ConfigDict) and name in spec:
                    spec[name] = scaled(spec[name])
    return config


def expand(spec: str) -> list[str]:
    """The runs that a config stands for: itself, or those of its file's `list_presets`."""
    module, preset = load_module(spec)
    if not hasattr(module, "list_presets"):
        return [spec]
    return [f"{spec.partition(':')[0]}:{each}" for each in module.list_presets(preset)]


def name_run(spec: str) -> str:
    """A folder's name for a config: "configs/ablations/rigid_arap.py:demo" -> "rigid_arap_demo"."""
    path, _, preset = spec.partition(":")
    return "_".join(part for part in (Path(path).stem, preset.replace("@", "_")) if part)


def launch(spec: str, workdir: Path, budget: float) -> str:
    """Trains a config in a process of its own; returns what went wrong, or "". What it prints goes to `log.txt`."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    log = workdir.parent / f"{workdir.name}.log"
    command = [sys.executable, "-m", "bench.ablate", f"--one={spec}", f"--out={workdir}", f"--budget={budget!r}"]
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode == 0:
        return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{(lines or ['no output'])[-1][:200]} ({log})"


def read_finished(workdir: Path, config: ConfigDict) -> dict[str, Any] | None:
    """The summary of a run that has ended with this very config, or None."""
    try:
        summary: dict[str, Any] = json.loads((workdir / "summary.json").read_text())
    except (OSError, ValueError):
        return None
    return summary if summary.get("config_sha256") == config_sha256(config) else None


def run_all(
    specs: Sequence[str], out: Path, budget: float, *, start: Callable[[str, Path, float], str] = launch
) -> tuple[list[dict[str, Any]], list[str]]:
    """Runs what has not finished.

    Returns:
      A row per config (`name`, `num_runs`, `steps`, `seconds` of training, and the mean scores on held-out views), and
      what failed. A config with a failed run has no row.
    """
    rows, failures = [], []
    for spec in specs:
        summaries = []
        runs = expand(spec)
        for run in runs:
            config, workdir = load_config(run, budget), out / name_run(run)
            summary = read_finished(workdir, config)
            print(f"{run}: {'finished before' if summary else 'training in ' + str(workdir)}", flush=True)
            if summary is None:
                reason = start(run, workdir, budget)
                summary = read_finished(workdir, config)
                if summary is None:
                    failures.append(f"{run}: {reason or 'ended without summary.json'}")
                    continue
            summaries.append(summary | {"steps": config.stage1.num_steps + config.stage2.num_steps})
        if len(summaries) == len(runs):
            rows.append(make_row(name_run(spec), summaries))
    return rows, failures


def make_row(name: str, summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row: means of the scores over runs, sums of their training's seconds."""
    scores = [summary["held_out_views"] for summary in summaries]
    keys = [key for key, value in scores[0].items() if key not in COUNTS and isinstance(value, int | float)]
    row: dict[str, Any] = {key: float(np.mean([score[key] for score in scores])) for key in keys}
    seconds = sum(summary["seconds"]["stage1"] + summary["seconds"]["stage2"] for summary in summaries)
    return row | dict(name=name, num_runs=len(summaries), steps=summaries[0]["steps"], seconds=seconds)


def make_table(rows: Sequence[dict[str, Any]], *, budget: float) -> str:
    """Markdown; scores that a summary has beyond `COLUMNS` get columns of their own."""
    known = {key for key, _ in COLUMNS} | {"name", "num_runs", "steps", "seconds"}
    more = sorted({key for row in rows for key in row} - known)
    columns = [*COLUMNS, *((key, key) for key in more)]
    lines = ["| model | " + " | ".join(title for _, title in columns) + " | runs x steps | seconds |"]
    lines.append("|" + "---|" * (len(columns) + 3))
    for row in rows:
        values = [f"{row[key]:.2f}" if "PSNR" in title else f"{row[key]:.4f}" for key, title in columns if key in row]
        values += ["-"] * (len(columns) - len(values))
        lines.append(
            f"| {row['name']} | "
            + " | ".join(values)
            + f" | {row['num_runs']} x {row['steps']} | {row['seconds']:.0f} |"
        )
    note = f"Held-out views; {budget:g} of each config's steps; seconds of training in the last process of each run."
    return "\n".join([*lines, "", note, ""])


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"found {argv[1]!r}, expected only --flags")
    if ONE.value:
        from dimo_jax.apps import train

        train.run(config=load_config(ONE.value, BUDGET.value), workdir=OUT.value)
        return
    out = Path(OUT.value)
    rows, failures = run_all(CONFIGS.value, out, BUDGET.value)
    if rows:
        table = make_table(rows, budget=BUDGET.value)
        (out / "table.md").write_text(table)
        print(f"\n{table}\n{out / 'table.md'}")
    if failures:
        raise UserError(f"{len(failures)} of the runs failed: {'; '.join(failures)}")


if __name__ == "__main__":
    from dimo_jax.memory import keep_freed_memory

    keep_freed_memory()  # as launch.py does
    try:
        app.run(main)
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)
