"""How near a source mesh comes to its true motion when key points move it, by how it is bound.

python -m bench.bind --workdir=runs/knight --source=../shared/data/knight.glb --hide=NODES

Mean distance and 95th percentile, in percent of the height at rest: over the motions that the binding was fitted to,
and over every fourth motion, which it was not (the model was trained on all). "one frame" takes a frame's true vertices
as they stand, with the weights of the Gaussians around them: the best such frame of those tried, judged by all motions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dimo_jax.data.formats.rigged.alignment import align_source
from dimo_jax.geometry import rotations
from dimo_jax.io.gltf.mesh import pose_binding
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.io.motion import Motion
from dimo_jax.rigs.posing import pose_scene
from dimo_jax.runs.motions import MotionRecorder
from dimo_jax.runs.restore import restore
from dimo_jax.runs.retarget import bind, measure_binding, place_trained, read_joints
from dimo_jax.skinning.binding import Binding
from dimo_jax.training.config_file import load_config

THINNING = 16  # every so many vertices stand for all where many frames are tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--hide", default="")
    parser.add_argument("--influences", type=int, nargs="*", default=(8, 4), help="of the fits; none skips them")
    options = parser.parse_args()
    model = restore(Path(options.workdir))
    scene = load_scene(options.source, hide=options.hide)
    names = [str(model.facts["names"][index]) for index in model.trained_motions]
    dataset = load_config(Path(options.workdir)).data.path
    aligned = align_source(scene, read_joints(dataset, names, model.num_frames))
    trained = place_trained(model, MotionRecorder(model), aligned)
    seen = [index for index in range(len(trained)) if index % 4 != 1]
    unseen = [index for index in range(len(trained)) if index % 4 == 1]
    for influences in options.influences:
        bound = bind(scene, aligned.vertices[seen], [trained[i] for i in seen], influences=influences)
        for label, which in (("fitted", seen), ("not fitted", unseen)):
            errors = measure_binding(scene, aligned.vertices[which], [trained[i] for i in which], bound)
            report(f"least squares, {influences} influences, {label}", errors)
    tried, height = [], np.ptp(pose_scene(scene, None, 0.0)[:, 1])
    for motion, frame in ((m, f) for m in seen[::2] for f in (0, model.num_frames // 2, model.num_frames - 1)):
        means, some = aligned.to_source(trained[motion].means), aligned.vertices[:, :, ::THINNING]
        errors = measure_one_frame(means, some, trained, motion, frame)
        tried.append(errors / height)
    tried.sort(key=lambda errors: float(errors.mean()))
    for label, which in (("same motions", seen), ("others", unseen)):
        report(f"one frame, best of {len(tried)}, {label}", tried[0][which])
    report(f"one frame, median of {len(tried)}, all motions", tried[len(tried) // 2])


def measure_one_frame(
    means: np.ndarray, vertices: np.ndarray, trained: list[Motion], index: int, frame: int
) -> np.ndarray:
    """Distances [M,T,P] where the mesh is bound in one frame; means [T,N,3] are the Gaussians' of that motion."""
    motion, rest = trained[index], vertices[index, frame].astype(np.float64)
    alive = np.flatnonzero(np.isfinite(motion.canonical.logit_opacities))
    weights = np.zeros((len(rest), len(motion.rest)))
    for rows in np.array_split(np.arange(len(rest)), 16):
        distances = np.linalg.norm(rest[rows, None] - means[frame, alive], axis=-1)
        near = np.argsort(distances, axis=1)[:, :4]
        share = 1 / np.maximum(np.take_along_axis(distances, near, axis=1), 1e-6)
        for column in range(4):
            gaussian = alive[near[:, column]]
            each = share[:, column, None] * motion.weights[gaussian]
            np.add.at(weights, (rows[:, None], motion.neighbors[gaussian]), each)
    order = np.argsort(-weights, axis=1)[:, :8]
    kept = np.take_along_axis(weights, order, axis=1)
    turns = rotations.to_matrix(motion.turns[frame].astype(np.float64)).swapaxes(-1, -2)
    places = -np.einsum("kab,kb->ka", turns, motion.tracks[frame])
    bound = Binding(np.concatenate([turns, places[..., None]], axis=-1), order, kept / kept.sum(axis=1, keepdims=True))
    posed = (pose_binding(bound, rest, each) for each in trained)
    return np.stack([np.linalg.norm(each - true, axis=-1) for each, true in zip(posed, vertices)])


def report(label: str, errors: np.ndarray) -> None:
    print(f"{label:45s} mean {100 * errors.mean():5.2f} %   95th {100 * np.quantile(errors, 0.95):5.2f} %", flush=True)


if __name__ == "__main__":
    main()
