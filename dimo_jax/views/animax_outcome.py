"""What a run of configs/animax.py ends with: videos of held-out clips beside the true ones."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.names import to_file_name
from dimo_jax.data.clips import ClipSample, ClipShards
from dimo_jax.data.dataset import Dataset
from dimo_jax.io.images import write_png
from dimo_jax.io.video import write_video
from dimo_jax.runs.animax import make_player
from dimo_jax.training.loop import Trained
from dimo_jax.views.clip_sheet import lay_frames, lay_out
from dimo_jax.views.gallery import Picture
from dimo_jax.views.outcome import Outcome

_MOST = 3  # clips of each kind


def show_videos(config: ConfigDict, dataset: Dataset, trained: Trained, folder: Path) -> Outcome:
    """Draws some clips that trained, some that did not, and some of rigs that did not; `bench.animax` scores them."""
    start = time.perf_counter()
    shards: ClipShards = trained.system.shards
    player = make_player(config, trained.state, int(trained.state.step), num_frames=dataset.num_frames)
    kinds = {"train": "Clips that trained", "clip": "Held-out clips", "rig": "Held-out rigs"}
    sections: dict[str, list[Picture]] = {}
    (folder / "videos").mkdir(exist_ok=True)
    for split, title in kinds.items():
        chosen = _spread(shards.select(split, canonical=True))
        if not chosen:
            continue
        logging.info("drawing %d videos of split %s", len(chosen), split)
        batch = shards.collect(chosen)
        words = batch.words.reshape(len(chosen), -1, batch.words.shape[-1])
        found = player.draw(jax.random.key(0), batch.stills, words, batch.cameras)
        for sample, true, drawn in zip(chosen, np.asarray(batch.videos), found):
            stem = folder / "videos" / f"{split}_{to_file_name(sample.name, default='clip')}"
            write_png(np.concatenate([lay_frames(true), lay_frames(drawn)]), stem.with_suffix(".png"))
            both = np.concatenate([lay_out(true), lay_out(drawn)], axis=1)
            video = write_video(both, stem.with_suffix(".mp4"), frame_rate=dataset.frame_rate)
            sections.setdefault(title, []).append(Picture(video, f"{sample.caption}: truth, drawn", True))
    missing = ("held_out_views", "held_out_frames", "static_baseline", "surface_distance")
    results = {**dict.fromkeys(missing), "num_steps": int(trained.state.step)}
    title = f"{dataset.object_name}: AnimaX on {len(dataset.names)} clips"
    return Outcome(title, results, sections, dict(pictures=time.perf_counter() - start))


def _spread(samples: tuple[ClipSample, ...]) -> list[ClipSample]:
    places = np.unique(np.linspace(0, len(samples) - 1, _MOST).round().astype(int)) if samples else ()
    return [samples[index] for index in places]
