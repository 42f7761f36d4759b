"""Trains variants with one budget and writes one table of their scores on held-out views.

    python -m bench.ablate --out=runs/ablations    # the demo and the paper's ablations
    python -m bench.ablate --out=runs/quarter --budget=0.25 \\
        --configs=configs/dimo.py:demo,configs/ablations/rigid_arap.py:demo
    python -m bench.ablate --out=runs/small --set=stage2.num_per_key_point=12 --set=batch.frames=2

Each variant runs in a process of its own, with its workdir below `--out`. What has finished is not run again, and what
was interrupted goes on, so the same command with more configs extends the table. The budget is a share of each config's
steps, with every schedule shortened alike; "@0.02" behind a config gives it a budget of its own, for variants whose
step costs more. A config file with `list_presets` (no_joint_training.py) becomes several runs that make one row.

Every motion that a run was trained on is scored over all held-out views: PSNR and LPIPS (AlexNet) over the frames that
trained, FVD over whole videos. Where some row lacks motions of another (one model per motion, for a few of them), a
second table has all rows on the motions that they share.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from bench.presets import apply_change, load_module
from dimo_jax.apps.train import train
from dimo_jax.cameras.orbits import select_cameras
from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset, motions_in, train_frames, views_in
from dimo_jax.metrics.fvd import frechet_distance, video_features
from dimo_jax.metrics.means import mean_defined
from dimo_jax.metrics.scores import Scores
from dimo_jax.runs.build import stretch
from dimo_jax.runtime.files import replace_file
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training.config_file import config_sha256
from dimo_jax.training.images import composite_truth

TABLE_5 = ("no_factorization", "no_latent_space", "no_pretraining", "no_joint_training")
DEFAULT = ["configs/dimo.py:demo", *(f"configs/ablations/{name}.py:demo" for name in TABLE_5)]
IMAGE_SCORES = ("psnr", "psnr_foreground", "ssim", "lpips_alex")
FILE = "ablation.npz"

CONFIGS = flags.DEFINE_list("configs", DEFAULT, "config files with their config strings, separated by commas")
OUT = flags.DEFINE_string("out", "runs/ablations", "folder of all runs and of table.md")
BUDGET = flags.DEFINE_float("budget", 1.0, "share of each config's steps", lower_bound=1e-6)
SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE, a change to every config; may be given several times")
ONE = flags.DEFINE_string("one", None, "run this config in this process, in the workdir --out, and end")


class Plan(NamedTuple):
    """What one row of the table trains."""

    spec: str  # "path.py:string"
    budget: float
    changes: tuple[str, ...] = ()  # "key=value"


@dataclass(frozen=True)
class Result:
    """Scores of one run, one entry a motion."""

    names: tuple[str, ...]  # [m]
    scores: dict[str, np.ndarray]  # by name of `IMAGE_SCORES`, [m] means over held-out views and trained frames, or NaN
    predicted: np.ndarray  # [m,V,400] features of whole held-out videos
    truth: np.ndarray  # [m,V,400]
    steps: int
    seconds: float  # of training, in the run's last process


def parse_plan(text: str, *, budget: float, changes: Sequence[str] = ()) -> Plan:
    """A config of `--configs`, whose own budget may stand behind the last "@": "no_factorization.py:demo@0.02".

    A whole number there is part of the config string (`no_joint_training.py:demo@3`).
    """
    spec, _, own = text.rpartition("@")
    if spec and "." in own:
        try:
            return Plan(spec, float(own), tuple(changes))
        except ValueError as error:
            raise UserError(f"--configs={text}: found {own!r} after the @, expected a share of the steps") from error
    return Plan(text, budget, tuple(changes))


def load_config(plan: Plan) -> ConfigDict:
    """The config of a plan, with its steps scaled by the budget."""
    module, preset = load_module(plan.spec)
    try:
        config = module.get_config(preset) if preset else module.get_config()
    except ValueError as error:
        raise UserError(f"--configs={plan.spec}: {error}") from error
    for change in plan.changes:
        apply_change(config, change)
    return stretch(config, plan.budget)


def expand(plan: Plan) -> list[Plan]:
    """The runs that a config stands for: itself, or those of its file's `list_presets`."""
    module, preset = load_module(plan.spec)
    if not hasattr(module, "list_presets"):
        return [plan]
    path = plan.spec.partition(":")[0]
    return [plan._replace(spec=f"{path}:{each}") for each in module.list_presets(preset)]


def name_run(spec: str) -> str:
    """A folder's name for a config: "configs/ablations/rigid_arap.py:demo" -> "rigid_arap_demo"."""
    path, _, preset = spec.partition(":")
    return "_".join(part for part in (Path(path).stem, preset.replace("@", "_").replace("+", "_")) if part)


def launch(plan: Plan, workdir: Path) -> str:
    """Trains a config in a process of its own; returns what went wrong, or "". What it prints goes to `log.txt`."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    log = workdir.parent / f"{workdir.name}.log"
    command = [sys.executable, "-m", "bench.ablate", f"--one={plan.spec}", f"--out={workdir}"]
    with log.open("w") as file:
        done = subprocess.run(
            [*command, f"--budget={plan.budget!r}", *(f"--set={change}" for change in plan.changes)],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode == 0:
        return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{(lines or ['no output'])[-1][:200]} ({log})"


def train_and_score(plan: Plan, workdir: Path) -> None:
    """Trains a config in this process and keeps its scores in `workdir/ablation.npz`."""
    config = load_config(plan)
    dataset, trained = train(config, workdir)
    player = Player(config, trained.system.components, trained.state, num_frames=dataset.num_frames)
    steps = trained.system.stages[-1].last_step
    seconds = sum(trained.seconds.values())
    result = score(player, dataset, config, steps=steps, seconds=seconds, cache=workdir.parent / "truth")
    write_result(workdir, result, config)


def true_features(videos: np.ndarray, cache: Path) -> np.ndarray:
    """`video_features` of true videos [V,T,H,W,3], kept in the folder `cache` for the other runs."""
    path = cache / f"{hashlib.sha256(np.ascontiguousarray(videos).tobytes()).hexdigest()}.npy"
    if not path.exists():
        with replace_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, video_features(videos), allow_pickle=False)
    return np.asarray(np.load(path, allow_pickle=False))


def score(player: Player, dataset: Dataset, config: ConfigDict, *, steps: int, seconds: float, cache: Path) -> Result:
    """Scores of all training motions of a run on the held-out views; `cache` as in `true_features`."""
    views, frames = views_in(dataset, "test"), train_frames(dataset, config.data.held_out_every)
    cameras = select_cameras(dataset.cameras, views)
    names: list[str] = []
    means: dict[str, list[float]] = {name: [] for name in IMAGE_SCORES}
    features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for motion in motions_in(dataset, "train"):
        rgb, _ = player.render(player.play(player.latent(int(motion)), dataset.times).gaussians, cameras)
        truth, alpha = composite_truth(jnp.asarray(dataset.frames[motion, views]), player.background)
        features[0].append(video_features(rgb))
        features[1].append(true_features(np.asarray(truth), cache))
        scores = Scores(("alex",))
        pictures = [x[:, frames].reshape(-1, *x.shape[2:]) for x in (jnp.asarray(rgb), truth, alpha)]
        seen = [(motion, view, frame) for view in views for frame in frames]
        scores.add(pictures[0], pictures[1], pictures[2] > 0.5, np.arange(len(seen)), seen)
        summary = scores.summary()
        for name in IMAGE_SCORES:
            means[name].append(np.nan if summary[name] is None else summary[name])
        names.append(dataset.names[motion])
    arrays = {name: np.asarray(values) for name, values in means.items()}
    return Result(tuple(names), arrays, np.stack(features[0]), np.stack(features[1]), steps, seconds)


def write_result(workdir: Path, result: Result, config: ConfigDict) -> None:
    """Keeps a run's scores in its workdir, with the hash of its config."""
    with replace_file(workdir / FILE) as temporary:
        np.savez(
            temporary,
            allow_pickle=False,
            config=np.asarray(config_sha256(config)),
            names=np.asarray(result.names),
            predicted=result.predicted,
            truth=result.truth,
            steps=np.asarray(result.steps),
            seconds=np.asarray(result.seconds),
            **result.scores,
        )


def read_result(workdir: Path, config: ConfigDict) -> Result | None:
    """The scores of a run that has ended with this very config, or None."""
    try:
        with np.load(workdir / FILE, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError):
        return None
    if str(arrays["config"]) != config_sha256(config):
        return None
    return Result(
        names=tuple(str(name) for name in arrays["names"]),
        scores={name: arrays[name] for name in IMAGE_SCORES},
        predicted=arrays["predicted"],
        truth=arrays["truth"],
        steps=int(arrays["steps"]),
        seconds=float(arrays["seconds"]),
    )


def run_all(
    plans: Sequence[Plan], out: Path, *, start: Callable[[Plan, Path], str] = launch
) -> tuple[dict[str, list[Result]], list[str]]:
    """Runs what has not finished.

    Returns:
      The results of each config's runs by its name, and what failed. A config with a failed run has no results.
    """
    rows: dict[str, list[Result]] = {}
    failures = []
    for plan in plans:
        results = []
        runs = expand(plan)
        for run in runs:
            config, workdir = load_config(run), out / name_run(run.spec)
            result = read_result(workdir, config)
            print(f"{run.spec}: {'finished before' if result else f'training in {workdir}'}", flush=True)
            if result is None:
                begin = time.perf_counter()
                reason = start(run, workdir)
                result = read_result(workdir, config)
                if result is None:
                    failures.append(f"{run.spec}: {reason or f'ended without {FILE}'}")
                    continue
                print(f"{run.spec}: {time.perf_counter() - begin:.0f} s", flush=True)
            results.append(result)
        if len(results) == len(runs):
            rows[name_run(plan.spec)] = results
    return rows, failures


def make_row(name: str, results: Sequence[Result], motions: Sequence[str]) -> str:
    """One line of the table: means over `motions`, one FVD over all their videos, sums of training's seconds."""
    known = [(result, [result.names.index(m) for m in motions if m in result.names]) for result in results]
    values = {
        score: mean_defined(np.concatenate([result.scores[score][chosen] for result, chosen in known])).value
        for score in IMAGE_SCORES
    }
    shown = [
        "-" if values[score] is None else f"{values[score]:.{2 if 'psnr' in score else 4}f}" for score in IMAGE_SCORES
    ]
    predicted, truth = (
        np.concatenate([side[chosen].reshape(-1, side.shape[-1]) for side, chosen in sides])
        for sides in (
            [(result.predicted, chosen) for result, chosen in known],
            [(result.truth, chosen) for result, chosen in known],
        )
    )
    fvd = f"{frechet_distance(predicted, truth):.1f}" if len(predicted) > 1 else "-"
    seconds = sum(result.seconds for result in results)
    return f"| {name} | {' | '.join(shown)} | {fvd} | {len(results)} x {results[0].steps} | {seconds:.0f} |"


def make_tables(rows: dict[str, list[Result]], *, budget: float) -> str:
    """Markdown: all rows that have every motion and, where some have fewer, all rows on the motions that they share."""
    motions = {name: [motion for result in results for motion in result.names] for name, results in rows.items()}
    every = max(motions.values(), key=len)
    shared = [motion for motion in every if all(motion in names for names in motions.values())]
    parts = [(every, [name for name in rows if set(every) <= set(motions[name])])]
    if len(shared) < len(every):
        parts.append((shared, list(rows) if shared else []))
    lines = []
    for chosen, names in parts:
        lines += [f"{len(chosen)} motions:", ""]
        lines.append("| model | PSNR (dB) | PSNR fg (dB) | SSIM | LPIPS (AlexNet) | FVD | runs x steps | seconds |")
        lines.append("|" + "---|" * 8)
        lines += [make_row(name, rows[name], chosen) for name in names]
        lines.append("")
    lines.append(
        f"Held-out views; {budget:g} of each config's steps; seconds of training in the last process of each run. "
        "One seed a row: what two seeds of one config differ by is not in the table, so see more (--set=seed=1) before "
        "a difference is believed."
    )
    return "\n".join([*lines, ""])


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"found {argv[1]!r}, expected only --flags")
    if ONE.value:
        train_and_score(Plan(ONE.value, BUDGET.value, tuple(SET.value)), Path(OUT.value))
        return
    out = Path(OUT.value)
    plans = [parse_plan(text, budget=BUDGET.value, changes=SET.value) for text in CONFIGS.value]
    rows, failures = run_all(plans, out)
    if rows:
        table = make_tables(rows, budget=BUDGET.value)
        (out / "table.md").write_text(table)
        print(f"\n{table}\n{out / 'table.md'}")
    if failures:
        raise UserError(f"{len(failures)} of the runs failed: {'; '.join(failures)}")


if __name__ == "__main__":
    from dimo_jax.runtime.compiler import leave_reductions_to_xla
    from dimo_jax.runtime.memory import keep_freed_memory

    keep_freed_memory()  # as launch.py does
    leave_reductions_to_xla()
    try:
        app.run(main)
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)
