"""What runs end with: scores, and pictures in their workdir. `config.outcome` names one of these functions."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.cameras.orbits import orbit_like, place_on_orbit, select_cameras
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Gaussians
from dimo_jax.data.dataset import Dataset, motions_in, train_frames, views_in
from dimo_jax.geometry.world import World
from dimo_jax.io.images import grid, to_uint8, upscale, write_png
from dimo_jax.io.place import place_gaussians
from dimo_jax.io.ply import write_gaussians
from dimo_jax.io.video import write_video
from dimo_jax.render.frames import FrameRenderer
from dimo_jax.runs.evaluation import evaluate, repeat_still, score
from dimo_jax.runs.restore import Restored, describe
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training.images import composite_truth
from dimo_jax.training.loop import Trained
from dimo_jax.views import gallery
from dimo_jax.views.gallery import Picture
from dimo_jax.views.web.page import write_page

NUM_VIEWS = 6  # of the picture that compares
NUM_FRAMES, FRAME_RATE = 60, 20.0  # of the turntable


@dataclass(frozen=True)
class Outcome:
    """Scores for `summary.json`, sections of the report, and what making them took."""

    title: str
    results: dict[str, Any]
    sections: dict[str, list[Picture]]
    seconds: dict[str, float]
    page: Path | None = None  # that plays it, where there is one


def show_motions(config: ConfigDict, dataset: Dataset, trained: Trained, folder: Path) -> Outcome:
    """Scores a trained motion space on what it never saw, and draws it."""
    start = time.perf_counter()
    player = Player(config, trained.system.components, trained.state, num_frames=dataset.num_frames)
    results = evaluate(config, dataset, trained.state, player)
    drawing = time.perf_counter()
    logging.info("drawing videos")
    sections = gallery.write_gallery(config, dataset, player, folder)
    facts = json.loads(json.dumps(describe(dataset, system=trained.system.facts())))
    page = write_player(Restored(player, facts, int(trained.state.step), config), folder / "player.html")
    seconds = dict(evaluation=drawing - start, pictures=time.perf_counter() - drawing)
    title = f"{dataset.object_name}: a space of {dataset.num_motions} motions"
    return Outcome(title, results, sections, seconds, page)


def write_player(model: Restored, path: Path) -> Path | None:
    """The page that plays a model; None, and a line that says why, where its components are others than the page's."""
    try:
        return write_page(model, path)
    except UserError as error:
        logging.info("no %s: %s", path.name, error)
        return None


def show_still(config: ConfigDict, dataset: Dataset, trained: Trained, folder: Path) -> Outcome:
    """Scores a static object on the views that it never saw, draws it, and writes it as `gaussians.ply`."""
    start = time.perf_counter()
    still: Gaussians = jax.tree.map(jnp.asarray, trained.state.visible)
    renderer = FrameRenderer(**config.render, num_gaussians=len(trained.state.alive))
    views, frames = views_in(dataset, "test"), train_frames(dataset, config.data.held_out_every)
    results: dict[str, Any] = dict.fromkeys(
        ("held_out_views", "held_out_frames", "static_baseline", "surface_distance")
    )
    if len(views):
        logging.info("evaluating held-out views")
        stills = repeat_still(renderer, dataset, still, views, len(frames))
        count = config.evaluation.num_lpips_images
        how = dict(background=renderer.background, num_lpips_images=count)
        results["held_out_views"] = score(dataset, stills, views=views, frames=frames, **how)
    results["missing"] = {} if len(views) else {"held_out_views": "the data has no view of split 'test'"}
    results["num_gaussians"] = int(np.sum(trained.state.alive))
    drawing = time.perf_counter()
    sections = {
        "Views": [_compare_views(renderer, still, dataset, folder / "views.png")],
        "Turntable": [_turn_around(renderer, still, dataset, folder / "turntable.mp4")],
    }
    alive = still[np.asarray(trained.state.alive)]
    write_gaussians(place_gaussians(alive, dataset.world or World()), folder / "gaussians.ply")
    seconds = dict(evaluation=drawing - start, pictures=time.perf_counter() - drawing)
    return Outcome(f"{dataset.object_name}: a static object", results, sections, seconds)


def _compare_views(renderer: FrameRenderer, still: Gaussians, dataset: Dataset, path: Path) -> Picture:
    views = [*views_in(dataset, "test"), *views_in(dataset, "train")][:NUM_VIEWS]
    seen = renderer.render(still[None], select_cameras(dataset.cameras, views))[0]
    raw = jnp.asarray(dataset.frames[motions_in(dataset, "train")[0], views][:, :1])
    truth = np.asarray(composite_truth(raw, renderer.background)[0])
    rows = upscale(to_uint8(np.stack([truth[:, 0], seen[:, 0]])), min_height=192)
    labels = [f"{dataset.view_names[view]} ({dataset.view_splits[view]})" for view in views]
    write_png(grid(rows, row_labels=["truth", "rendering"], column_labels=labels), path)
    return Picture(path, "Truth above rendering, held-out views first", False)


def _turn_around(renderer: FrameRenderer, still: Gaussians, dataset: Dataset, path: Path) -> Picture:
    camera = jax.tree.map(lambda x: np.asarray(x)[0], dataset.cameras)
    azimuth, elevation, _ = place_on_orbit(camera)
    degrees = np.linspace(azimuth, azimuth + 360.0, NUM_FRAMES, endpoint=False)
    # One pose a frame costs no more memory than a picture of each.
    posed = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM_FRAMES, *x.shape)), still)
    video = renderer.film(posed, orbit_like(camera, degrees, elevation))
    write_video(upscale(to_uint8(video), min_height=256), path, frame_rate=FRAME_RATE)
    return Picture(path, "Once around", True)
