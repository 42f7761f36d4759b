"""What a run of configs/atop.py ends with: drawn films of objects that are held out, beside the true ones."""

from __future__ import annotations

import time
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.data.articulated.categories import CATEGORIES, HELD_OUT, make_shape
from dimo_jax.data.articulated.videos import PartVideos, film
from dimo_jax.data.dataset import Dataset
from dimo_jax.io.images import write_png
from dimo_jax.io.video import write_video
from dimo_jax.systems.atop.generator.generator import Generator
from dimo_jax.systems.atop.generator.reference import over_white
from dimo_jax.systems.atop.generator.trained import make_generator
from dimo_jax.training.loop import Trained
from dimo_jax.views.clip_sheet import lay_views
from dimo_jax.views.gallery import Picture
from dimo_jax.views.outcome import Outcome

_MOST = 3  # categories
_RATE = 4.0  # frames a second


def show_films(config: ConfigDict, dataset: Dataset, trained: Trained, folder: Path) -> Outcome:
    """Draws one object that is held out of some categories; `bench.atop` scores more of them."""
    start = time.perf_counter()
    generator = make_generator(config, trained.state, int(trained.state.step))
    at, category = config.atop.sampling, config.atop.category
    chosen = list(CATEGORIES)[:_MOST] if category == "all" else [category]
    pictures: list[Picture] = []
    (folder / "videos").mkdir(exist_ok=True)
    for name in chosen:
        logging.info("drawing a film of the %s %d", name, HELD_OUT)
        made = make_shape(name, HELD_OUT)
        found = film(made, num_frames=generator.num_frames, side=generator.side)
        how = dict(num_steps=int(at.num_steps), guidance=float(at.guidance))
        drawn = draw_film(generator, jax.random.key(0), found, made.sentence, **how)
        stem = folder / "videos" / f"{name}_{HELD_OUT}"
        write_png(lay_films([found.frames, drawn]), stem.with_suffix(".png"))
        both = lay_views(over_white(np.concatenate([found.frames, drawn])))
        video = write_video(both, stem.with_suffix(".mp4"), frame_rate=_RATE)
        pictures.append(Picture(video, f"{made.sentence}: truth, drawn", True))
    missing = ("held_out_views", "held_out_frames", "static_baseline", "surface_distance")
    results = {**dict.fromkeys(missing), "num_steps": int(trained.state.step)}
    title = f"ATOP's generator, {category} by {config.atop.examples} examples"
    return Outcome(title, results, {"Objects that are held out": pictures}, dict(drawing=time.perf_counter() - start))


def draw_film(
    generator: Generator, key: jax.Array, found: PartVideos, sentence: str, *, num_steps: int, guidance: float
) -> np.ndarray:
    """A video [V,F,side,side,4] uint8 from the rest state of a film and its mask."""
    condition = generator.condition(found.frames[:, 0], found.masks[:, 0], found.cameras, sentence)
    latents = generator.draw(key, condition, num_steps=num_steps, guidance=guidance)
    pictures = generator.decode(latents.reshape(-1, *latents.shape[2:]))
    return pictures.reshape(*latents.shape[:2], *pictures.shape[1:])


def lay_films(films: list[np.ndarray]) -> np.ndarray:
    """Films [V,F,H,W,4] uint8 below each other, on white: a row for each, its frames of two neighbouring views."""
    rows = [np.concatenate([*over_white(each[0]), *over_white(each[-1])], axis=1) for each in films]
    return np.concatenate(rows)
