"""Scores of a trained model on what it never saw: held-out views, held-out frames, the true surface."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from scipy.spatial import KDTree

from dimo_jax.apps.player import Player, select_cameras
from dimo_jax.data.dataset import Dataset, held_out_frames, motions_in, train_frames, views_in
from dimo_jax.data.sampler import Sampler, prefetch
from dimo_jax.metrics.lpips import lpips
from dimo_jax.metrics.psnr import psnr, psnr_foreground
from dimo_jax.metrics.ssim import ssim
from dimo_jax.model.dimo import Components, stay
from dimo_jax.model.gaussians import anisotropic
from dimo_jax.train import capacity, stages
from dimo_jax.train.state import TrainState
from dimo_jax.train.step import build_step, composite_truth
from dimo_jax.types import Array, Gaussians


class Scores:
    """Figures of images, collected to be averaged."""

    def __init__(self, networks: Sequence[str] = ("vgg",)) -> None:
        """`networks` are those of LPIPS."""
        self._networks = tuple(networks)
        names = ("psnr", "psnr_foreground", "ssim", *(f"lpips_{network}" for network in networks))
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in names}
        self._num_lpips = 0

    def add(self, images: Array, truth: Array, mask: Array, chosen: np.ndarray) -> None:
        """Scores images [B,H,W,3] in 0..1 against the truth and its mask [B,H,W]; LPIPS for the indices `chosen`."""
        self._values["psnr"].append(np.asarray(psnr(images, truth)))
        self._values["psnr_foreground"].append(np.asarray(psnr_foreground(images, truth, mask)))
        self._values["ssim"].append(np.asarray(ssim(images, truth)))
        self._num_lpips += len(chosen)
        for network in self._networks if len(chosen) else ():
            self._values[f"lpips_{network}"].append(np.asarray(lpips(images[chosen], truth[chosen], network=network)))

    def summary(self) -> dict[str, float | int | None]:
        """Means over images, and over how many of them."""
        means: dict[str, float | int | None] = {
            name: float(np.mean(np.concatenate(values))) if values else None for name, values in self._values.items()
        }
        return means | dict(num_images=sum(len(x) for x in self._values["psnr"]), num_lpips_images=self._num_lpips)


def score(
    dataset: Dataset,
    predictions: Iterator[tuple[int, np.ndarray]],
    *,
    views: np.ndarray,
    frames: np.ndarray,
    background: Array,
    num_lpips_images: int,
    networks: Sequence[str] = ("vgg",),
) -> dict[str, float | int | None]:
    """Compares predictions with the dataset.

    Args:
      dataset: the truth.
      predictions: pairs of a motion's index and its RGB [V,T,H,W,3] in 0..1, of these views and frames.
      views, frames: indices that the predictions show.
      background: [3], of predictions and truth.
      num_lpips_images: LPIPS is computed on about so many images, evenly spread (VGG is slow on a CPU).
      networks: of LPIPS, "vgg" and "alex".

    Returns:
      Mean psnr, psnr_foreground (dB), ssim, lpips_<network>, and how many images they are means of.
    """
    scores = Scores(networks)
    num_motions = len(motions_in(dataset, "train"))
    stride = max(1, -(-num_motions * len(views) * len(frames) // max(num_lpips_images, 1)))
    seen = 0
    for motion, rgb in predictions:
        raw = jnp.asarray(dataset.frames[motion][np.ix_(views, frames)])
        truth, alpha = composite_truth(raw.reshape(-1, *raw.shape[2:]), background)
        images = jnp.asarray(rgb).reshape(truth.shape)
        chosen = np.arange(-seen % stride, len(images), stride)
        seen += len(images)
        scores.add(images, truth, alpha > 0.5, chosen)
    return scores.summary()


def play_motions(
    player: Player, dataset: Dataset, views: np.ndarray, frames: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """The training motions as the model plays them: pairs of index and RGB [V,T,H,W,3]."""
    cameras = select_cameras(dataset.cameras, views)
    for motion in motions_in(dataset, "train"):
        clip = player.play(player.latent(motion), dataset.times).at(frames)
        yield int(motion), player.render(clip.gaussians, cameras)[0]


def measure_surface_distance(player: Player, dataset: Dataset, *, num_points: int) -> float | None:
    """Mean distance from the deformed Gaussians' centres to the true surface, as a share of the object's height.

    The surface is known as points, so this is the distance to the nearest of them, an upper bound. Means over the
    training motions, all frames, and at most `num_points` Gaussians (evenly spread). None where no truth is known.
    """
    if dataset.surface is None or not dataset.height:
        return None
    alive = np.flatnonzero(player.alive)
    chosen = alive[:: max(1, len(alive) // num_points)]
    distances = []
    for motion in motions_in(dataset, "train"):
        means = np.asarray(player.play(player.latent(motion), dataset.times).gaussians.means)[:, chosen]
        distances += [np.mean(KDTree(b).query(a)[0]) for a, b in zip(means, dataset.surface[motion], strict=True)]
    return float(np.mean(distances)) / dataset.height


def train_static(config: ConfigDict, components: Components, dataset: Dataset, state: TrainState) -> Gaussians:
    """The best static model of the same data: the trained Gaussians, no deformation, trained on for some steps."""
    stage = stages.build_stages(config)[1]
    rates = {group: 0.0 for group in ("latents", "decoder", "positions", "log_radii")}
    rates |= dict(means=1e-3, log_scales=5e-3, quats=5e-3, logit_opacities=5e-2, sh=1e-2)
    options = dataclasses.replace(
        stage.options,
        move=stay,
        terms=tuple(dataclasses.replace(t, start=0) for t in stage.options.terms if t.name in ("rgb", "mask")),
        optimizer=stages.build_optimizer(rates, key="baseline.rates"),
        tie_scales=anisotropic,
    )
    state = jax.tree.map(jnp.copy, state)
    state = state.replace(optimizer=options.optimizer.init(state.params))
    sampler = Sampler(
        dataset,
        batch_motions=config.batch.motions,
        batch_views=config.batch.views,
        batch_frames=1,  # of a motion's frames, more would differ in nothing that a still model can follow
        held_out_every=config.data.held_out_every,
        seed=config.seed + 2,
    )
    room = capacity.measure(state, components, options, jax.device_put(sampler.sample(0)))
    step = jax.jit(build_step(components, capacity.with_room(options, room)), donate_argnums=0)
    batches = prefetch(sampler, 0)
    for _ in range(config.evaluation.baseline_steps):
        state, _ = step(state, next(batches), {}, jax.random.key(0))
    batches.close()  # type: ignore[attr-defined]
    return state.params.gaussians


def evaluate(
    config: ConfigDict, components: Components, dataset: Dataset, state: TrainState, player: Player
) -> dict[str, Any]:
    """All figures of a trained run: `held_out_views`, `held_out_frames`, `static_baseline`, `surface_distance`.

    Held-out views are the test cameras at the frames that trained; held-out frames are the training cameras at the
    frames that did not; the static baseline is scored on the held-out views.
    """
    every = config.data.held_out_every
    common = dict(background=player.background, num_lpips_images=config.evaluation.num_lpips_images)
    views, frames = views_in(dataset, "test"), train_frames(dataset, every)
    results: dict[str, Any] = {"held_out_views": None, "held_out_frames": None, "static_baseline": None}
    if len(views):
        logging.info("evaluating held-out views")
        predictions = play_motions(player, dataset, views, frames)
        results["held_out_views"] = score(dataset, predictions, views=views, frames=frames, **common)
        logging.info("training the static baseline")
        static = train_static(config, components, dataset, state)
        still = jax.tree.map(lambda x: x[None], stages.gaussians.mask_dead(static, state.alive))
        rgb = player.render(still, select_cameras(dataset.cameras, views))[0]
        repeated = np.broadcast_to(rgb, (len(views), len(frames), *rgb.shape[2:]))
        stills = ((int(motion), repeated) for motion in motions_in(dataset, "train"))
        results["static_baseline"] = score(dataset, stills, views=views, frames=frames, **common)
    frames = held_out_frames(dataset, every)
    if len(frames):
        logging.info("evaluating held-out frames")
        views = views_in(dataset, "train")
        predictions = play_motions(player, dataset, views, frames)
        results["held_out_frames"] = score(dataset, predictions, views=views, frames=frames, **common)
    results["surface_distance"] = measure_surface_distance(player, dataset, num_points=config.evaluation.surface_points)
    return results
