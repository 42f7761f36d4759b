"""What motions drawn from a trained run are worth, for several priors: plausible, covering, new, different, whole.

python -m bench.samples --workdir=runs/dimo --num_samples=48

`precision` and `recall` are of key point trajectories among the training motions', `novelty` the distance to the
nearest training motion, `diversity` that between two drawn ones, `amplitude` how far points leave the first pose
(shares of the object's size; the row `training` has those of the training motions). `torn` is the share of drawn
motions in which distances between neighbouring points of the surface change more than in any training motion (95 % of
frames), `sunk` the share that goes further below the lowest training motion than 2 % of the size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from dimo_jax.metrics import shape
from dimo_jax.metrics.motion import trajectory_distances, trajectory_diversity
from dimo_jax.metrics.samples import precision_recall
from dimo_jax.runs.codes import draw_codes
from dimo_jax.runs.restore import Restored, restore
from dimo_jax.systems.dimo.stages import frame_times

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run", required=True)
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 48, "Motions drawn from each prior", lower_bound=4)
SEED = flags.DEFINE_integer("seed", 0, "Of the draws")
OUT = flags.DEFINE_string("out", "", "JSON file for the table; empty: none")
SPREADS = (0.15, 0.3, 0.5, 0.7, 1.0)
NUM_POINTS = 1_000  # of the surface
UP = 1  # axis of the model's world
SINK = 0.02  # of the object's size


def main(_: Any) -> None:
    """Prints the table."""
    rows = measure(restore(WORKDIR.value), num_samples=NUM_SAMPLES.value, seed=SEED.value)
    names = list(rows["data, spread 0.5"])
    print("| prior | " + " | ".join(names) + " |\n|---" + "|---" * len(names) + "|")
    for prior, row in rows.items():
        print(
            f"| {prior} | " + " | ".join("" if row.get(name) is None else f"{row[name]:.3f}" for name in names) + " |"
        )
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(rows, indent=1))


def measure(model: Restored, *, num_samples: int, seed: int) -> dict[str, dict[str, float]]:
    """A row of figures for each prior, and one for the training motions."""
    player, times = model.player, frame_times(model.num_frames)
    alive = np.flatnonzero(player.alive)
    points = np.sort(np.random.default_rng(0).choice(alive, min(NUM_POINTS, len(alive)), replace=False))
    rest = jnp.asarray(player.params.gaussians.means)[points]
    anchors = jnp.arange(len(points))
    edges = shape.surface_edges(rest, anchors)
    size = float(np.ptp(np.asarray(player.params.key_points.positions), axis=0).max())

    def look(codes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Key points [S,T,K,3], how far the shape changes [S], and the lowest height [S]."""
        change, lowest = [], []
        for code in codes:
            tracks = player.play(code, times).gaussians.means[:, points]
            changes = shape.neighbor_distance_change(tracks, rest, anchors, edges)
            change.append(float(jnp.quantile(changes, 0.95)))
            lowest.append(float(tracks[..., UP].min()))
        return np.asarray(player.trace(jnp.asarray(codes), times)), np.asarray(change), np.asarray(lowest)

    known, most, floor = look(player.params.latents.mu[model.trained_motions])
    among = trajectory_distances(known, known)

    def describe(tracks: np.ndarray) -> dict[str, float]:
        moved = float(np.linalg.norm(tracks - tracks[:, :1], axis=-1).mean())
        return dict(diversity=trajectory_diversity(tracks) / size, amplitude=moved / size)

    rows: dict[str, dict[str, float]] = {"training": describe(known)}
    draws: dict[str, dict[str, Any]] = {f"data, spread {each:g}": dict(spread=each) for each in SPREADS}
    for name, how in (draws | {"standard": dict(prior="standard")}).items():
        drawn, change, lowest = look(draw_codes(model, seed=seed, num_samples=num_samples, **how))
        across = trajectory_distances(drawn, known)
        precision, recall = precision_recall(across, trajectory_distances(drawn, drawn), among)
        rows[name] = dict(
            precision=precision,
            recall=recall,
            novelty=float(across.min(axis=1).mean()) / size,
            **describe(drawn),
            torn=float((change > most.max()).mean()),
            sunk=float((lowest < floor.min() - SINK * size).mean()),
        )
    return rows


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main)
