"""What motions drawn from a trained run are worth, for several priors: plausible, covering, new, different, whole.

python -m bench.samples --workdir=runs/dimo --num_samples=48

`precision` and `recall` are of key point trajectories among the training motions', `novelty` the distance to the
nearest training motion, `diversity` that between two drawn ones, `amplitude` how far points leave the first pose
(shares of the object's size; the row `training` has those of the training motions). `torn` is the share of drawn
motions in which distances between neighbouring points of the surface change more than in any training motion (95 % of
frames), `touching` that in which more of the surface comes within 2 % of the size of points that lie 20 % away at rest
(limbs that enter each other, or the body), `sunk` the share that goes further below the lowest training motion than 2 %
of the size.

`held out` is the recall of the motions that the run's data keep from training, where they know the surface: true points
of it, those nearest to the key points in the first frame of the first training motion, stand for the key points. In the
row `training` it is the share of these motions that training motions cover by themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset, motions_in
from dimo_jax.metrics import shape
from dimo_jax.metrics.motion import trajectory_distances, trajectory_diversity
from dimo_jax.metrics.samples import coverage, precision_recall
from dimo_jax.runs.codes import draw_codes
from dimo_jax.runs.restore import Restored, load_data, restore
from dimo_jax.systems.dimo.stages import frame_times

SPREADS = (0.15, 0.3, 0.5, 0.7, 1.0)
NUM_POINTS = 1_000  # of the surface
UP = 1  # axis of the model's world
SINK = 0.02  # of the object's size
APART, NEAR = 0.2, 0.02  # likewise


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="folder of a trained run")
    parser.add_argument("--num_samples", type=int, default=48, help="motions drawn from each prior, at least 4")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--out", default="", help="JSON file for the table; empty: none")
    options = parser.parse_args()
    if options.num_samples < 4:
        parser.error(f"--num_samples: found {options.num_samples}, expected at least 4")
    try:
        model = restore(options.workdir)
        data = load_data(model.config, model.facts)
    except UserError as error:
        sys.exit(f"error: {error}")
    rows = measure(model, find_held_out(model, data), num_samples=options.num_samples, seed=options.seed)
    names = list(rows["data, spread 0.5"])
    print("| prior | " + " | ".join(names) + " |\n|---" + "|---" * len(names) + "|")
    for prior, row in rows.items():
        print(
            f"| {prior} | " + " | ".join("" if row.get(name) is None else f"{row[name]:.3f}" for name in names) + " |"
        )
    if options.out:
        Path(options.out).write_text(json.dumps(rows, indent=1))


def find_held_out(model: Restored, data: Dataset) -> np.ndarray | None:
    """Where the surface at the key points goes in motions that training has not seen, [M,T,K,3]; None: not known."""
    held, first = motions_in(data, "test"), int(model.trained_motions[0])
    if data.surface is None or not len(held):
        return None
    times = frame_times(model.num_frames)
    key_points = np.asarray(model.player.trace(model.player.params.latents.mu[first][None], times))[0, 0]
    chosen = cKDTree(data.surface[first, 0]).query(key_points)[1]
    return np.asarray(data.surface[held][:, :, chosen])


def measure(
    model: Restored, held_out: np.ndarray | None = None, *, num_samples: int, seed: int
) -> dict[str, dict[str, float]]:
    """A row of figures for each prior, and one for the training motions; `held_out` as `find_held_out` has it."""
    player, times = model.player, frame_times(model.num_frames)
    alive = np.flatnonzero(player.alive)
    points = np.sort(np.random.default_rng(0).choice(alive, min(NUM_POINTS, len(alive)), replace=False))
    rest = jnp.asarray(player.params.gaussians.means)[points]
    anchors = jnp.arange(len(points))
    edges = shape.surface_edges(rest, anchors)
    size = float(np.ptp(np.asarray(player.params.key_points.positions), axis=0).max())

    def look(codes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Key points [S,T,K,3], how far the shape changes [S], how much touches [S], and the lowest height [S]."""
        change, touch, lowest = [], [], []
        for code in codes:
            tracks = player.play(code, times).gaussians.means[:, points]
            changes = shape.neighbor_distance_change(tracks, rest, anchors, edges)
            change.append(float(jnp.quantile(changes, 0.95)))
            touches = shape.contacts(tracks, rest, apart=APART * size, near=NEAR * size)
            touch.append(float(jnp.quantile(touches, 0.95)))
            lowest.append(float(tracks[..., UP].min()))
        key_points = np.asarray(player.trace(jnp.asarray(codes), times))
        return key_points, np.asarray(change), np.asarray(touch), np.asarray(lowest)

    known, most, closest, floor = look(player.params.latents.mu[model.trained_motions])
    among = trajectory_distances(known, known)

    def describe(tracks: np.ndarray) -> dict[str, float]:
        moved = float(np.linalg.norm(tracks - tracks[:, :1], axis=-1).mean())
        found = dict(diversity=trajectory_diversity(tracks) / size, amplitude=moved / size)
        if held_out is not None:
            found["held out"] = coverage(trajectory_distances(held_out, tracks), trajectory_distances(tracks, tracks))
        return found

    rows: dict[str, dict[str, float]] = {"training": describe(known)}
    draws: dict[str, dict[str, Any]] = {f"data, spread {each:g}": dict(spread=each) for each in SPREADS}
    for name, how in (draws | {"standard": dict(prior="standard")}).items():
        drawn, change, touch, lowest = look(draw_codes(model, seed=seed, num_samples=num_samples, **how))
        across = trajectory_distances(drawn, known)
        precision, recall = precision_recall(across, trajectory_distances(drawn, drawn), among)
        rows[name] = dict(
            precision=precision,
            recall=recall,
            novelty=float(across.min(axis=1).mean()) / size,
            **describe(drawn),
            torn=float((change > most.max()).mean()),
            touching=float((touch > closest.max()).mean()),
            sunk=float((lowest < floor.min() - SINK * size).mean()),
        )
    return rows


if __name__ == "__main__":
    main()
