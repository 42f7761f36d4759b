"""Pictures of a trained model: truth beside prediction, samples, an interpolation, trajectories, the latent map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dimo_jax.cameras.orbits import select_cameras
from dimo_jax.core.types import Array, Camera
from dimo_jax.data.dataset import Dataset, motions_in, views_in
from dimo_jax.geometry.world import World
from dimo_jax.io.images import grid, to_uint8, upscale, write_png
from dimo_jax.io.place import place_gaussians
from dimo_jax.io.ply import write_gaussians
from dimo_jax.io.video import write_video, write_videos
from dimo_jax.runs.codes import draw_samples
from dimo_jax.runtime.progress import track
from dimo_jax.skinning.posing import rest
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training.images import composite_truth
from dimo_jax.views.plots import plot_latents
from dimo_jax.views.trajectories import draw_trajectory_video, write_trajectories

MAX_WIDTH = 4_000  # pixels of a video's row


@dataclass(frozen=True)
class Picture:
    """A file of the gallery and the words under it."""

    path: Path
    caption: str
    is_video: bool


def compare_code(
    player: Player, z: Array, dataset: Dataset, motion: int, views: np.ndarray, *, labels: list[str]
) -> np.ndarray:
    """Truth above what the model makes of code z [D], for some views: a labelled video [T,H',W',3] uint8."""
    clip = player.play(z, dataset.times)
    predicted = to_uint8(player.render(clip.gaussians, select_cameras(dataset.cameras, views))[0])
    truth = to_uint8(np.asarray(composite_truth(jnp.asarray(dataset.frames[motion, views]), player.background)[0]))
    tiles = upscale(np.stack([truth, predicted]), min_height=192)
    return grid(tiles, row_labels=["truth", "prediction"], column_labels=labels)


def compare_motion(player: Player, dataset: Dataset, motion: int, views: np.ndarray) -> np.ndarray:
    """Truth above prediction for some views of a training motion: a labelled video [T,H',W',3] uint8."""
    labels = [f"{dataset.view_names[v]} ({dataset.view_splits[v]})" for v in views]
    return compare_code(player, player.latent(motion), dataset, motion, views, labels=labels)


def write_comparisons(player: Player, dataset: Dataset, folder: Path, *, num_videos: int) -> list[Picture]:
    """One video per motion (at most `num_videos`): a held-out view and two training views."""
    test, train = views_in(dataset, "test"), views_in(dataset, "train")
    views = np.asarray([*test[:1], *train[:: max(1, len(train) // 2)][:2]])
    motions = motions_in(dataset, "train")[:num_videos]
    paths = [folder / f"{motion:03d}_{dataset.names[motion]}.mp4" for motion in motions]
    videos = (compare_motion(player, dataset, int(motion), views) for motion in motions)
    write_videos(zip(videos, paths, strict=True), frame_rate=dataset.frame_rate)
    return [Picture(path, dataset.captions[motion], True) for motion, path in zip(motions, paths, strict=True)]


def write_contact_sheet(player: Player, dataset: Dataset, path: Path, *, num_frames: int = 6) -> Picture:
    """All training motions from one held-out view: truth and prediction of some frames, one row a motion.

    Every row is cut to where its truth is in any of these frames, and enlarged: at the size of the figure errors show.
    """
    view = [*views_in(dataset, "test"), *views_in(dataset, "train")][:1]
    frames = np.linspace(0, dataset.num_frames - 1, num_frames).round().astype(int)
    camera = select_cameras(dataset.cameras, view)
    rows, labels = [], []
    for motion in motions_in(dataset, "train"):
        clip = player.play(player.latent(int(motion)), dataset.times).at(frames)
        predicted = to_uint8(player.render(clip.gaussians, camera)[0][0])
        truth, alpha = composite_truth(jnp.asarray(dataset.frames[motion, view[0]][frames]), player.background)
        pairs = np.stack([to_uint8(np.asarray(truth)), predicted], axis=1).reshape(-1, *predicted.shape[1:])
        rows.append(crop(pairs, find_figure(np.asarray(alpha))))
        labels.append(dataset.names[motion])
    columns = [f"{kind} {frame}" for frame in frames for kind in ("truth", "pred.")]
    write_png(grid(np.stack(rows), row_labels=labels, column_labels=columns), path)
    return Picture(path, "Every motion from a held-out view: truth and prediction side by side, by frame", False)


def find_figure(alpha: np.ndarray) -> tuple[int, int, int]:
    """Where anything is seen in any of the pictures alpha [T,H,W]: top, left and height of a box of their shape.

    It stays within them, with a margin of a sixteenth of its height where there is room; all of them if all are empty.
    """
    _, height, width = alpha.shape
    seen = np.any(alpha > 0.5, axis=0)
    if not seen.any():
        return 0, 0, height
    edges = [np.flatnonzero(np.any(seen, axis=axis))[[0, -1]] + [0, 1] for axis in (1, 0)]
    (top, bottom), (left, right) = (map(int, edge) for edge in edges)
    side = min(height, int(np.ceil(max(bottom - top, (right - left) * height / width) * 9 / 8)))
    wide = round(side * width / height)
    top = min(max((top + bottom - side) // 2, 0), height - side)
    left = min(max((left + right - wide) // 2, 0), width - wide)
    return top, left, side


def crop(frames: np.ndarray, box: tuple[int, int, int]) -> np.ndarray:
    """A box (`find_figure`) of pictures [T,H,W,3] uint8, enlarged to their size."""
    height, width = frames.shape[1:3]
    top, left, side = box
    bounds = left, top, left + round(side * width / height), top + side
    cut = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=bounds) for frame in frames)
    return np.stack([np.asarray(frame) for frame in cut])


def write_latents(
    player: Player, codes: Array, times: Any, camera: Camera, path: Path, *, labels: list[str], rate: float
) -> None:
    """A video of several latents' motions side by side, see `film_latents`."""
    write_video(tile(film_latents(player, codes, times, camera), labels), path, frame_rate=rate)


def film_latents(player: Player, codes: Array, times: Any, camera: Camera) -> np.ndarray:
    """Videos uint8 [n,T,H,W,3] of latents' motions, seen by one camera, or by one per frame (leading axis T)."""
    bar = track(list(codes), "rendering", unit="motion")
    videos = [to_uint8(player.film(player.play(z, times).gaussians, camera)) for z in bar]
    return upscale(np.stack(videos), min_height=192)


def tile(videos: np.ndarray, labels: list[str]) -> np.ndarray:
    """Videos [n,T,H,W,3] in one row or, where that is wider than players take, in several: uint8 [T,H',W',3]."""
    columns = max(1, MAX_WIDTH // videos.shape[3])
    rows = [
        grid(videos[start : start + columns][None], column_labels=labels[start : start + columns])
        for start in range(0, len(videos), columns)
    ]
    width = rows[0].shape[2]
    white = [np.pad(row, ((0, 0), (0, 0), (0, width - row.shape[2]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(white, axis=1)


def write_interpolation(player: Player, dataset: Dataset, camera: Camera, path: Path, *, num_steps: int = 5) -> Picture:
    """A walk on a straight line between the codes of the two motions that lie farthest apart."""
    motions = motions_in(dataset, "train")
    mu = np.asarray(player.params.latents.mu)[motions]
    apart = np.linalg.norm(mu[:, None] - mu[None], axis=-1)
    first, last = (int(motions[i]) for i in np.unravel_index(np.argmax(apart), apart.shape))
    shares = np.linspace(0, 1, num_steps)
    codes = jnp.stack([(1 - s) * player.latent(first) + s * player.latent(last) for s in shares])
    labels = [dataset.names[first], *(f"{s:.0%}" for s in shares[1:-1]), dataset.names[last]]
    write_latents(player, codes, dataset.times, camera, path, labels=labels, rate=dataset.frame_rate)
    return Picture(path, f"From '{dataset.captions[first]}' to '{dataset.captions[last]}'", True)


def write_trajectory_views(
    player: Player, dataset: Dataset, camera: Camera, folder: Path, *, num: int
) -> list[Picture]:
    """Key point trajectories drawn over the rendered motion, for the motions that move most."""
    trajectories = np.stack(
        [np.asarray(player.play(player.latent(int(m)), dataset.times).key_points) for m in motions_in(dataset, "train")]
    )
    motions = motions_in(dataset, "train")
    travel = np.linalg.norm(np.diff(trajectories, axis=1), axis=-1).sum(axis=(1, 2))
    farthest = np.argsort(-travel)[:num]
    paths = [folder / f"{motion:03d}_{dataset.names[motion]}.mp4" for motion in motions[farthest]]

    def draw(index: int) -> np.ndarray:
        clip = player.play(player.latent(int(motions[index])), dataset.times)
        images = to_uint8(player.film(clip.gaussians, camera))
        images, behind = upscale(images, min_height=384), np.asarray(player.background)
        return draw_trajectory_video(trajectories[index], camera, images, num_tail=8, dim_to=behind)

    write_videos(zip(map(draw, farthest), paths, strict=True), frame_rate=dataset.frame_rate)
    world = dataset.world or World()
    write_trajectories(
        world.undo(trajectories),
        folder / "trajectories.npz",
        names=[dataset.names[m] for m in motions],
        times=dataset.times,
        positions=world.undo(player.params.key_points.positions),
        radii=player.control_radii / world.scale,
    )
    captions = [f"Key point trajectories: {dataset.captions[motion]}" for motion in motions[farthest]]
    return [Picture(path, caption, True) for path, caption in zip(paths, captions, strict=True)]


def write_gallery(config: ConfigDict, dataset: Dataset, player: Player, workdir: Path) -> dict[str, list[Picture]]:
    """Writes everything that a run shows into `workdir`, and returns it by section of the report."""
    view = [*views_in(dataset, "test"), *views_in(dataset, "train")][0]
    camera = jax.tree.map(lambda x: jnp.asarray(x)[view], dataset.cameras)
    key = jax.random.key(config.seed + 3)
    motions = motions_in(dataset, "train")
    samples = draw_samples(player, key=key, num_samples=config.evaluation.num_samples, motions=motions)
    sections = {"Contact sheet": [write_contact_sheet(player, dataset, workdir / "contact_sheet.png")]}
    sections["Motions"] = write_comparisons(
        player, dataset, workdir / "videos", num_videos=config.evaluation.num_videos
    )
    path = workdir / "samples.mp4"
    labels = [f"sample {i + 1}" for i in range(len(samples))]
    write_latents(player, samples, dataset.times, camera, path, labels=labels, rate=dataset.frame_rate)
    sections["New motions"] = [Picture(path, "Motions sampled from the latent space", True)]
    if len(motions) > 1:
        sections["Interpolation"] = [write_interpolation(player, dataset, camera, workdir / "interpolation.mp4")]
    sections["Key points"] = write_trajectory_views(player, dataset, camera, workdir / "trajectories", num=2)
    codes = player.params.latents
    plot_latents(
        np.asarray(codes.mu)[motions],
        [dataset.names[m] for m in motions],
        workdir / "latents.png",
        sigma=np.exp(np.asarray(codes.log_sigma)[motions]),
        samples=np.asarray(samples),
    )
    sections["Latent space"] = [Picture(workdir / "latents.png", "Codes of the motions, two main axes", False)]
    write_gaussians(
        place_gaussians(rest(player.params.gaussians, player.params.light), dataset.world or World()),
        workdir / "gaussians.ply",
    )
    return sections
