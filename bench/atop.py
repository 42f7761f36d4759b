"""How good drawn films of a part's motion are, beside the still, on made objects that training has not seen.

    python -m bench.atop --workdir=RUN[,RUN] --out=FILE.json [--categories=drawer,oven] [--seeds=1000,1001]
        [--steps=N] [--guidance=X] [--sheet=FILE.png] [--fvd] [--levels] [--control]

Rows are `still`, the rest state again and again, and `drawn`, what the run in RUN draws from rest state, mask and
sentence, with one seed; of several runs, such as of other seeds, their mean and standard deviation. Columns, means
over all views and all frames but the first, on white, beside the truth at the resolution of the model's latents:
`psnr`, `moving` (PSNR of the places alone that the truth changes), `lpips` (VGG), `moved` (how much is changed where
the truth changes, 1 for the truth) and with `--fvd` the FVD of all videos, every view one; frames are shown twice or
more often where there are fewer than the 10 of ATOP's, as I3D takes no fewer than 9.

`--levels` says what one look at the noisy truth leaves of the still's error (mean square, latents, all frames but the
first), by timestep: 1 is the still, 0 the truth. It is what score distillation hears, where `drawn` is what sampling
makes of it.

`--control` gives a chest of drawers (seeds as above) the mask of another drawer: `own` and `other` say how much is
changed within each of the two masks, mean difference from the rest state in 0..1, by the drawer that was asked for.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.data.articulated.categories import CATEGORIES, HELD_OUT, make_shape
from dimo_jax.data.articulated.shapes import PART
from dimo_jax.data.articulated.videos import PartVideos, film, settle
from dimo_jax.diffusion.noise import add_noise, plan_alphas, to_noise
from dimo_jax.io.images import write_png
from dimo_jax.meshes.renderer import Material, render_mesh
from dimo_jax.metrics.fvd import frechet_distance, video_features
from dimo_jax.metrics.lpips import lpips
from dimo_jax.runtime.files import write_json
from dimo_jax.systems.atop.generator.generator import Generator
from dimo_jax.systems.atop.generator.reference import over_white
from dimo_jax.systems.atop.generator.trained import load_generator
from dimo_jax.views.atop_outcome import draw_film, lay_films

TIMESTEPS = (999, 800, 600, 400, 200, 20)
FVD_FRAMES = 10
CHANGED = 0.05  # of white, the least difference from the rest state that is a change


def show(generator: Generator, frames: np.ndarray) -> np.ndarray:
    """A film [V,F,side,side,4] uint8 as the model's latents hold it."""
    flat = frames.reshape(-1, *frames.shape[2:])
    return generator.decode(generator.encode(flat)).reshape(frames.shape)


def judge(drawn: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The figures of one film [V,F,H,W,4] uint8 beside the true one."""
    pred, true = (over_white(each).astype(np.float32) / 255 for each in (drawn, truth))
    rest, pred, true = true[:, :1], pred[:, 1:], true[:, 1:]
    changed = np.abs(true - rest).max(axis=-1) > CHANGED
    errors = (pred - true) ** 2
    pairs = (jnp.asarray(each.reshape(-1, *each.shape[2:])) for each in (pred, true))
    towards = ((pred - rest) * (true - rest)).sum() / max(((true - rest) ** 2).sum(), 1e-12)
    return dict(
        psnr=float(np.mean(-10 * np.log10(np.maximum(errors.mean(axis=(2, 3, 4)), 1e-6)))),
        moving=float(-10 * np.log10(max(errors[changed].mean(), 1e-6))),
        lpips=float(np.mean(np.asarray(lpips(*pairs)))),
        moved=float(towards),
    )


def mask_other_drawer(seed: int, found: PartVideos) -> np.ndarray:
    """The mask [V,side,side] uint8 of a drawer that is not the part of a made chest."""
    thing, _ = settle(make_shape("drawer", seed))
    moves = np.isin(thing.triangle_nodes, thing.node_names.index(PART))
    corners = thing.vertices[thing.triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    foremost = corners[..., 2].min(axis=1) > corners[moves][..., 2].max() - 0.15  # not the tray
    front = thing.mesh.triangle_materials[np.argmax(areas * (moves & foremost))]
    likewise = ~moves & (thing.mesh.triangle_materials == front)
    low, high = np.sort(corners[np.argmax(areas * likewise)][:, 1])[[0, -1]]
    heights = corners[..., 1]
    chosen = np.flatnonzero(likewise & (heights.min(axis=1) > low - 1e-4) & (heights.max(axis=1) < high + 1e-4))
    flat = tuple(Material(np.array([share] * 3 + [1.0]), unlit=True, double_sided=False) for share in (0.0, 1.0))
    marks = np.isin(np.arange(len(thing.triangles)), chosen).astype(np.int32)
    mesh = dataclasses.replace(thing.mesh, materials=flat, triangle_materials=marks)
    pictures = np.stack([render_mesh(thing.vertices, mesh, found.cameras[view]) for view in range(len(found.frames))])
    shown = (pictures[..., 0] >= 128) & (pictures[..., 3] > 0) & (found.masks[:, 0] == 0)  # not both at an edge
    return np.where(shown, 255, 0).astype(np.uint8)


def control(generator: Generator, seeds: Sequence[int], **how: Any) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """What moves where the part of a chest or another of its drawers is asked for, and the films."""
    rows, films = [], []
    for seed in seeds:
        made = make_shape("drawer", seed)
        found = film(made, num_frames=generator.num_frames, side=generator.side)
        own, other = found.masks[:, 0], mask_other_drawer(seed, found)
        rest = over_white(show(generator, found.frames[:, :1])).astype(np.float32)
        row: dict[str, Any] = dict(seed=seed)
        for name, mask in (("own", own), ("other", other)):
            asked = dataclasses.replace(found, masks=np.repeat(mask[:, None], generator.num_frames, axis=1))
            drawn = draw_film(generator, jax.random.key(0), asked, made.sentence, **how)
            change = np.abs(over_white(drawn).astype(np.float32) - rest).mean(axis=-1)[:, 1:] / 255
            shares = [float(change[np.repeat(each[:, None] > 0, change.shape[1], 1)].mean()) for each in (own, other)]
            row[f"asked_{name}"] = dict(own=shares[0], other=shares[1])
            films.append(drawn)
        rows.append(row)
    return rows, films


def compare(generator: Generator, categories: Sequence[str], seeds: Sequence[int], **how: Any) -> dict[str, Any]:
    """Rows of all objects; `films` are what was compared, truth and drawn one after the other."""
    rows, films = [], []
    for category in categories:
        for seed in seeds:
            made = make_shape(category, seed)
            found = film(made, num_frames=generator.num_frames, side=generator.side)
            truth = show(generator, found.frames)
            start = time.process_time()
            drawn = draw_film(generator, jax.random.key(seed), found, made.sentence, **how)
            seconds = time.process_time() - start
            still = np.repeat(truth[:, :1], truth.shape[1], axis=1)
            figures = dict(still=judge(still, truth), drawn=judge(drawn, truth))
            rows.append(dict(category=category, seed=seed, cpu_seconds=seconds, **figures))
            films += [truth, drawn]
            print(
                f"{category:10s} {seed}  "
                + "  ".join(
                    f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in each.items())
                    for name, each in figures.items()
                ),
                flush=True,
            )
    return dict(rows=rows, films=films)


def see_through_noise(generator: Generator, categories: Sequence[str], seeds: Sequence[int]) -> dict[str, float]:
    """Shares of the still's error by timestep, means over objects."""
    alphas, shares = plan_alphas(), []
    for category in categories:
        for seed in seeds:
            made = make_shape(category, seed)
            found = film(made, num_frames=generator.num_frames, side=generator.side)
            flat = generator.encode(found.frames.reshape(-1, *found.frames.shape[2:]))
            truth = flat.reshape(*found.frames.shape[:2], *flat.shape[1:])
            condition = generator.condition(found.frames[:, 0], found.masks[:, 0], found.cameras, made.sentence)
            predict = jax.jit(generator.predict(condition, guidance=1.0))
            row = []
            for timestep in TIMESTEPS:
                alpha = jnp.float32(alphas[timestep])
                noisy = add_noise(truth, jax.random.normal(jax.random.key(timestep), truth.shape), alpha)
                noise = to_noise(predict(noisy, jnp.array(timestep)), noisy, alpha, prediction=generator.prediction)
                data = (noisy - jnp.sqrt(1 - alpha) * noise) / jnp.sqrt(alpha)
                errors = [float(jnp.mean((each - truth)[:, 1:] ** 2)) for each in (data, truth[:, :1])]
                row.append(errors[0] / errors[1])
            shares.append(row)
    return {str(timestep): float(x) for timestep, x in zip(TIMESTEPS, np.mean(shares, axis=0), strict=True)}


def average(rows: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
    """Means over objects."""
    return {key: float(np.mean([row[name][key] for row in rows])) for key in rows[0][name]}


def measure_fvd(films: Sequence[np.ndarray], known: dict[str, np.ndarray]) -> dict[str, float]:
    """FVD of still and drawn films beside the true ones, every view a video, of `FVD_FRAMES` frames at least.

    Args:
      films: truth and drawn, one after the other.
      known: features of what does not depend on the run, filled by the first call.
    """
    held = -(-FVD_FRAMES // films[0].shape[1])
    shown = [np.repeat(over_white(each).astype(np.float32) / 255, held, axis=1) for each in films]
    truth, drawn = shown[::2], shown[1::2]
    if not known:
        known["truth"] = video_features(np.concatenate(truth))
        known["still"] = video_features(np.concatenate([np.repeat(e[:, :1], e.shape[1], axis=1) for e in truth]))
    features = dict(still=known["still"], drawn=video_features(np.concatenate(drawn)))
    return {name: frechet_distance(each, known["truth"]) for name, each in features.items()}


def judge_run(
    workdir: str, options: argparse.Namespace, known: dict[str, np.ndarray]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The figures of a run, and the films that were compared; `known` see `measure_fvd`.

    Raises:
      UserError: there is no such run.
    """
    generator, categories = load_generator(workdir), options.categories.split(",")
    seeds = [int(each) for each in options.seeds.split(",")]
    how = dict(num_steps=options.steps, guidance=options.guidance)
    found = compare(generator, categories, seeds, **how)
    films, rows = found["films"], found["rows"]
    result: dict[str, Any] = dict(workdir=workdir) | {name: average(rows, name) for name in ("still", "drawn")}
    result |= dict(rows=rows, **how)
    if options.fvd:
        result["fvd"] = measure_fvd(films, known)
    if options.levels:
        result["levels"] = see_through_noise(generator, categories, seeds)
    if options.control:
        result["control"], more = control(generator, seeds, **how)
        films = films + more
    return result, films


def join_runs(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard deviation over runs of what each has as a mean over objects."""
    names = [name for name in ("still", "drawn", "fvd", "levels") if name in runs[0]]
    values = {name: {key: [run[name][key] for run in runs] for key in runs[0][name]} for name in names}
    return {
        name: {key: (float(np.mean(each)), float(np.std(each))) for key, each in found.items()}
        for name, found in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="runs of configs/atop.py, by comma")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    parser.add_argument("--seeds", default=f"{HELD_OUT},{HELD_OUT + 1}", help="of objects; 1000 and on are held out")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--sheet", default="", help="a picture to write of the first run: truth above what is drawn")
    parser.add_argument("--fvd", action="store_true")
    parser.add_argument("--levels", action="store_true", help="what is seen through noise as well")
    parser.add_argument("--control", action="store_true", help="another drawer's mask as well")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    known: dict[str, np.ndarray] = {}
    try:
        for workdir in options.workdir.split(","):
            run, films = judge_run(workdir, options, known)
            if options.sheet and not runs:
                write_png(lay_films(films), Path(options.sheet))
            runs.append(run)
    except UserError as error:
        sys.exit(f"error: {error}")
    joined = join_runs(runs)
    for name, figures in joined.items():
        print(f"{name:8s}" + ", ".join(f"{key} {mean:.3f} +- {spread:.3f}" for key, (mean, spread) in figures.items()))
    for run in runs:
        if options.control:
            print("control", run["workdir"], run["control"])
    write_json(dict(joined=joined, runs=runs), Path(options.out))


if __name__ == "__main__":
    main()
