"""`--app=train`: learns a motion space and shows it: checkpoints, scores, pictures and `report.html` in the workdir."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax import hosts
from dimo_jax.apps import gallery
from dimo_jax.apps.checks import check_config, check_data, check_same, check_weights, check_workdir
from dimo_jax.apps.evaluation import evaluate
from dimo_jax.apps.objects import train_objects
from dimo_jax.apps.player import Player
from dimo_jax.apps.restore import save_facts
from dimo_jax.apps.summary import write_summary_report
from dimo_jax.checkpoints import Checkpoints, config_sha256, save_config
from dimo_jax.data.sources import load
from dimo_jax.errors import UserError
from dimo_jax.export.images import to_uint8
from dimo_jax.export.metrics_log import Board, MetricsLog
from dimo_jax.render import choose_backend
from dimo_jax.train.estimate import estimate_hours
from dimo_jax.train.loop import Watcher, fit
from dimo_jax.train.state import TrainState

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "numpy")


class Recorder:
    """Writes what training reports to `metrics.jsonl` and TensorBoard."""

    def __init__(self, log: MetricsLog, board: Board) -> None:
        self._log, self._board, self._last = log, board, (time.perf_counter(), 0)

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """One line of metrics, with the steps a second since the line before."""
        now = time.perf_counter()
        rate = (step - self._last[1]) / max(now - self._last[0], 1e-9)
        self._last = (now, step)
        self._log.write(step, {"stage": stage, **values, "steps_per_second": rate})
        self._board.scalars(step, {**values, "steps_per_second": rate})

    def images(self, step: int, stage: str, state: TrainState, preview: np.ndarray) -> None:
        """Truth beside rendering of one image, and histograms of what density control and skinning look at."""
        alive = np.asarray(state.alive)
        opacities = jax.nn.sigmoid(state.params.gaussians.logit_opacities)
        self._board.image(step, f"{stage}/truth_and_rendering", to_uint8(np.concatenate(list(preview), axis=1)))
        self._board.histogram(step, f"{stage}/opacity", np.asarray(opacities)[alive])
        self._board.histogram(step, f"{stage}/radius", np.exp(np.asarray(state.params.key_points.log_radii)))

    def resumed(self, step: int) -> None:
        """Drops lines of steps that will be repeated."""
        self._log.truncate_after(step)
        self._last = (time.perf_counter(), step)


class Silent:
    """Stands for `Recorder` in the processes of a run that do not write."""

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Nothing."""

    def images(self, step: int, stage: str, state: TrainState, preview: np.ndarray) -> None:
        """Nothing."""

    def resumed(self, step: int) -> None:
        """Nothing."""


def run(*, config: ConfigDict, workdir: str, object_list: str = "", shard: str = "") -> None:
    """Trains by `config` in `workdir`, or continues there; then evaluates, draws and reports.

    With `object_list`, a file, it does so for each of its objects, or for the share `shard`, I/N, of them, in folders
    of `workdir` (`objects.train_objects`).

    Raises:
      UserError: bad data, a config that does not fit it, or a workdir of another run. Nothing is written then.
    """
    if shard and not object_list:
        raise UserError("--shard: found without --object_list, expected the list that it is a share of")
    if object_list:
        train_objects(object_list, shard, workdir)
        return
    start = time.perf_counter()
    folder = Path(workdir)
    check_config(config)
    check_workdir(config, folder)
    _announce(config)
    dataset = load(config.data)
    check_data(config, dataset)
    check_weights(config)
    data_seconds = time.perf_counter() - start
    hosts.wait_for_all("the data is there")
    check_same({"config": config_sha256(config), "dataset": f"{dataset.names} {dataset.frames.shape}"})
    if hosts.is_writer():
        save_config(config, folder)
        save_facts(dataset, folder)
    hosts.wait_for_all("the run is described in its workdir")
    logging.info("%s: %d motions, %d views, %d frames, %d px", dataset.object_name, dataset.num_motions,
                 dataset.num_views, dataset.num_frames, dataset.cameras.height)  # fmt: skip
    if jax.default_backend() == "cpu" and config.preset in ("paper", "official"):
        hours = estimate_hours(config, dataset)
        logging.info("on this CPU a step takes %.1f s at first, the whole run %.0f hours or more", *hours)
    with contextlib.ExitStack() as stack:
        watcher: Watcher = Silent()
        if hosts.is_writer():
            log = stack.enter_context(MetricsLog(folder / "metrics.jsonl"))
            watcher = Recorder(log, stack.enter_context(Board(folder / "tensorboard")))
        checkpoints = stack.enter_context(Checkpoints(folder, keep=config.keep_checkpoints))
        trained = fit(config, dataset, checkpoints, watcher)
    if not hosts.is_writer():
        logging.info("process 0 evaluates and draws; this one has done its part")
        hosts.wait_for_all("the report is written")
        return
    evaluation_start = time.perf_counter()
    player = Player(config, trained.components, trained.state, num_frames=dataset.num_frames)
    results = evaluate(config, trained.components, dataset, trained.state, player)
    gallery_start = time.perf_counter()
    logging.info("drawing videos")
    sections = gallery.write_gallery(config, dataset, player, folder)
    seconds = dict(
        data=data_seconds,
        **trained.seconds,
        evaluation=gallery_start - evaluation_start,
        pictures=time.perf_counter() - gallery_start,
        total=time.perf_counter() - start,
    )
    summary = dict(
        preset=config.preset,
        object_name=dataset.object_name,
        num_motions=dataset.num_motions,
        **results,
        seconds=seconds,
        peak_memory_gib=peak_memory_gib(),
        backend=choose_backend(config.render.implementation),
        config_sha256=config_sha256(config),
        versions=versions(),
    )
    _write_json(summary, folder / "summary.json")
    report = write_summary_report(folder, summary, sections, config)
    print(f"report:  {report.resolve()}\nsummary: {(folder / 'summary.json').resolve()}")
    hosts.wait_for_all("the report is written")


def _announce(config: ConfigDict) -> None:
    device = jax.devices()[0]
    chosen = "chosen for this machine" if config.preset_chosen_by == "machine" else "as asked"
    logging.info(
        "preset %s (%s: %d x %s); choose another with --config=configs/dimo.py:paper, :official, :demo or :smoke",
        config.preset, chosen, jax.local_device_count(), device.device_kind,
    )  # fmt: skip
    logging.info("rasterizer: %s", choose_backend(config.render.implementation))


def peak_memory_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version(), "dimo_jax": importlib.metadata.version("dimo_jax")}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def _write_json(value: Mapping[str, Any], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(value, indent=1))
    temporary.replace(path)
