"""`--app=reconstruct`: finds the code of motions that training never saw, from their videos."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from absl import logging

from dimo_jax.cameras.orbits import resize, select_cameras
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import parse_numbers
from dimo_jax.core.names import choose_names
from dimo_jax.core.types import Array
from dimo_jax.data.dataset import Dataset, motions_in, views_in
from dimo_jax.data.sampler import downsample
from dimo_jax.io.video import write_video
from dimo_jax.metrics.means import pool, summarize
from dimo_jax.metrics.psnr import psnr, psnr_foreground
from dimo_jax.metrics.subsets import draw_evenly
from dimo_jax.runs.choice import Checkpoint
from dimo_jax.runs.restore import Restored, load_data, restore, results_folder
from dimo_jax.runs.unseen import blank_psnr, judge_start, read_unseen, training_psnr
from dimo_jax.runtime.files import replace_file, write_json
from dimo_jax.runtime.naming import free_number
from dimo_jax.runtime.progress import track
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.reconstruct import FitOptions, Fitted, fit_code
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training.config_file import load_config
from dimo_jax.training.images import composite_truth
from dimo_jax.views.gallery import compare_code

LARGEST_FIT = 128  # pixels; a latent code does not profit from more
NUM_TRAINING = 8  # training motions scored for comparison
DECODER_RATE = 1e-3


def run(
    *,
    workdir: str,
    source: str = "",
    motion: str = "",
    views: str = "",
    out: str = "",
    steps: int = 300,
    start: Literal["nearest", "mean"] = "nearest",
    finetune_decoder: int = 0,
    fit_size: int = 0,
    seed: int = 0,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
) -> None:
    """Fits the latent code of unseen motions; decoder, key points and Gaussians stay as they are.

    For every motion, `out` gets `<motion>.mp4` (truth above prediction), `<motion>.npz` (z, and the code it started
    from) and, for all of them, `scores.json`. The run itself is not changed. A motion whose
    best start fits far worse than training did is warned of, there as well.

    Args:
      workdir: folder of a training run.
      source: a native dataset folder with the motions' videos; default: the data of the run.
      motion: names, separated by commas; default: all motions there with the split "test".
      views: indices of the views to fit, separated by commas; default: those that train. One is enough.
      out: folder for the results; default: `workdir`/reconstructions.
      steps: in which the latent code learns.
      start: "nearest", the training code whose pictures look most like the motion's, or "mean" of those codes.
      finetune_decoder: steps in which the decoder, too, learns, afterwards and on a copy of it for this motion, which
        is saved as `<motion>_decoder.npz`; the comparison is then the fine-tuned one.
      fit_size: height of the pictures that are fitted; default: the data's, at most 128.
      seed: of the draw of batches.
      checkpoint: "last", or "best" as training batches went.
      overwrite: replaces files of the same names; else new ones get a number.

    Example:
      python launch.py --app=reconstruct --workdir=runs/knight --motion=Cheer --views=0,3

    Raises:
      UserError: bad flags, no such motion or view, or no finished run there; nothing is written.
    """
    check_flags("reconstruct", locals())
    folder = results_folder(workdir, "reconstructions", out=out)
    model = restore(Path(workdir), checkpoint=checkpoint)
    dataset = read_unseen(source, model) if source else load_data(load_config(Path(workdir)), model.facts)
    chosen, fitted_views = choose_motions(dataset, motion), choose_views(dataset, views)
    height = dataset.cameras.height
    if fit_size > height:
        raise UserError(f"--fit_size: found {fit_size}, expected at most {height}, the pictures' height")
    size = fit_size or min(height, LARGEST_FIT)
    number = free_number(folder, _files_of(dataset, chosen, tuned=finetune_decoder > 0), overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    known_psnr = training_psnr(Path(workdir))
    common: dict[str, Any] = dict(views=fitted_views, size=size, start=start, seed=seed)
    results = []
    for index in chosen:
        begin = time.perf_counter()
        result, player, z = reconstruct(model, dataset, int(index), steps=steps, finetune=finetune_decoder, **common)
        result["seconds"] = time.perf_counter() - begin
        results.append(result)
        stem = folder / f"{dataset.names[index]}{number}"
        write_result(stem, dataset, int(index), player, z, result, fitted_views, tuned=finetune_decoder > 0)
        print(describe(result))
        blank = blank_psnr(model.player, dataset, int(index), fitted_views)
        result["warning"] = judge_start(result, training=known_psnr, blank=blank)
        if result["warning"]:
            logging.warning("%s", result["warning"])
    report: dict[str, Any] = dict(
        source=source or "the run's data",
        fitted_views=[dataset.view_names[v] for v in fitted_views],
        fit_size=size,
        steps=steps,
        finetune_steps=finetune_decoder,
        training_psnr=known_psnr,
        motions=[{name: value for name, value in result.items() if name != "start_code"} for result in results],
        mean=mean_scores([result["fitted"] for result in results]),
        training_motions=None if source else score_training(model.player, dataset, fitted_views),
    )
    write_json(report, folder / f"scores{number}.json")
    if report["training_motions"]:
        known = report["training_motions"]["other_views"] or report["training_motions"]["fitted_views"]
        print(f"training motions on the same views: {_show(known)} dB")
    logging.info("wrote videos, codes and scores%s.json", number)
    print(folder)


def _files_of(dataset: Dataset, motions: np.ndarray, *, tuned: bool) -> list[tuple[str, str]]:
    """What `run` writes for these motions, for `free_number`."""
    endings = (".mp4", ".npz", *(["_decoder.npz"] if tuned else []))
    return [("scores", ".json"), *((dataset.names[index], ending) for index in motions for ending in endings)]


def choose_motions(dataset: Dataset, names: str) -> np.ndarray:
    """Indices [n] of the motions by name; without names those of split "test".

    Raises:
      UserError: an unknown name, or no motion to take.
    """
    if not names:
        found = motions_in(dataset, "test")
        if not len(found):
            raise UserError(
                f"--motion: not given, and no motion of {dataset.object_name} has the split 'test'; "
                "expected --motion=NAME or --source=FOLDER with such motions"
            )
        return found

    def fail(name: str) -> UserError:
        some = ", ".join(dataset.names[:6])
        return UserError(f"--motion: found {name!r}, expected a motion of {dataset.object_name}: {some}, ...")

    return np.asarray([row[0] for row in choose_names(names, dataset.names, fail=fail)])


def choose_views(dataset: Dataset, text: str) -> np.ndarray:
    """Indices [n] of the views to fit; without any those that train.

    Raises:
      UserError: no such view, or one twice.
    """
    if not text:
        return views_in(dataset, "train")
    numbers = parse_numbers("views", text)
    valid = all(number == int(number) and 0 <= number < dataset.num_views for number in numbers)
    if not valid or len(set(numbers)) != len(numbers) or not numbers:
        raise UserError(f"--views: found {text!r}, expected distinct numbers from 0 to {dataset.num_views - 1}")
    return np.asarray(numbers, np.int32)


def reconstruct(
    model: Restored,
    dataset: Dataset,
    motion: int,
    *,
    views: np.ndarray,
    steps: int = 300,
    finetune: int = 0,
    size: int = LARGEST_FIT,
    start: str = "nearest",
    seed: int = 0,
) -> tuple[dict[str, Any], Player, Array]:
    """Fits one motion; arguments as in `run`.

    Returns:
      Scores (`start`, `code`, `finetuned`, `fitted`: the last of them, each by `score_code`; `started_from`, `losses`,
      and the array `start_code`), the player with the decoder that was fitted, and the code [D].
    """
    player, name = model.player, dataset.names[motion]
    z, origin = choose_start(model, dataset, motion, views, size, kind=start)
    result: dict[str, Any] = dict(motion=name, started_from=origin, start_code=np.asarray(z))
    result["start"] = score_code(player, z, dataset, motion, views)
    codes = np.asarray(player.params.latents.mu)[model.trained_motions]
    spread = float(np.mean(np.std(codes, axis=0))) or 1.0
    width = max(1, round(size * dataset.cameras.width / dataset.cameras.height))
    images = downsample(np.asarray(dataset.frames[motion][views]), size, width)
    cameras = resize(select_cameras(dataset.cameras, views), size, width)
    options = FitOptions(
        num_steps=steps,
        code_rate=0.05 * spread,  # in the codes' own unit
        background=tuple(np.asarray(player.background).tolist()),
        implementation=player.implementation,
        dilation=player.dilation,
    )

    def fit(params: Any, z: Array, options: FitOptions, what: str) -> Fitted:
        return fit_code(
            player.components, params, z, images, cameras, dataset.times, move=player.move, options=options, seed=seed,
            graph_times=frame_times(model.num_frames), description=f"{name}: {what}",
        )  # fmt: skip

    fitted = fit(player.params, z, options, "code")
    result["code"] = result["fitted"] = score_code(player, fitted.z, dataset, motion, views)
    losses = [fitted.losses]
    if finetune:
        tuned = dataclasses.replace(
            options, num_steps=finetune, code_rate=0.2 * options.code_rate, decoder_rate=DECODER_RATE
        )
        fitted = fit(player.params, fitted.z, tuned, "decoder")
        player = player.with_params(fitted.params)
        result["finetuned"] = result["fitted"] = score_code(player, fitted.z, dataset, motion, views)
        losses.append(fitted.losses)
    result["losses"] = [float(x) for x in np.concatenate(losses)[::10]]
    return result, player, fitted.z


def choose_start(
    model: Restored, dataset: Dataset, motion: int, views: np.ndarray, size: int, *, kind: str
) -> tuple[Array, str]:
    """The code [D] to begin with, and what it is called: see `run`."""
    player = model.player
    codes = jnp.asarray(player.params.latents.mu)[model.trained_motions]
    if kind == "mean":
        return jnp.mean(codes, axis=0), "mean"
    width = max(1, round(size * dataset.cameras.width / dataset.cameras.height))
    few = views[:: max(1, len(views) // 2)][:2]
    frames = np.unique(np.linspace(0, dataset.num_frames - 1, 5).round().astype(int)[1:])
    cameras = resize(select_cameras(dataset.cameras, few), size, width)
    images = downsample(np.asarray(dataset.frames[motion][np.ix_(few, frames)]), size, width)
    truth = np.asarray(composite_truth(jnp.asarray(images), player.background)[0])
    errors = []
    for z in track(codes, "looking for the nearest motion", unit="motion"):
        rgb, _ = player.render(player.play(z, dataset.times[frames]).gaussians, cameras)
        errors.append(float(np.mean((rgb - truth) ** 2)))
    best = int(np.argmin(errors))
    return codes[best], str(model.facts["names"][model.trained_motions[best]])


def score_code(player: Player, z: Array, dataset: Dataset, motion: int, fitted: np.ndarray) -> dict[str, Any]:
    """PSNR of a code's motion, over the frame and the foreground: `fitted_views`, and `other_views` (None if none).

    Each beside `<name>_undefined`, how many images have no such figure.
    """
    clip = player.play(z, dataset.times)
    others = np.setdiff1d(np.arange(dataset.num_views), fitted)
    scores: dict[str, Any] = {}
    for name, views in (("fitted_views", fitted), ("other_views", others)):
        scores[name] = None
        if len(views):
            rgb = jnp.asarray(player.render(clip.gaussians, select_cameras(dataset.cameras, views))[0])
            truth, alpha = composite_truth(jnp.asarray(dataset.frames[motion][views]), player.background)
            figures = dict(psnr=psnr(rgb, truth), psnr_foreground=psnr_foreground(rgb, truth, alpha > 0.5))
            scores[name] = summarize(figures) | dict(num_images=int(np.prod(rgb.shape[:2])))
    return scores


def mean_scores(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """What `score_code` gives, over motions."""
    means: dict[str, Any] = {}
    for name in ("fitted_views", "other_views"):
        known = [score[name] for score in scores if score[name]]
        means[name] = pool(known) if known else None
    return means


def score_training(player: Player, dataset: Dataset, views: np.ndarray) -> dict[str, Any]:
    """Mean scores of some of the motions that the model was trained on, for comparison."""
    motions = motions_in(dataset, "train")
    chosen = motions[draw_evenly((len(motions),), NUM_TRAINING)[:, 0]]
    bar = track(chosen, "training motions, for comparison", unit="motion")
    return mean_scores([score_code(player, player.latent(int(m)), dataset, int(m), views) for m in bar])


def write_result(
    stem: Path,
    dataset: Dataset,
    motion: int,
    player: Player,
    z: Array,
    result: dict[str, Any],
    fitted: np.ndarray,
    *,
    tuned: bool,
) -> None:
    """Writes the files of one motion: `stem`.mp4 and so on."""
    others = np.setdiff1d(np.arange(dataset.num_views), fitted)
    views = np.asarray([*fitted[:2], *others[-2:]])
    labels = [f"{dataset.view_names[v]} ({'fitted' if v in fitted else 'not used'})" for v in views]
    video = compare_code(player, z, dataset, motion, views, labels=labels)
    write_video(video, stem.with_name(f"{stem.name}.mp4"), frame_rate=dataset.frame_rate)
    with replace_file(stem.with_name(f"{stem.name}.npz")) as temporary:
        np.savez(temporary, z=np.asarray(z), start=result["start_code"], fitted_views=fitted)
    if tuned:
        weights: dict[str, Any] = flax.traverse_util.flatten_dict(player.params.decoder, sep="/")
        with replace_file(stem.with_name(f"{stem.name}_decoder.npz")) as temporary:
            np.savez(temporary, allow_pickle=False, **{key: np.asarray(value) for key, value in weights.items()})


def _show(figures: dict[str, Any] | None) -> str:
    return "-" if figures is None or figures["psnr"] is None else f"{figures['psnr']:.2f}"


def describe(result: dict[str, Any]) -> str:
    """One line about a motion that was fitted."""

    def figures(key: str) -> str:
        pair = [result[key][name] for name in ("fitted_views", "other_views")]
        return " / ".join(map(_show, pair))

    tuned = f", with the decoder {figures('finetuned')}" if "finetuned" in result else ""
    return (
        f"{result['motion']}: PSNR on fitted / other views {figures('start')} dB at the start "
        f"({result['started_from']}), {figures('code')} from the code alone{tuned}; {result['seconds']:.0f} s"
    )
