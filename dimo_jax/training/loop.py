"""Runs a system's stages: batches in, checkpoints and metrics out, and a recompilation only where a shape changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.data.dataset import Dataset
from dimo_jax.runtime.progress import Progress
from dimo_jax.training.data_wait import MAX_AHEAD, DataWait
from dimo_jax.training.save_policy import SavePolicy, Store, never
from dimo_jax.training.system import Metrics, System
from dimo_jax.training.tracker import LossNotFinite
from dimo_jax.training.trainer import Trainer


class Watcher(Protocol):
    """Who wants to know how training goes (metrics file, TensorBoard); given by the app."""

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Scalars of one step."""
        ...

    def images(self, step: int, stage: str, histograms: Mapping[str, np.ndarray], preview: np.ndarray) -> None:
        """Pictures of one step: `preview` [2,H,W,3] in 0..1 is the truth and the rendering of one image."""
        ...

    def resumed(self, step: int) -> None:
        """Training begins (0) or goes on after `step`; what an earlier process recorded of later steps is void."""
        ...


@dataclass(frozen=True)
class Trained:
    """What training ends with."""

    system: Any  # the `System`
    state: Any
    seconds: dict[str, float]  # per stage, of this process


def fit(
    config: ConfigDict,
    system: System,
    dataset: Dataset,
    checkpoints: Store,
    watcher: Watcher,
    *,
    stop: Callable[[], str] = never,
) -> Trained:
    """Trains, or goes on where the last checkpoint stands.

    Args:
      config: of the run; the engine reads what `Trainer` reads, and `checkpoint_every`, `checkpoint_minutes`,
        `image_every`.
      system: what trains.
      dataset: what it trains on.
      checkpoints: where states are kept.
      watcher: who wants to know.
      stop: asked after every step for a reason to save and stop ("SIGTERM"), or "".

    Raises:
      UserError: the config does not fit the data.
      LossNotFinite: a loss or parameter is NaN or infinite; its `batch` is what the bad step saw.
      WriteFailed: a checkpoint could not be written.
      Stopped: `stop` gave a reason; the state is saved.
    """
    trainer = Trainer(config, system, dataset)
    policy = SavePolicy(
        checkpoints,
        trainer.tracker,
        every=config.checkpoint_every,
        minutes=config.checkpoint_minutes,
        agree_every=config.log_every,
        stop=stop,
    )
    restored = checkpoints.restore_latest(system.template)
    watcher.resumed(0 if restored is None else restored[0])
    if restored is None:
        state = trainer.init()
    else:
        logging.info("resuming after step %d", restored[0])
        state = trainer.resume(restored[1], checkpoints.notes(restored[0]))
    seconds = {stage.name: 0.0 for stage in system.stages}
    try:
        while trainer.count < trainer.num_steps:
            name, start = trainer.stage.name, time.perf_counter()
            state = _run_stage(config, trainer, policy, watcher, state)
            seconds[name] = time.perf_counter() - start
    except LossNotFinite as error:
        error.batch = trainer.batch_of(error.step)
        raise
    finally:
        trainer.close()
    checkpoints.wait()
    return Trained(system, trainer.on_host(state), seconds)


def _run_stage(config: ConfigDict, trainer: Trainer, policy: SavePolicy, watcher: Watcher, state: Any) -> Any:
    """From the trainer's step to the end of its stage."""
    stage, wait = trainer.stage, DataWait()
    # In a log the watcher's line a minute stands in place of the bar.
    with Progress(
        trainer.num_steps, stage.name, unit="step", initial=trainer.count, delay=0.0, leave=True, lines=False,
        ahead=MAX_AHEAD,
    ) as progress:  # fmt: skip
        trainer.pause = progress.pause
        while trainer.count < stage.last_step:
            resolution = trainer.resolution
            state, metrics = trainer.step(state, wait.next(trainer.next_batch))
            wait.dispatched(metrics.loss)
            progress.update()
            step, ends = trainer.count, trainer.count == stage.last_step
            if trainer.looks:
                values = _scalars(trainer, metrics, resolution, wait)
                values["compile_seconds"] = progress.pace.take_paused()  # and of what the system observes
                progress.tell(loss=f"{values['loss']:.4g}", psnr=f"{values['psnr']:.2f}")
                watcher.scalars(step, stage.name, values)
            if config.image_every and step % config.image_every == 0:
                preview = jax.device_get(trainer.on_host(metrics.preview))
                watcher.images(step, stage.name, trainer.system.histograms(trainer.on_host(state)), preview)
            if policy.is_due(step) or ends:
                trainer.check_equal(state)
                policy.save(step, trainer.on_host(state), **trainer.notes())
    logging.info("%s: %s", stage.name, wait.describe())
    return state


def _scalars(trainer: Trainer, metrics: Metrics, resolution: int, wait: DataWait) -> dict[str, float]:
    values = jax.device_get(trainer.on_host(metrics))
    scalars = {"loss": float(values.loss), "psnr": float(values.psnr)}
    scalars |= {"resolution": resolution, "overflow": trainer.lost, "data_wait": wait.take_share()}
    return scalars | {f"loss/{name}": float(value) for name, value in values.terms.items()}
