"""Motions that a model never saw: brought to where it was trained; a warning where they do not look like its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from dimo_jax.data.dataset import Dataset
from dimo_jax.data.extent import find_boxes, fits, look
from dimo_jax.data.sources import load_dataset, place
from dimo_jax.data.world import bring_into, settle
from dimo_jax.io.metrics_log import read_metrics
from dimo_jax.runs.restore import Restored, world_of
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training.images import composite_truth

METRICS = "metrics.jsonl"
# What was measured with sound data lies up to 12 dB under training, and 3 dB or more over an empty picture.
FAR_BELOW = 18.0  # dB under training, from which on a start is called far worse
NEAR_BLANK = 1.0  # dB over an empty picture, up to which it is as well


def read_unseen(source: str, model: Restored) -> Dataset:
    """A dataset folder, where its object stands as the model's does.

    Both know where their source's coordinates stand, so that a character whose clips were imported apart, and framed
    anew, or cameras of one room are brought together. What comes from another kind of source goes where it suits the
    method.

    Raises:
      UserError: as `load_dataset`.
    """
    dataset, world = load_dataset(source), world_of(model.facts)
    if world is None:  # of a version that moved nothing
        return settle(dataset)
    own = dataset.world
    if own is not None and own.same_place(world):
        return settle(dataset)
    if (own is None and world.of == "model") or (own is not None and own.of != world.of):
        return place(dataset)
    moved = bring_into(dataset, world)
    if not fits(look(moved.cameras, find_boxes(moved.frames[..., 3]))):
        alone = place(dataset)
        if fits(look(alone.cameras, find_boxes(alone.frames[..., 3]))):  # other units: not the same source
            return alone
    if own is not None:
        ratio = world.scale / own.scale
        logging.info("%s: framed apart from the run's data, brought to its framing (scaled by %.4g)", source, ratio)
    return moved


def training_psnr(workdir: Path) -> float | None:
    """PSNR in dB of a run's last training batches; None where it is not kept, as in a model file."""
    path = workdir / METRICS
    if not path.is_file():
        return None
    values = [row["psnr"] for row in read_metrics(path) if row.get("psnr") is not None]
    return float(np.mean(values[-5:])) if values else None


def blank_psnr(player: Player, dataset: Dataset, motion: int, views: np.ndarray) -> float:
    """PSNR in dB of the bare background against a motion's pictures."""
    truth, _ = composite_truth(jnp.asarray(dataset.frames[motion][views]), player.background)
    error = float(jnp.mean((truth - player.background) ** 2))  # of all at once: some may show nothing
    return float(-10 * np.log10(max(error, 1e-12)))


def judge_start(result: dict[str, Any], *, training: float | None, blank: float) -> str:
    """One line where the best start of a fit is far worse than what training reached; else nothing.

    Args:
      result: of `reconstruct.reconstruct`, with its `motion`, `started_from` and `start`.
      training: see `training_psnr`.
      blank: see `blank_psnr`.
    """
    found = result["start"]["fitted_views"]["psnr"]
    near_blank = found < blank + NEAR_BLANK
    if not near_blank and (training is None or found > training - FAR_BELOW):
        return ""
    reached = "unknown here" if training is None else f"{training:.1f} dB"
    return (
        f"{result['motion']}: the best start ({result['started_from']}) fits at {found:.1f} dB, training: {reached}, "
        f"an empty picture: {blank:.1f} dB; probably another object, or one that is framed or lit in another way than "
        "in training (import it with --framing=FOLDER, the run's dataset)"
    )
