"""`--app=train`: learns a motion space and shows it: scores, pictures and `report.html` in the workdir."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_folder
from dimo_jax.core.resolve import resolve
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.sources import load
from dimo_jax.io.metrics_log import Board, MetricsLog
from dimo_jax.render import choose_backend
from dimo_jax.runs.build import build_system
from dimo_jax.runs.build import stretch as stretch_config
from dimo_jax.runs.checks import check_config, check_dataset, check_same, check_weights, check_workdir
from dimo_jax.runs.disk_space import check_disk_space
from dimo_jax.runs.lifecycle import occupy, save_failure
from dimo_jax.runs.objects import train_objects
from dimo_jax.runs.recorder import Recorder, peak_memory_gib
from dimo_jax.runs.restore import FACTS_FILE, load_data, read_facts, save_facts
from dimo_jax.runtime import hosts
from dimo_jax.runtime.files import write_json
from dimo_jax.runtime.signals import Signals
from dimo_jax.runtime.status import SHOWING, write_status
from dimo_jax.systems.dimo.estimate import estimate_hours
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import config_sha256, save_config
from dimo_jax.training.loop import Trained, Watcher, fit
from dimo_jax.training.system import System
from dimo_jax.training.tracker import LossNotFinite
from dimo_jax.views.summary import write_summary_report

Show = Callable[[ConfigDict, Dataset, Trained, Path, Mapping[str, float]], None]
PRESETS = ("paper", "official", "demo", "fifty", "smoke")  # of configs/dimo.py
OUTCOME = dict(fn="dimo_jax.views.outcome:show_motions")  # of runs whose config names none
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "numpy")


class Silent:
    """Stands for `Recorder` in the processes of a run that do not write."""

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Nothing."""

    def images(self, step: int, stage: str, histograms: Mapping[str, np.ndarray], preview: np.ndarray) -> None:
        """Nothing."""

    def resumed(self, step: int) -> None:
        """Nothing."""


def run(*, config: ConfigDict, workdir: str, stretch: float = 1.0, object_list: str = "", shard: str = "") -> None:
    """Trains by `config` in `workdir`, or continues there; then evaluates, draws and reports.

    With `object_list` it does so for each of its objects, or for a share of them, in folders of `workdir`.

    Args:
      config: a file such as configs/dimo.py, or configs/dimo.py:demo for one of its presets.
      workdir: folder of the run: checkpoints, metrics, pictures, report.
      stretch: how many times as many steps as the config says, all schedules stretched alike: 1.6 takes longer and
        mostly is sharper, .3 is a first look.
      object_list: a file that names a dataset folder, and a name for it, on every line.
      shard: I/N, to train every N-th object of the list from the I-th (0...) on.

    Example:
      python launch.py --config=configs/dimo.py --workdir=runs/dimo
      python launch.py --config=configs/dimo.py --workdir=runs/sharper --stretch=2
      python launch.py --config=configs/dimo.py --config.data.path=data/character --workdir=runs/character

    Raises:
      UserError: bad data, a config that does not fit it, a workdir of another run or one in use, or too little room.
        Nothing is written then.
      LossNotFinite: training ended at a loss or a parameter that is NaN or infinite; what made it is saved for replay.
      WriteFailed: the disk filled up; the last checkpoint is intact.
      Stopped: SIGTERM or SIGINT; all is saved, and the same call goes on.
    """
    if shard and not object_list:
        raise UserError("--shard: found without --object_list, expected the list that it is a share of")
    if object_list:
        check_folder(workdir, "workdir")
        train_objects(object_list, shard, workdir)
        return
    if stretch != 1:
        check_config(config)
        config = stretch_config(config, stretch)
    start = time.perf_counter()
    folder = Path(workdir)
    train(config, folder, then=functools.partial(show, start=start))


def train(config: ConfigDict, folder: Path, *, then: Show | None = None) -> tuple[Dataset, Trained]:
    """Trains by `config` in the workdir `folder`, or goes on there.

    Args:
      config: of the run.
      folder: is locked while it trains, and until `then` returns.
      then: is called with config, data, model, folder and the seconds that loading and each stage took, by the one
        process of a run that writes; the others wait for it.

    Raises:
      UserError: as `run`.
    """
    start = time.perf_counter()
    check_config(config)
    check_workdir(config, folder)
    _announce(config)
    with Signals() as signals:
        began = (folder / FACTS_FILE).is_file()
        dataset = load_data(config, read_facts(folder)) if began else load(config.data)
        check_dataset(config, dataset)
        system = build_system(config, dataset)
        check_weights(system)
        check_disk_space(config, system, folder)
        seconds = {"data": time.perf_counter() - start}
        hosts.wait_for_all("the data is there")
        check_same({"config": config_sha256(config), "dataset": f"{dataset.names} {dataset.frames.shape}"})
        with occupy(folder):
            if hosts.is_writer():
                save_config(config, folder)
                save_facts(dataset, folder, system=system.facts())
            hosts.wait_for_all("the run is described in its workdir")
            trained = learn(config, system, dataset, folder, signals)
            if then is not None and hosts.is_writer():
                write_status(folder, SHOWING)
                then(config, dataset, trained, folder, seconds | trained.seconds)
        hosts.wait_for_all("the run is over")
    return dataset, trained


def learn(config: ConfigDict, system: System, dataset: Dataset, folder: Path, signals: Signals) -> Trained:
    """Trains, with checkpoints, metrics and TensorBoard events in `folder`, which `occupy` holds."""
    logging.info("%s: %d motions, %d views, %d frames, %d px", dataset.object_name, dataset.num_motions,
                 dataset.num_views, dataset.num_frames, dataset.cameras.height)  # fmt: skip
    if jax.default_backend() == "cpu" and config.preset in ("paper", "official"):
        hours = estimate_hours(config, dataset)
        logging.info("on this CPU a step takes %.1f s at first, the whole run %.0f hours or more", *hours)
    writes = hosts.is_writer()
    checkpoints = Checkpoints(folder, keep=config.keep_checkpoints, owner=writes)
    with contextlib.ExitStack() as stack:
        watcher: Watcher = Silent()
        if writes:
            log = stack.enter_context(MetricsLog(folder / "metrics.jsonl"))
            board = stack.enter_context(Board(folder / "tensorboard"))
            watcher = Recorder(config, folder, log, board, num_steps=system.stages[-1].last_step)
        try:
            with signals.deferred(), checkpoints:
                return fit(config, system, dataset, checkpoints, watcher, stop=signals.received)
        except LossNotFinite as error:
            raise (save_failure(error, folder, checkpoints.steps()) if writes else error) from error


def show(
    config: ConfigDict, dataset: Dataset, trained: Trained, folder: Path, seconds: Mapping[str, float], *, start: float
) -> None:
    """Scores and draws what was learnt; `start` is when the command began, for the report."""
    outcome = resolve(config.get("outcome") or OUTCOME, key="outcome")(config, dataset, trained, folder)
    summary = dict(
        preset=config.preset,
        object_name=dataset.object_name,
        num_motions=dataset.num_motions,
        **outcome.results,
        seconds=dict(
            **seconds,
            **outcome.seconds,
            total=time.perf_counter() - start,
        ),
        peak_memory_gib=peak_memory_gib(),
        backend=choose_backend(config.render.implementation),
        config_sha256=config_sha256(config),
        versions=versions(),
    )
    write_json(summary, folder / "summary.json")
    report = write_summary_report(folder, summary, outcome.sections, config, title=outcome.title, page=outcome.page)
    if outcome.page is not None:
        print(f"player:  {outcome.page.resolve()}")
    print(f"report:  {report.resolve()}\nsummary: {(folder / 'summary.json').resolve()}")


def _announce(config: ConfigDict) -> None:
    device = jax.devices()[0]
    logging.info("%s", describe_preset(config, f"{jax.local_device_count()} x {device.device_kind}"))
    logging.info("rasterizer: %s", choose_backend(config.render.implementation))


def describe_preset(config: ConfigDict, devices: str) -> str:
    """Which preset trains, on which devices, who has chosen it, and which others there are."""
    chosen = "chosen for this machine" if config.preset_chosen_by == "machine" else "as asked by --config"
    if config.get("system"):  # of another file than configs/dimo.py
        return f"preset {config.preset} ({chosen}: {devices})"
    others = [f":{preset}" for preset in PRESETS if preset != config.preset]
    instead = f"{', '.join(others[:-1])} or {others[-1]}"
    return f"preset {config.preset} ({chosen}: {devices}); choose another with --config=configs/dimo.py{instead}"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version(), "dimo_jax": importlib.metadata.version("dimo_jax")}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}
