"""Clips that AnimaX draws for a sentence: videos and pose maps of a rig, which are localised, lifted and solved for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.clip_views import RigView, draw_stills, view_rig
from dimo_jax.io.npz import read_npz
from dimo_jax.rigs.drawn_maps import recover_drawn
from dimo_jax.runs.animation import Animation, Model, animate_markers
from dimo_jax.runs.animax import RestoredAnimax
from dimo_jax.runtime.files import read_json, replace_file, write_json
from dimo_jax.runtime.progress import Progress

STILL = 0.5  # percent of the diagonal: what `moved` is of a clip that hardly moves; clips that train are above
REQUEST, SAMPLE = "request.json", "sample_{:03d}.npz"


@dataclass(frozen=True)
class Wish:
    """What is asked of the model."""

    prompt: str
    num_samples: int
    seed: int
    changes: dict[str, Any]  # of `config.animax.sampling`


@dataclass(frozen=True)
class Sample:
    """One draw."""

    index: int
    videos: np.ndarray  # [V,2,T,H,W,3] uint8
    animation: Animation


def view_model(model: Model, run: RestoredAnimax) -> RigView:
    """A rig as the model has seen rigs in training, whatever its own cameras stand around."""
    size, facts = run.size, run.facts
    return view_rig(model.scene, size=size, azimuths_deg=facts["azimuths"], elevation_deg=facts["elevation"])


def draw_samples(run: RestoredAnimax, model: Model, view: RigView, wish: Wish, folder: Path) -> list[np.ndarray]:
    """Videos [V,2,T,H,W,3] uint8 of a rig, one after the other.

    Args:
      run: the model.
      model: the rig.
      view: of it.
      wish: what is asked.
      folder: keeps samples that are finished, so that a call that was killed goes on after them; those of another
        wish, model or rig are thrown away.
    """
    stills = draw_stills(view, model.scene)
    _open_folder(folder, _describe(run, stills, wish))
    words = run.player.embed([wish.prompt])
    cameras = jax.tree.map(lambda x: np.asarray(x)[None], view.cameras)
    found: list[np.ndarray] = [
        _read(folder / SAMPLE.format(index)) for index in range(_count(folder, wish.num_samples))
    ]
    with Progress(wish.num_samples, "drawing", unit="sample", initial=len(found)) as progress:
        for index in range(len(found), wish.num_samples):
            key = jax.random.fold_in(jax.random.key(wish.seed), index)
            (videos,) = run.player.draw(key, stills[None], words, cameras, **wish.changes)
            with replace_file(folder / SAMPLE.format(index)) as path, path.open("wb") as file:
                np.savez_compressed(file, videos=videos)
            found.append(videos)
            progress.update()
    return found


def _describe(run: RestoredAnimax, stills: np.ndarray, wish: Wish) -> dict[str, Any]:
    """All that a sample depends on but its number."""
    digest = hashlib.sha256(stills.tobytes())
    for array in jax.tree.leaves(run.player.params):
        digest.update(np.asarray(array).tobytes())
    asked = dict(prompt=wish.prompt, seed=wish.seed, changes=wish.changes)
    described: dict[str, Any] = json.loads(json.dumps(asked | dict(digest=digest.hexdigest())))
    return described


def _open_folder(folder: Path, request: dict[str, Any]) -> None:
    if folder.exists() and read_json(folder / REQUEST) != request:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(request, folder / REQUEST)


def _count(folder: Path, most: int) -> int:
    return next((index for index in range(most) if not (folder / SAMPLE.format(index)).is_file()), most)


def _read(path: Path) -> np.ndarray:
    videos = read_npz(path, "a sample of --app=animate").get("videos")
    if videos is None or videos.ndim != 6 or videos.dtype != np.uint8:
        raise UserError(f"{path}: holds no videos, expected a sample of --app=animate; delete its folder to draw anew")
    return videos


def _measure_motion(points: np.ndarray, diagonal: float) -> float:
    """Mean distance of points [T,K,3] from where each is on average, in percent of the diagonal."""
    return 100 * float(np.linalg.norm(points - points.mean(axis=0), axis=-1).mean()) / diagonal


def lift_samples(
    model: Model, view: RigView, videos: Sequence[np.ndarray], name: str, *, frame_rate: float, smooth: float
) -> list[Sample]:
    """Clips of drawn videos, the one whose views agree best first.

    Args:
      model: the rig.
      view: of it.
      videos: of `draw_samples`.
      name: of the clips.
      frame_rate: frames a second.
      smooth: of `animate_markers`.

    Raises:
      UserError: in none of them a marker is found.
    """
    few, samples, order = dataclasses.replace(model, markers=view.markers), [], []
    for index, each in enumerate(videos):
        lifted = recover_drawn(each[:, 1], view.model_cameras(), view.markers)
        if not np.isfinite(lifted.errors).any():
            continue
        animation = animate_markers(few, name, lifted, frame_rate, smooth=smooth)
        means = lifted.confidence.mean(axis=0)
        figures = animation.figures | {
            "sample": index,
            "markers_seen": round(float(np.isfinite(lifted.errors).mean()), 3),
            "agreement": round(lifted.agreement, 3),
            "moved": round(_measure_motion(lifted.points, view.markers.diagonal), 3),
            "confidence": {name: round(float(mean), 3) for name, mean in zip(view.markers.names, means)},
        }
        samples.append(Sample(index, each, dataclasses.replace(animation, figures=figures)))
        order.append((float(np.nanmean(lifted.errors)) / max(figures["markers_seen"], 1e-3), index))
    if not samples:
        raise UserError(f"--prompt: no marker of {model.scene.path.name} is found in {len(videos)} drawn, draw others")
    places = sorted(range(len(samples)), key=lambda place: order[place])
    return [samples[place] for place in places]
