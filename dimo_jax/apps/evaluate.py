"""`--app=evaluate`: all figures of a trained run, or of two folders of pictures.

python launch.py --app=evaluate --workdir=runs/dimo
python launch.py --app=evaluate --gt=gt --pred=pred --out=scores
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from tqdm import tqdm

from dimo_jax.apps.evaluation import Scores, measure_surface_distance, play_motions, score
from dimo_jax.apps.flag_checks import check_flags
from dimo_jax.apps.gallery import draw_samples
from dimo_jax.apps.player import Player, select_cameras
from dimo_jax.apps.restore import restore, results_folder
from dimo_jax.apps.video_folders import find_pairs, read_videos
from dimo_jax.apps.video_scores import VideoScores, check_packages
from dimo_jax.checkpoints import load_config
from dimo_jax.data.dataset import Dataset, held_out_frames, motions_in, train_frames, views_in
from dimo_jax.data.sources import load
from dimo_jax.errors import UserError
from dimo_jax.metrics.clip import ClipVision, load_clip
from dimo_jax.metrics.motion import joint_error, trajectory_diversity, trajectory_error
from dimo_jax.train.step import composite_truth
from dimo_jax.workdir.files import write_json
from dimo_jax.workdir.naming import free_number

STEM = "evaluation"  # of the file
SMALLEST_ALEX = 31  # pixels a side


def run(
    *,
    workdir: str,
    out: str = "",
    gt: str = "",
    pred: str = "",
    clip: str = "",
    num_lpips_images: int = 32,
    num_videos: int = 0,
    num_samples: int = 8,
    seed: int = 0,
    checkpoint: str = "last",
    overwrite: bool = False,
) -> None:
    """Scores the run in `workdir`, or the pictures in `pred` against those in `gt`; prints a table.

    Args:
      workdir: of a training run; not read where `gt` and `pred` are given.
      out: folder for `evaluation.json`; default: `workdir`, and with `gt` and `pred` no file.
      gt: true pictures, `<object>/eval_<view>/<frame>.png`.
      pred: pictures to score, in the same layout.
      clip: Hugging Face CLIP folder; without it CLIP-I and CLIP-F are reported as missing.
      num_lpips_images: LPIPS is computed on about so many images, evenly spread; 0 takes all.
      num_videos: FVD is computed on about so many videos, evenly spread; 0 takes all.
      num_samples: motions drawn for the diversity, at least 2.
      seed: of that draw.
      checkpoint: "last", or "best" as training batches went.
      overwrite: replaces an `evaluation.json` that is there; else a new one gets a number.

    Raises:
      UserError: bad input; nothing has been written.
    """
    check_flags("evaluate", locals())
    target = results_folder(workdir, out=out) if out or not gt else None
    check_packages()
    vision = load_clip(clip) if clip else None
    common = dict(clip=vision, num_lpips_images=num_lpips_images, num_videos=num_videos)
    if gt:
        results = score_folders(Path(gt), Path(pred), **common)  # type: ignore[arg-type]
    else:
        results = score_run(Path(workdir), num_samples=num_samples, seed=seed, checkpoint=checkpoint, **common)  # type: ignore[arg-type]
    print(format_table(results))
    if target is not None:
        path = target / f"{STEM}{free_number(target, [(STEM, '.json')], overwrite=overwrite)}.json"
        write_json(_finite(results), path)
        print(f"evaluation: {path.resolve()}")


def score_run(
    workdir: Path,
    *,
    clip: ClipVision | None,
    num_lpips_images: int,
    num_videos: int,
    num_samples: int,
    seed: int,
    checkpoint: str = "last",
) -> dict[str, Any]:
    """Figures of the model in `workdir` on its own data; arguments as in `run`.

    Returns:
      `held_out_views` and `held_out_frames` (images), `held_out_videos` (the held-out views, all frames), `diversity`,
      `geometry` (shares of the object's height where that is known), and `missing`: what is None, and why.

    Raises:
      UserError: no finished run there, or data that has changed since.
    """
    model = restore(workdir, checkpoint=checkpoint)
    config, player = load_config(workdir), model.player
    dataset = load(config.data)
    if list(dataset.names) != list(model.facts["names"]) or dataset.num_frames != model.num_frames:
        raise UserError(
            f"config.data: found {dataset.num_motions} motions of {dataset.num_frames} frames that are not those of "
            f"--workdir={workdir}, expected the data that it was trained on"
        )
    missing: dict[str, str] = {}
    networks = _networks(min(dataset.cameras.height, dataset.cameras.width), missing)
    train, test = views_in(dataset, "train"), views_in(dataset, "test")
    motions, every = motions_in(dataset, "train"), config.data.held_out_every
    videos = VideoScores(clip=clip, stride=_stride(len(motions) * len(test), num_videos))
    results: dict[str, Any] = {}
    for name, views, frames, predictions in (
        ("held_out_views", test, train_frames(dataset, every), _watch(player, dataset, test, every, videos)),
        ("held_out_frames", train, held_out_frames(dataset, every), None),
    ):
        if not len(views) or not len(frames):
            missing[name] = "the data holds none out"
            results[name] = None
            continue
        predictions = predictions or tqdm(
            play_motions(player, dataset, views, frames), desc=name, total=len(motions), delay=2.0, leave=False
        )
        results[name] = score(
            dataset,
            predictions,
            views=views,
            frames=frames,
            background=player.background,
            num_lpips_images=num_lpips_images or len(motions) * len(views) * len(frames),
            networks=networks,
        )
    results["held_out_videos"] = videos.summary() if len(test) else None
    results["diversity"] = _measure_diversity(player, dataset, num_samples=num_samples, seed=seed)
    results["geometry"] = _measure_geometry(player, dataset, config.evaluation.surface_points)
    for name in ("surface", "joints"):
        if getattr(dataset, name) is None:
            missing[f"geometry.{name}"] = "the data does not know them"
    return results | dict(missing=missing | videos.missing)


def _watch(
    player: Player, dataset: Dataset, views: np.ndarray, every: int, videos: VideoScores
) -> Iterator[tuple[int, np.ndarray]]:
    """Plays the training motions whole for `videos`, and passes the frames that trained on to whoever scores images."""
    cameras, frames = select_cameras(dataset.cameras, views), train_frames(dataset, every)
    for motion in tqdm(motions_in(dataset, "train"), desc="held_out_views", delay=2.0, leave=False):
        clip = player.play(player.latent(int(motion)), dataset.times)
        rgb, alpha = player.render(clip.gaussians, cameras)
        truth, mask = composite_truth(jnp.asarray(dataset.frames[motion, views]), player.background)
        videos.add(rgb, np.asarray(truth), alpha > 0.5, np.asarray(mask) > 0.5)
        yield int(motion), rgb[:, frames]


def _networks(side: int, missing: dict[str, str]) -> tuple[str, ...]:
    if side >= SMALLEST_ALEX:
        return ("vgg", "alex")
    missing["lpips_alex"] = f"pictures of {side} pixels, AlexNet takes at least {SMALLEST_ALEX}"
    return ("vgg",)


def _stride(count: int, wanted: int) -> int:
    return max(1, -(-count // wanted)) if wanted else 1


def _measure_diversity(player: Player, dataset: Dataset, *, num_samples: int, seed: int) -> dict[str, Any]:
    """Mean pairwise trajectory distance of the key points, of new motions and of the training motions."""
    unit = dataset.height or 1.0
    motions = motions_in(dataset, "train")
    sampled = draw_samples(player, key=jax.random.key(seed), num_samples=num_samples, motions=motions)
    trained = [player.latent(int(motion)) for motion in motions]
    found: dict[str, Any] = {"unit": "object height" if dataset.height else "world unit", "num_samples": num_samples}
    for name, codes in (("samples", sampled), ("training_motions", trained)):
        trajectories = [np.asarray(player.play(z, dataset.times).key_points) for z in codes]
        found[name] = trajectory_diversity(np.stack(trajectories)) / unit if len(trajectories) > 1 else None
    return found


def _measure_geometry(player: Player, dataset: Dataset, num_points: int) -> dict[str, Any]:
    """3D errors against what the data knows, as shares of the object's height."""
    unit = dataset.height or 1.0
    found: dict[str, Any] = {"unit": "object height" if dataset.height else "world unit"}
    found["surface_distance"] = measure_surface_distance(player, dataset, num_points=num_points)
    alive = np.flatnonzero(player.alive)
    chosen = alive[:: max(1, len(alive) // num_points)]
    errors, stills, joints = [], [], []
    for motion in motions_in(dataset, "train"):
        clip = player.play(player.latent(int(motion)), dataset.times)
        if dataset.surface is not None:
            error, still = trajectory_error(np.asarray(clip.gaussians.means[:, chosen]), dataset.surface[motion])
            errors.append(error / unit)
            stills.append(still / unit)
        if dataset.joints is not None:
            joints.append(joint_error(np.asarray(clip.key_points), dataset.joints[motion]) / unit)
    named = (("trajectory_error", errors), ("trajectory_error_of_a_still", stills), ("joint_error", joints))
    return found | {name: float(np.mean(values)) if values else None for name, values in named}


def score_folders(
    gt: Path, pred: Path, *, clip: ClipVision | None, num_lpips_images: int, num_videos: int
) -> dict[str, Any]:
    """Figures of pictures against true ones in the Consistent4D layout; no model is needed. Arguments as in `run`.

    Returns:
      `average` over objects of the image and video figures, with one FVD over all videos; `objects`, the same for each;
      and `missing`.

    Raises:
      UserError: folders that do not fit each other.
    """
    pairs = find_pairs(gt, pred)
    count = sum(len(pair.truth) * pair.num_frames for pair in pairs)
    stride = _stride(count, num_lpips_images)
    video_stride = _stride(sum(len(pair.truth) for pair in pairs), num_videos)
    missing: dict[str, str] = {}
    networks = _networks(min(min(pair.size) for pair in pairs), missing)
    together, seen, objects = VideoScores(clip=clip, stride=video_stride), 0, {}
    for pair in tqdm(pairs, desc="objects", delay=2.0, leave=False):
        logging.info("scoring %s", pair.name)
        (rgb, mask), (truth, true_mask) = read_videos(pair.pred), read_videos(pair.truth)
        own = Scores(networks)
        for view in range(len(rgb)):
            chosen = np.arange(-seen % stride, pair.num_frames, stride)
            seen += pair.num_frames
            own.add(jnp.asarray(rgb[view]), jnp.asarray(truth[view]), jnp.asarray(true_mask[view]), chosen)
        videos = together.add(rgb, truth, mask, true_mask)
        objects[pair.name] = own.summary() | videos
    names = [name for name in next(iter(objects.values())) if not name.startswith("num_")]
    average = {name: _average([row[name] for row in objects.values()]) for name in names}
    sums = {name: sum(int(row[name] or 0) for row in objects.values()) for name in ("num_images", "num_lpips_images")}
    whole = together.summary()
    average |= sums | {name: whole[name] for name in ("fvd", "num_fvd_videos", "num_videos")}
    return dict(average=average, objects=objects, missing=missing | together.missing)


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def format_table(results: Mapping[str, Any]) -> str:
    """The results as text: one block a section, one line a figure."""
    lines = []
    for section, figures in results.items():
        if not figures:
            continue
        lines.append(section)
        for name, value in figures.items():
            if isinstance(value, Mapping):
                shown = "  ".join(f"{key} {_show(x)}" for key, x in value.items() if not key.startswith("num_"))
                lines.append(f"  {name}: {shown}")
            else:
                lines.append(f"  {name:<30} {_show(value)}")
    return "\n".join(lines)


def _show(value: Any) -> str:
    return "missing" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    """JSON has no infinity (the PSNR of equal pictures) and no NaN: both become null."""
    if isinstance(value, Mapping):
        return {key: _finite(x) for key, x in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
