"""`--app=interpolate`: walks between motions of a trained model, as a grid of videos and one that morphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import join_names
from dimo_jax.core.types import Array, Gaussians
from dimo_jax.io.images import to_uint8, upscale
from dimo_jax.io.video import write_video
from dimo_jax.metrics import shape
from dimo_jax.runs.choice import CameraPath, Checkpoint, Line
from dimo_jax.runs.codes import LINES
from dimo_jax.runs.restore import Restored, restore, results_folder
from dimo_jax.runtime.files import write_json
from dimo_jax.runtime.naming import free_number
from dimo_jax.runtime.progress import track
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training import latents
from dimo_jax.views.camera_path import make_camera_path
from dimo_jax.views.gallery import write_latents

NUM_ANCHORS = 1_000  # surface points whose neighbours are watched
LIMIT = 1.5  # of the change of neighbour distances in training motions


def run(
    *,
    workdir: str,
    motions: str,
    out: str = "",
    path: Line = "linear",
    num_steps: int = 5,
    num_frames: int = 0,
    frame_rate: float = 0.0,
    size: int = 0,
    camera: CameraPath = "fixed",
    azimuths: str = "",
    elevation: float | None = None,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
) -> None:
    """Walks between motions of the run in `workdir`.

    Writes `<names>_<path>_grid.mp4` (a column per share), `<names>_<path>_morph.mp4` (one clip: while its time runs
    from 0 to 1, the code walks from the first motion to the last) and `<names>_<path>.json` (see `measure_walk`).

    Args:
      workdir: folder of a training run.
      motions: names of two or more training motions, separated by commas.
      out: folder for the files; default: `workdir`/interpolations.
      path: "linear" or "spherical", the line between codes.
      num_steps: columns from a motion to the next, both counted; at least 2.
      num_frames: frames of every video; default: as in training for the grid, twice as many for the morph.
      frame_rate: frames a second; default: as in training.
      size: height of the pictures in pixels; default: as in training.
      camera: of the morph: "fixed" is a camera of the data, which the grid has in any case, "orbit" circles at its
        distance and with its field of view.
      azimuths: "FROM,TO" in degrees of the orbit; default: once around, from the data's camera.
      elevation: degrees of the orbit above the horizon; default: that of the data's camera.
      checkpoint: "last", or "best" as training batches went.
      overwrite: replaces files of the same names; else new ones get a number.

    Example:
      python launch.py --app=interpolate --workdir=runs/dimo --motions=walk,star_jump,squat --path=spherical

    Raises:
      UserError: bad flags, an unknown motion, or no finished run there; nothing is written.
    """
    check_flags("interpolate", locals())
    target = results_folder(workdir, "interpolations", out=out)
    model = restore(Path(workdir), checkpoint=checkpoint)
    chosen = model.find_motions(motions, flag="motions")
    if len(chosen) < 2:
        raise UserError(f"--motions: found {motions!r}, expected two names or more, separated by commas")
    names = tuple(str(model.facts["names"][index]) for index in chosen)
    codes = jnp.stack([model.player.latent(index) for index in chosen])
    morph_frames = num_frames or 2 * model.num_frames
    still = model.camera(size)
    path_of_camera = make_camera_path(still, camera, morph_frames, azimuths=azimuths, elevation=elevation)
    shares = np.linspace(0, 1, (num_steps - 1) * (len(names) - 1) + 1)
    stations = latents.walk(codes, jnp.asarray(shares), interpolate=LINES[path])
    name = f"{join_names(names)}_{path}"
    files = [(name, ending) for ending in ("_grid.mp4", "_morph.mp4", ".json")]
    stem = target / f"{name}{free_number(target, files, overwrite=overwrite)}"
    rate = frame_rate or model.frame_rate
    write_latents(
        model.player,
        stations,
        frame_times(num_frames or model.num_frames),
        still,
        stem.with_name(f"{stem.name}_grid.mp4"),
        labels=label_shares(names, num_steps),
        rate=rate,
    )
    morph = play_morph(model.player, codes, morph_frames, line=LINES[path])
    video = to_uint8(model.player.film(morph, path_of_camera))
    write_video(upscale(video, min_height=384), stem.with_name(f"{stem.name}_morph.mp4"), frame_rate=rate)
    measured = measure_walk(model, stations, ends=range(0, len(stations), num_steps - 1), morph=morph)
    report = dict(motions=names, path=path, shares=shares.tolist(), **measured)
    write_json(report, stem.with_name(f"{stem.name}.json"))
    logging.info("wrote %s_grid.mp4, %s_morph.mp4 and %s.json", stem.name, stem.name, stem.name)
    verdict = "kept" if measured["distance_change_ratio"] <= LIMIT else "not kept"
    print(
        f"neighbour distances between the motions change by {measured['distance_change_ratio']:.2f} times what they do "
        f"in training motions (shape {verdict}: limit {LIMIT}); roughness in time {measured['roughness_ratio']:.2f} "
        f"times theirs; largest step {measured['evenness']:.2f} times the mean step"
    )
    print(stem.parent)


def label_shares(names: tuple[str, ...], num_steps: int) -> list[str]:
    """Labels of the columns: names where the path passes a motion, shares of the leg between."""
    labels = [names[0]]
    for name in names[1:]:
        labels += [f"{index / (num_steps - 1):.0%}" for index in range(1, num_steps - 1)] + [name]
    return labels


def play_morph(player: Player, codes: Array, num_frames: int, *, line: Callable[..., Array]) -> Gaussians:
    """One clip of Gaussians, leading axis T, in which the code walks through `codes` [C,D] while time runs."""
    shares = jnp.linspace(0, 1, num_frames)
    return player.walk(latents.walk(codes, shares, interpolate=line), frame_times(num_frames)).gaussians


def measure_walk(model: Restored, codes: Array, *, ends: Any, morph: Gaussians) -> dict[str, Any]:
    """Whether bodies keep their shape and move smoothly on a path between motions.

    The surface stands for the centres of the Gaussians in use; up to `NUM_ANCHORS` of them are watched with their six
    nearest neighbours. Their distances are compared with those at time 0, the pose that the motions have in common (its
    mean over the training motions). Frames are those of training.

    Args:
      model: the restored run.
      codes: [S,D] at equal shares of the path.
      ends: indices of those that are training motions.
      morph: Gaussians of a clip whose code walks, leading axis T.

    Returns:
      `training`, `stations` and `morph`: distance_change (mean over frames) and roughness, of each training motion by
      name, of each code, of the morph; `distance_change_ratio`: the worst code between motions over the mean of all
      training motions; `distance_change_ratio_of_ends`: over the mean of the path's own; `roughness_ratio`, likewise
      over all training motions; `evenness`: see `metrics.shape.path_evenness`.
    """
    player = model.player
    alive = np.flatnonzero(player.alive)
    times = frame_times(model.num_frames)
    anchors = jnp.asarray(np.arange(0, len(alive), max(1, len(alive) // NUM_ANCHORS)), jnp.int32)

    def tracks_of(gaussians: Gaussians) -> Array:
        return gaussians.means[:, alive]

    def play(z: Array) -> Array:
        return tracks_of(player.play(z, times).gaussians)

    known = {str(model.facts["names"][motion]): player.latent(int(motion)) for motion in model.trained_motions}
    rest = jnp.mean(jnp.stack([play(z)[0] for z in known.values()]), axis=0)
    edges = shape.surface_edges(rest, anchors)

    def measure(tracks: Array) -> dict[str, float]:
        change = shape.neighbor_distance_change(tracks, rest, anchors, edges)
        return dict(distance_change=float(jnp.mean(change)), roughness=float(shape.roughness(tracks)))

    bar = track(known.items(), "measuring", unit="motion")
    training = {name: measure(play(z)) for name, z in bar}
    tracks = [play(z) for z in codes]
    stations = [measure(each) for each in tracks]
    passed = set(ends)
    between = [station for index, station in enumerate(stations) if index not in passed] or stations

    def ratio(name: str, to: Any) -> float:
        return max(each[name] for each in between) / max(float(np.mean([each[name] for each in to])), 1e-12)

    return dict(
        distance_change_ratio=ratio("distance_change", training.values()),
        distance_change_ratio_of_ends=ratio("distance_change", [stations[index] for index in passed]),
        roughness_ratio=ratio("roughness", training.values()),
        evenness=float(shape.path_evenness(jnp.stack([each[:, anchors] for each in tracks]))),
        stations=stations,
        morph=measure(tracks_of(morph)),
        training=training,
    )
