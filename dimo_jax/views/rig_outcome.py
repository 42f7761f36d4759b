"""What a run of configs/rig.py ends with: how near its clips are, those it never saw, and strips of new ones."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.data.dataset import Dataset, motions_in
from dimo_jax.io.images import write_png
from dimo_jax.rigs.clip_set import ClipSet
from dimo_jax.runs.rigs import fit_clips, measure_clips
from dimo_jax.systems.rig.player import RigPlayer
from dimo_jax.training.latents import draw_fitted
from dimo_jax.training.loop import Trained
from dimo_jax.views.gallery import Picture
from dimo_jax.views.outcome import Outcome
from dimo_jax.views.rig_strip import draw_strip

_NUM_SAMPLES = 3
_FRAMES = 24


def pick_clips(clips: ClipSet, which: np.ndarray) -> ClipSet:
    """Some clips of a set, by their numbers."""
    return dataclasses.replace(
        clips,
        names=tuple(clips.names[i] for i in which),
        poses=jax.tree.map(lambda x: x[which], clips.poses),
        seconds=clips.seconds[which],
        rates=clips.rates[which],
        loops=clips.loops[which],
        ways=clips.ways[which],
    )


def show_clips(config: ConfigDict, dataset: Dataset, trained: Trained, folder: Path) -> Outcome:
    """Measures every clip in shares of the model's height, fits those kept from training, and draws new ones."""
    start = time.perf_counter()
    system, clips = trained.system, dataset.clips  # type: ignore[attr-defined]
    player = RigPlayer(system.puppet, system.module, trained.state.params)
    own, kept = motions_in(dataset, "train"), motions_in(dataset, "test")
    missing = ("held_out_views", "held_out_frames", "static_baseline", "surface_distance")
    results: dict[str, Any] = dict.fromkeys(missing)
    errors = measure_clips(player, pick_clips(clips, own), [player.latent(int(i)) for i in own])
    results["clips"] = _describe(dataset, own, errors)
    print(f"{len(own)} clips: {_say(results['clips'])}")
    if len(kept):
        _, errors = fit_clips(player, pick_clips(clips, kept), own)
        results["held_out_clips"] = _describe(dataset, kept, errors)
        for name, error in results["held_out_clips"]["each"].items():
            print(f"{name}: {error:.2%} of the height, fitted by its code alone")
        print(f"{len(kept)} held-out clips: {_say(results['held_out_clips'])}")
    drawing = time.perf_counter()
    logging.info("drawing strips")
    path = _draw_samples(player, clips, own, folder / "samples.png")
    seconds = dict(evaluation=drawing - start, pictures=time.perf_counter() - drawing)
    sections = {"New clips": [Picture(path, "Drawn from the Gaussian of the codes, moments from left to right", False)]}
    return Outcome(f"{dataset.object_name}: a space of {len(own)} clips", results, sections, seconds)


def _describe(dataset: Dataset, which: np.ndarray, errors: np.ndarray) -> dict[str, Any]:
    each = {dataset.names[i]: float(error) for i, error in zip(which, errors)}
    return dict(vertex_error=float(errors.mean()), worst=max(each, key=lambda name: each[name]), each=each)


def _say(found: dict[str, Any]) -> str:
    worst = found["worst"]
    return (
        f"vertices {found['vertex_error']:.2%} of the height from their true places on average "
        f"(worst clip: {worst}, {found['each'][worst]:.2%})"
    )


def _draw_samples(player: RigPlayer, clips: ClipSet, own: np.ndarray, path: Path) -> Path:
    codes = draw_fitted(jax.random.key(0), player.params.latents.mu[own], num_samples=_NUM_SAMPLES)
    times = np.linspace(0, 1, _FRAMES)
    poses = [player.play(code, times, loop=True) for code in codes]
    names = [f"sample {index + 1}" for index in range(_NUM_SAMPLES)]
    picture = draw_strip(clips.scene, player.puppet.rig, poses, names, azimuths=(30.0,))
    return write_png(picture, path)
