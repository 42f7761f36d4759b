"""Whether a run of the puppet trembles when it is played at more frames than it was trained on, beside the truth.

python -m bench.playback --workdir=runs/dimo --times=10

`wobble` is how far points of the surface leave the cubic spline through their places at the training frames, in percent
of the object's size, as the model has it and as the true points nearest to them in the first frame do. `turns` is the
mean length of the model's second differences over the truth's, and `peak` the same of the frame that has most of it.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from absl import app, flags
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from dimo_jax.core.errors import UserError
from dimo_jax.data.puppet import body
from dimo_jax.data.puppet.catalog import MOTIONS
from dimo_jax.data.puppet.dataset import NUM_SURFACE_POINTS, pose_motions
from dimo_jax.runs.restore import Restored, restore

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run trained on the puppet", required=True)
TIMES = flags.DEFINE_integer("times", 10, "Frames played for each of training", lower_bound=2)
NUM_POINTS = 400


def main(_: Any) -> None:
    """Prints the table."""
    rows = measure(restore(WORKDIR.value), times=TIMES.value)
    print("| motion | wobble, % | of the truth, % | turns | peak |\n|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| `{name}` | {row[0]:.3f} | {row[1]:.3f} | {row[2]:.2f} | {row[3]:.2f} |")
    middle = np.median(list(rows.values()), axis=0)
    print(f"| median | {middle[0]:.3f} | {middle[1]:.3f} | {middle[2]:.2f} | {middle[3]:.2f} |")


def measure(model: Restored, *, times: int) -> dict[str, tuple[float, ...]]:
    """Wobble, that of the truth, turns and peak, by motion.

    Raises:
      UserError: the run's motions are not the puppet's.
    """
    known = {motion.name: motion for motion in MOTIONS}
    names = [str(model.facts["names"][index]) for index in model.trained_motions]
    if missing := sorted(set(names) - set(known)):
        raise UserError(f"--workdir: found the motion {missing[0]!r}, expected a run on the embedded puppet")
    count, player = model.num_frames, model.player
    instants = np.linspace(0.0, 1.0, (count - 1) * times + 1)
    poses = pose_motions(tuple(known[name] for name in names), len(instants))
    truth = body.surface_points(poses, num_points=NUM_SURFACE_POINTS, seed=0)
    alive = np.flatnonzero(player.alive)
    points = np.sort(np.random.default_rng(0).choice(alive, min(NUM_POINTS, len(alive)), replace=False))
    rows = {}
    for name, index, surface in zip(names, model.trained_motions, truth):
        clip = player.play(player.latent(int(index)), instants * (count - 1) / count)
        tracks = model.world.undo(np.asarray(clip.gaussians.means)[:, points])
        matched = surface[:, cKDTree(surface[0]).query(tracks[0])[1]]
        size = float(np.ptp(surface[0], axis=0).max())
        found, true = (np.linalg.norm(np.diff(each, 2, axis=0), axis=-1).mean(axis=1) for each in (tracks, matched))
        wobbles = [100 * _leave_spline(each, times) / size for each in (tracks, matched)]
        rows[name] = (*wobbles, float(found.mean() / true.mean()), float(found.max() / true.max()))
    return rows


def _leave_spline(tracks: np.ndarray, times: int) -> float:
    """Mean distance of tracks [T,P,3] from the spline through every `times`-th of their frames."""
    frames = np.arange(len(tracks))
    spline = CubicSpline(frames[::times], tracks[::times], axis=0)
    return float(np.linalg.norm(tracks - spline(frames), axis=-1).mean())


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main)
