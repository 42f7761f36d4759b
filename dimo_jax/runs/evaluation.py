"""Scores of a trained model on what it never saw: held-out views, held-out frames, the true surface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from scipy.spatial import KDTree

from dimo_jax.cameras.orbits import select_cameras
from dimo_jax.core.types import Array, Gaussians
from dimo_jax.data.dataset import Dataset, held_out_frames, motions_in, train_frames, views_in
from dimo_jax.metrics.scores import Scores
from dimo_jax.metrics.subsets import draw_evenly
from dimo_jax.render.frames import FrameRenderer
from dimo_jax.runs.baseline import train_static
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.training.images import composite_truth
from dimo_jax.training.tracker import LossNotFinite


def score(
    dataset: Dataset,
    predictions: Iterator[tuple[int, np.ndarray]],
    *,
    views: np.ndarray,
    frames: np.ndarray,
    background: Array,
    num_lpips_images: int,
    networks: Sequence[str] = ("vgg",),
) -> dict[str, Any]:
    """Compares predictions with the dataset.

    Args:
      dataset: the truth.
      predictions: pairs of a motion's index and its RGB [V,T,H,W,3] in 0..1, of these views and frames: all motions of
        split "train", in order.
      views, frames: indices that the predictions show.
      background: [3], of predictions and truth.
      num_lpips_images: LPIPS is computed on so many images (VGG is slow on a CPU), drawn evenly over motions, views and
        frames (`draw_evenly`); 0 takes all.
      networks: of LPIPS, "vgg" and "alex".

    Returns:
      Mean psnr, psnr_foreground (dB), ssim, lpips_<network>; how many images they are means of and, as
      `<name>_undefined`, how many have no such figure; `lpips_images`, the motion, view and frame of each; `motions`,
      by name the psnr and psnr_foreground of each; and `worst_motion`, the name of that with the least psnr_foreground.
    """
    scores = Scores(networks)
    order = motions_in(dataset, "train").tolist()
    cells = draw_evenly((len(order), len(views), len(frames)), num_lpips_images)
    motions: dict[str, dict[str, float | int | None]] = {}
    for motion, rgb in predictions:
        raw = jnp.asarray(dataset.frames[motion][np.ix_(views, frames)])
        truth, alpha = composite_truth(raw.reshape(-1, *raw.shape[2:]), background)
        images = jnp.asarray(rgb).reshape(truth.shape)
        _, v, t = cells[cells[:, 0] == order.index(motion)].T
        seen = [[motion, *pair] for pair in zip(views[v].tolist(), frames[t].tolist(), strict=True)]
        scores.add(images, truth, alpha > 0.5, v * len(frames) + t, seen)
        motions[dataset.names[motion]] = scores.last()
    return scores.summary() | dict(motions=motions, worst_motion=find_worst(motions))


def find_worst(motions: Mapping[str, Mapping[str, float | int | None]]) -> str | None:
    """The name of the motion with the least psnr_foreground; None where none has one."""
    known = {name: each["psnr_foreground"] for name, each in motions.items() if each["psnr_foreground"] is not None}
    return min(known, key=lambda name: known[name] or 0.0) if known else None


def play_motions(
    player: Player, dataset: Dataset, views: np.ndarray, frames: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """The training motions as the model plays them: pairs of index and RGB [V,T,H,W,3]."""
    cameras = select_cameras(dataset.cameras, views)
    for motion in motions_in(dataset, "train"):
        clip = player.play(player.latent(motion), dataset.times).at(frames)
        yield int(motion), player.render(clip.gaussians, cameras)[0]


def choose_gaussians(player: Player, num_points: int) -> np.ndarray:
    """Indices [n] of at most `num_points` Gaussians in use: neighbours in the list belong to one key point."""
    alive = np.flatnonzero(player.alive)
    return alive[draw_evenly((len(alive),), num_points)[:, 0]]


def repeat_still(
    renderer: FrameRenderer, dataset: Dataset, still: Gaussians, views: np.ndarray, num_frames: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The same still for every training motion and frame, as `play_motions` gives motions."""
    posed = jax.tree.map(lambda x: x[None], still)
    rgb = renderer.render(posed, select_cameras(dataset.cameras, views))[0]
    repeated = np.broadcast_to(rgb, (len(views), num_frames, *rgb.shape[2:]))
    return ((int(motion), repeated) for motion in motions_in(dataset, "train"))


def measure_surface_distance(player: Player, dataset: Dataset, *, num_points: int) -> float | None:
    """Mean distance from the deformed Gaussians' centres to the true surface, as a share of the object's height.

    The surface is known as points, so this is the distance to the nearest of them, an upper bound. Means over the
    training motions, all frames, and at most `num_points` Gaussians (drawn by lot). None where no truth is known.
    """
    if dataset.surface is None or not dataset.height:
        return None
    chosen = choose_gaussians(player, num_points)
    distances = []
    for motion in motions_in(dataset, "train"):
        means = np.asarray(player.play(player.latent(motion), dataset.times).gaussians.means)[:, chosen]
        distances += [np.mean(KDTree(b).query(a)[0]) for a, b in zip(means, dataset.surface[motion], strict=True)]
    return float(np.mean(distances)) / dataset.height


def evaluate(config: ConfigDict, dataset: Dataset, state: TrainState, player: Player) -> dict[str, Any]:
    """All figures of a trained run: `held_out_views`, `held_out_frames`, `static_baseline`, `surface_distance`.

    Held-out views are the test cameras at the frames that trained; held-out frames are the training cameras at the
    frames that did not; the static baseline is scored on the held-out views. `missing` says why one of them is None.
    """
    every = config.data.held_out_every
    common = dict(background=player.background, num_lpips_images=config.evaluation.num_lpips_images)
    views, frames = views_in(dataset, "test"), train_frames(dataset, every)
    results: dict[str, Any] = {"held_out_views": None, "held_out_frames": None, "static_baseline": None}
    missing: dict[str, str] = {}
    if len(views):
        logging.info("evaluating held-out views")
        predictions = play_motions(player, dataset, views, frames)
        results["held_out_views"] = score(dataset, predictions, views=views, frames=frames, **common)
        logging.info("training the static baseline")
        try:
            still = train_static(config, dataset, state)
        except LossNotFinite as error:
            missing["static_baseline"] = f"its training failed: {error}"
            logging.warning("static baseline: %s", error)
        else:
            stills = repeat_still(player, dataset, still, views, len(frames))
            results["static_baseline"] = score(dataset, stills, views=views, frames=frames, **common)
    else:
        missing |= dict.fromkeys(("held_out_views", "static_baseline"), "the data has no view of split 'test'")
    frames = held_out_frames(dataset, every)
    if len(frames):
        logging.info("evaluating held-out frames")
        views = views_in(dataset, "train")
        predictions = play_motions(player, dataset, views, frames)
        results["held_out_frames"] = score(dataset, predictions, views=views, frames=frames, **common)
    else:
        missing["held_out_frames"] = (
            f"no frame of {dataset.num_frames} is held out (config.data.held_out_every={every})"
        )
    results["surface_distance"] = measure_surface_distance(player, dataset, num_points=config.evaluation.surface_points)
    if results["surface_distance"] is None:
        missing["surface_distance"] = "the data does not know the surface"
    return results | dict(missing=missing)
