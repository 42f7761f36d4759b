"""`--app=evaluate`: all figures of a trained run, or of two folders of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.cameras.orbits import select_cameras
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset, held_out_frames, motions_in, train_frames, views_in
from dimo_jax.metrics.clip import ClipVision, load_clip
from dimo_jax.metrics.folders import choose_networks, score_folders
from dimo_jax.metrics.means import summarize
from dimo_jax.metrics.motion import joint_error, trajectory_diversity, trajectory_error
from dimo_jax.metrics.subsets import draw_evenly
from dimo_jax.metrics.videos import VideoScores, check_packages
from dimo_jax.runs.choice import Checkpoint
from dimo_jax.runs.codes import draw_samples
from dimo_jax.runs.evaluation import choose_gaussians, measure_surface_distance, play_motions, score
from dimo_jax.runs.restore import load_data, restore, results_folder
from dimo_jax.runtime.files import write_json
from dimo_jax.runtime.naming import free_number
from dimo_jax.runtime.progress import track
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training.config_file import load_config
from dimo_jax.training.images import composite_truth

STEM = "evaluation"  # of the file


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
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
) -> None:
    """Scores the run in `workdir`, or the pictures in `pred` against those in `gt`; prints a table.

    Args:
      workdir: folder of a training run; not read where `gt` and `pred` are given.
      out: folder for `evaluation.json`; default: `workdir`, and with `gt` and `pred` no file.
      gt: true pictures, `<object>/eval_<view>/<frame>.png`.
      pred: pictures to score, in the same layout.
      clip: Hugging Face CLIP folder; without it CLIP-I and CLIP-F are reported as missing.
      num_lpips_images: LPIPS is computed on so many images, drawn evenly over motions, views and frames; 0 takes all.
      num_videos: FVD is computed on so many videos, drawn evenly over motions and views; 0 takes all.
      num_samples: how many motions are drawn for the diversity, at least 2.
      seed: of the draw of these motions.
      checkpoint: "last", or "best" as training batches went.
      overwrite: replaces an `evaluation.json` that is there; else a new one gets a number.

    Example:
      python launch.py --app=evaluate --workdir=runs/dimo --num_videos=16
      python launch.py --app=evaluate --gt=data/gt --pred=data/pred --out=scores

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
        write_json(results, path)
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
    dataset = load_data(config, model.facts)
    if list(dataset.names) != list(model.facts["names"]) or dataset.num_frames != model.num_frames:
        raise UserError(
            f"config.data: found {dataset.num_motions} motions of {dataset.num_frames} frames that are not those of "
            f"--workdir={workdir}, expected the data that it was trained on"
        )
    missing: dict[str, str] = {}
    networks = choose_networks(min(dataset.cameras.height, dataset.cameras.width), missing)
    train, test = views_in(dataset, "train"), views_in(dataset, "test")
    motions, every = motions_in(dataset, "train"), config.data.held_out_every
    videos = VideoScores(clip=clip)
    watched = _watch(player, dataset, test, every, videos, num_videos)
    results: dict[str, Any] = {}
    for name, views, frames, predictions in (
        ("held_out_views", test, train_frames(dataset, every), watched),
        ("held_out_frames", train, held_out_frames(dataset, every), None),
    ):
        if not len(views) or not len(frames):
            missing[name] = "the data holds none out"
            results[name] = None
            continue
        predictions = predictions or track(
            play_motions(player, dataset, views, frames), name, unit="motion", total=len(motions)
        )
        results[name] = score(
            dataset,
            predictions,
            views=views,
            frames=frames,
            background=player.background,
            num_lpips_images=num_lpips_images,
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
    player: Player, dataset: Dataset, views: np.ndarray, every: int, videos: VideoScores, num_videos: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Plays the training motions whole for `videos`, and passes the frames that trained on to whoever scores images."""
    cameras, frames = select_cameras(dataset.cameras, views), train_frames(dataset, every)
    motions = motions_in(dataset, "train")
    cells = draw_evenly((len(motions), len(views)), num_videos)
    for place, motion in enumerate(track(motions, "held_out_views", unit="motion")):
        clip = player.play(player.latent(int(motion)), dataset.times)
        rgb, alpha = player.render(clip.gaussians, cameras)
        truth, mask = composite_truth(jnp.asarray(dataset.frames[motion, views]), player.background)
        chosen = cells[cells[:, 0] == place, 1]
        seen = [(motion, views[view], 0) for view in chosen]
        videos.add(rgb, np.asarray(truth), alpha > 0.5, np.asarray(mask) > 0.5, chosen=chosen, seen=seen)
        yield int(motion), rgb[:, frames]


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
    chosen = choose_gaussians(player, num_points)
    errors, stills, joints = [], [], []
    for motion in motions_in(dataset, "train"):
        clip = player.play(player.latent(int(motion)), dataset.times)
        if dataset.surface is not None:
            error, still = trajectory_error(np.asarray(clip.gaussians.means[:, chosen]), dataset.surface[motion])
            errors.append(error / unit)
            stills.append(still / unit)
        if dataset.joints is not None:
            joints.append(joint_error(np.asarray(clip.key_points), dataset.joints[motion]) / unit)
    return found | summarize(dict(trajectory_error=errors, trajectory_error_of_a_still=stills, joint_error=joints))


def format_table(results: Mapping[str, Any]) -> str:
    """The results as text: one block a section, one line a figure. What was seen is for the file alone."""
    lines = []
    for section, figures in results.items():
        if not figures:
            continue
        lines.append(section)
        for name, value in _figures(figures):
            if isinstance(value, Mapping):
                lines.append(f"  {name}: " + "  ".join(f"{key} {_show(x)}" for key, x in _figures(value, sizes=False)))
            else:
                lines.append(f"  {name:<30} {_show(value)}")
    return "\n".join(lines)


def _figures(values: Mapping[str, Any], *, sizes: bool = True) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        is_count = name.endswith("_undefined") and not value
        if (
            not isinstance(value, list)
            and name != "motions"
            and not is_count
            and (sizes or not name.startswith("num_"))
        ):
            yield name, value


def _show(value: Any) -> str:
    return "missing" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
