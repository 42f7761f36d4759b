"""Trains several subjects for so many seconds, with several seeds, and prints how good what they show is.

    python -m bench.quality --budget=300 --seeds=3 --data=../shared/data --out=quality.json
    python -m bench.quality --subjects=puppet --config=my_config.py:demo --runs=runs/other

Subjects: `puppet` (embedded, the preset's own 16 motions), `knight` (15 clips at 128 px), and two rigs of other shapes,
`fox` (four legs) and `spider`. Those whose file is not in `--data` are left out, and named.

The budget is seconds of the steps of all stages on this machine as it is now, compilation left out: a short run tells
the pace of each phase, and all schedules are stretched alike to fill the budget. What differs between configs is
therefore compared at equal time. Every run is a process of its own; what has finished is not run again.

Figures: PSNR over the frame and the figure, LPIPS (VGG, on 64 pictures drawn evenly) and sharpness (high-frequency
energy as a share of the truth's) on held-out views, PSNR on held-out frames, and the centres' distance from the surface
as a share of the height; mean and spread (half of largest less smallest) over the seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from bench.presets import load_module
from dimo_jax.apps import import_data
from dimo_jax.apps.train import train
from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset, held_out_frames, motions_in, train_frames, views_in
from dimo_jax.io.metrics_log import read_metrics
from dimo_jax.metrics.means import mean_defined
from dimo_jax.metrics.sharpness import sharpness
from dimo_jax.runs.build import stretch
from dimo_jax.runs.evaluation import measure_surface_distance, play_motions, score
from dimo_jax.runtime.compiler import leave_reductions_to_xla
from dimo_jax.runtime.files import write_json
from dimo_jax.runtime.memory import keep_freed_memory
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training.images import composite_truth

PROBE = 0.08  # share of the steps of the run that tells the pace
NUM_LPIPS = 64
CLIPS = "Walking_A,Running_A,Jump_Full_Short,1H_Melee_Attack_*,Cheer,Death_B,Sit_*_Down"
HIDE = "1H_Sword_Offhand,2H_Sword,Badge_Shield,Rectangle_Shield,Spike_Shield"
SOURCES: dict[str, dict[str, Any]] = {
    "knight": dict(file="knight.glb", clips=CLIPS, hide=HIDE),
    "fox": dict(file="rigs/m2m_fox-animations.glb"),
    "spider": dict(file="rigs/q_Spider.glb"),
}
FIGURES = ("psnr_foreground", "psnr", "lpips", "sharpness", "frames_foreground", "frames", "surface", "seconds")


class Settings(NamedTuple):
    """What the command line says."""

    config: str = "configs/dimo.py:demo"
    budget: float = 300.0
    seeds: int = 3
    subjects: tuple[str, ...] = ("puppet", *SOURCES)
    data: str = "../shared/data"
    runs: str = "runs/quality"
    out: str = ""
    one: str = ""


class Pace(NamedTuple):
    """What a whole run of a config would take on this machine."""

    seconds: float  # of all steps, without compilation


def load_config(subject: str, seed: int, settings: Settings) -> ConfigDict:
    """The config of a subject's run, at its own length."""
    module, preset = load_module(settings.config)
    config: ConfigDict = module.get_config(preset) if preset else module.get_config()
    config.seed = seed
    if subject != "puppet":
        config.data.path = str(Path(settings.runs) / "data" / subject)
    return config


def prepare(subject: str, settings: Settings) -> bool:
    """Imports a subject's data; False where its file is not there."""
    source = SOURCES.get(subject)
    if source is None:
        return True
    path = Path(settings.data) / source["file"]
    if not path.is_file():
        return False
    options = {name: value for name, value in source.items() if name != "file"}
    import_data.run(source=str(path), out=str(Path(settings.runs) / "data" / subject), size=128, **options)
    return True


def measure_pace(rows: list[dict[str, Any]], config: ConfigDict) -> Pace:
    """From the metrics of a short run: each phase's steps at the speed of its last rows.

    Raises:
      UserError: a phase of which no row tells the speed.
    """
    seconds = 0.0
    for name in ("stage1", "stage2", "stage3"):
        stage = config[name]
        if not stage.num_steps:
            continue
        ends = [first for first, _ in stage.phases[1:]] + [stage.num_steps]
        for (first, size), end in zip(stage.phases, ends, strict=True):
            rates = [row["steps_per_second"] for row in rows if (row["stage"], row["resolution"]) == (name, size)]
            if not rates:
                raise UserError(f"bench.quality: found no row of {name} at {size} px, expected one of each phase")
            seconds += (end - first) / float(np.median(rates[1:] or rates))
    return Pace(seconds)


def find_sharpness(player: Player, dataset: Dataset, views: np.ndarray, frames: np.ndarray) -> float | None:
    """Mean over the training motions, the views and the frames."""
    found = []
    for motion, rgb in play_motions(player, dataset, views, frames):
        raw = jnp.asarray(dataset.frames[motion][np.ix_(views, frames)])
        truth, alpha = composite_truth(raw.reshape(-1, *raw.shape[2:]), player.background)
        found.append(sharpness(jnp.asarray(rgb).reshape(truth.shape), truth, alpha > 0.5))
    return mean_defined(np.concatenate(found)).value


def run_one(subject: str, seed: int, folder: Path, settings: Settings) -> dict[str, Any]:
    """Trains and scores one run; returns its figures."""
    whole = load_config(subject, seed, settings)
    probe = stretch(load_config(subject, seed, settings), PROBE)
    probe.log_every, probe.image_every = 4, 0
    dataset, _ = train(probe, folder / "probe")
    pace = measure_pace(read_metrics(folder / "probe/metrics.jsonl"), whole)
    share = settings.budget / pace.seconds
    logging.info("%s: a whole run would take %.0f s, so all schedules are stretched by %.2f", subject, *pace, share)
    config = stretch(whole, share)
    dataset, trained = train(config, folder / "run")
    player = Player(config, trained.system.components, trained.state, num_frames=dataset.num_frames)
    figures: dict[str, Any] = {"seconds": sum(trained.seconds.values()), "stretched_by": share}
    every = config.data.held_out_every
    common: dict[str, Any] = dict(background=player.background, num_lpips_images=NUM_LPIPS)
    views, frames = views_in(dataset, "test"), train_frames(dataset, every)
    seen = score(dataset, play_motions(player, dataset, views, frames), views=views, frames=frames, **common)
    figures |= dict(psnr=seen["psnr"], psnr_foreground=seen["psnr_foreground"], lpips=seen["lpips_vgg"])
    figures["sharpness"] = find_sharpness(player, dataset, views, frames)
    views, frames = views_in(dataset, "train"), held_out_frames(dataset, every)
    common["num_lpips_images"] = 1
    held = score(dataset, play_motions(player, dataset, views, frames), views=views, frames=frames, **common)
    figures |= dict(frames=held["psnr"], frames_foreground=held["psnr_foreground"])
    figures["surface"] = measure_surface_distance(player, dataset, num_points=1_000)
    figures["num_motions"] = len(motions_in(dataset, "train"))
    return figures


def launch(subject: str, seed: int, folder: Path, settings: Settings) -> dict[str, Any]:
    """The figures of a run, in a process of its own where it has not finished before.

    Raises:
      UserError: the run failed.
    """
    path = folder / "figures.json"
    wanted = dict(config=settings.config, budget=settings.budget)
    if path.exists() and {name: json.loads(path.read_text()).get(name) for name in wanted} == wanted:
        return dict(json.loads(path.read_text()))
    command = [sys.executable, "-m", "bench.quality", f"--one={subject}:{seed}", f"--runs={settings.runs}"]
    command += [f"--config={settings.config}", f"--budget={settings.budget}", f"--data={settings.data}"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise UserError(f"{subject}, seed {seed}: the run failed, see {folder / 'log.txt'}")
    return dict(json.loads(path.read_text()))


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread over seeds of every figure."""
    found: dict[str, Any] = {"runs": [dict(run) for run in runs]}
    for name in FIGURES:
        values = [run[name] for run in runs if run[name] is not None]
        found[name] = float(np.mean(values)) if values else None
        found[f"{name}_spread"] = (max(values) - min(values)) / 2 if values else None
    return found


def describe(subject: str, found: Mapping[str, Any]) -> str:
    """A row of the table."""
    digits = dict(lpips=4, sharpness=3, surface=4, seconds=0)

    def show(name: str) -> str:
        if found[name] is None:
            return "-"
        count = digits.get(name, 2)
        return f"{found[name]:.{count}f} ± {found[f'{name}_spread']:.{count}f}"

    cells = [show(name) for name in FIGURES]
    return f"| {subject} | {' | '.join(cells)} |"


def read_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Parses the command line (default: that of the process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Settings()
    parser.add_argument("--config", default=usual.config, help="config file with its config string")
    parser.add_argument("--budget", type=float, default=usual.budget, help="seconds of training")
    parser.add_argument("--seeds", type=int, default=usual.seeds, help="runs of each subject")
    parser.add_argument("--subjects", type=lambda text: tuple(text.split(",")), default=usual.subjects)
    parser.add_argument("--data", default=usual.data, help="folder with knight.glb and rigs/")
    parser.add_argument("--runs", default=usual.runs, help="folder of all runs")
    parser.add_argument("--out", default=usual.out, help="JSON file for the figures")
    parser.add_argument("--one", default=usual.one, help="SUBJECT:SEED to run in this process, into --runs")
    settings = Settings(**vars(parser.parse_args(arguments)))
    for subject in settings.subjects:
        if subject not in usual.subjects:
            parser.error(f"--subjects: found {subject!r}, expected some of {', '.join(usual.subjects)}")
    if settings.budget <= 0 or settings.seeds < 1:
        parser.error("--budget, --seeds: expected more than 0 seconds and at least 1 seed")
    return settings


def main(settings: Settings) -> None:
    """Runs all subjects and seeds, prints the table, writes the JSON."""
    logging.set_verbosity(logging.INFO)
    if settings.one:
        subject, _, seed = settings.one.partition(":")
        folder = Path(settings.runs) / f"{subject}_{seed}"
        figures = run_one(subject, int(seed), folder, settings)
        write_json(figures | dict(config=settings.config, budget=settings.budget), folder / "figures.json")
        return
    results: dict[str, Any] = {}
    print(f"| subject | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}", flush=True)
    for subject in settings.subjects:
        if not prepare(subject, settings):
            print(f"{subject}: left out, {Path(settings.data) / SOURCES[subject]['file']} is not there", flush=True)
            continue
        runs = [
            launch(subject, seed, Path(settings.runs) / f"{subject}_{seed}", settings) for seed in range(settings.seeds)
        ]
        results[subject] = summarize(runs)
        print(describe(subject, results[subject]), flush=True)
    if settings.out:
        write_json(
            dict(config=settings.config, budget=settings.budget, seeds=settings.seeds, subjects=results),
            Path(settings.out),
        )


if __name__ == "__main__":
    keep_freed_memory()
    leave_reductions_to_xla()
    main(read_settings())
