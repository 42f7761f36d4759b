"""What a run of DIMO ends with: scores, and pictures in its workdir."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from dimo_jax.data.dataset import Dataset
from dimo_jax.runs.evaluation import evaluate
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training.loop import Trained
from dimo_jax.views import gallery
from dimo_jax.views.gallery import Picture


@dataclass(frozen=True)
class Outcome:
    """Scores for `summary.json`, sections of the report, and what making them took."""

    results: dict[str, Any]
    sections: dict[str, list[Picture]]
    seconds: dict[str, float]


def show_motions(config: ConfigDict, dataset: Dataset, trained: Trained, folder: Path) -> Outcome:
    """Scores a trained motion space on what it never saw, and draws it."""
    start = time.perf_counter()
    player = Player(config, trained.system.components, trained.state, num_frames=dataset.num_frames)
    results = evaluate(config, trained.system.components, dataset, trained.state, player)
    drawing = time.perf_counter()
    logging.info("drawing videos")
    sections = gallery.write_gallery(config, dataset, player, folder)
    return Outcome(results, sections, dict(evaluation=drawing - start, pictures=time.perf_counter() - drawing))
