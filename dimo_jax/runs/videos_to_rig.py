"""Motions of a DIMO run on the skeleton of the model whose videos it saw, by inverse kinematics to its key points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.alignment import Aligned, align_source
from dimo_jax.data.formats.rigged.plan import name_motions
from dimo_jax.geometry import rotations
from dimo_jax.io.gltf.mesh import to_source_units
from dimo_jax.io.motion import Motion
from dimo_jax.rigs.bodies import make_bodies
from dimo_jax.rigs.following import Following, fit_following
from dimo_jax.rigs.forward import Pose
from dimo_jax.rigs.inverse import solve_pose
from dimo_jax.rigs.markers import place_markers
from dimo_jax.rigs.posing import pose_nodes, pose_scene
from dimo_jax.rigs.skinned import make_surface, pose_surface
from dimo_jax.runs.animation import Animation, Model, finish
from dimo_jax.runs.choice import Choice
from dimo_jax.runs.motions import MotionRecorder, choose_codes
from dimo_jax.runs.restore import Restored
from dimo_jax.runs.retarget import place_trained, read_joints, step_into
from dimo_jax.systems.dimo.stages import frame_times


@dataclass(frozen=True, eq=False)
class Rigged:
    """A run of DIMO and the rig that its motions move: four points of each joint follow the key points."""

    run: Restored
    model: Model
    aligned: Aligned
    nodes: tuple[int, ...]  # [M] of the points that follow
    offsets: np.ndarray  # [M,3] in their node's frame
    following: Following
    trained: list[Motion]  # in the source's units
    targets: list[np.ndarray]  # [T,M,3] of each, where the points are in truth
    recorder: MotionRecorder

    def solve(self, motion: Motion, following: Following | None = None) -> tuple[Pose, np.ndarray]:
        """The pose of the rig, leading axis T, in a motion in its units, and how far its points are off [T,M]."""
        targets = (following or self.following).place(motion.tracks.astype(np.float64), _matrices(motion))
        how: Any = dict(nodes=self.nodes, offsets=self.offsets, stretch=0)
        solution = solve_pose(self.model.rig, self.model.markers.joints, targets, 1.0, **how)
        return solution.pose, solution.misses

    def measure(self, *, apart: bool = False) -> np.ndarray:
        """Distances [M] of vertices from their true places in the training motions, as shares of the height.

        `apart`: with points that learnt to follow from the other motions alone.
        """
        surface = make_surface(self.model.scene, self.model.rig)
        height = max(float(np.ptp(pose_scene(self.model.scene, None, 0.0)[:, 1])), 1e-12)
        errors = []
        for index, (motion, true) in enumerate(zip(self.trained, self.aligned.vertices)):
            following = self._learn([i for i in range(len(self.trained)) if i != index]) if apart else None
            found = np.asarray(pose_surface(self.model.rig, surface, self.solve(motion, following)[0]))
            errors.append(float(np.linalg.norm(found - true, axis=-1).mean()) / height)
        return np.array(errors)

    def _learn(self, motions: list[int]) -> Following:
        return _learn([self.trained[i] for i in motions], [self.targets[i] for i in motions], self.model)


def _learn(trained: list[Motion], targets: list[np.ndarray], model: Model) -> Following:
    """How points follow the key points, from motions in the source's units and where the points are in them."""
    tracks = np.concatenate([motion.tracks for motion in trained])
    turns = np.concatenate([_matrices(motion) for motion in trained])
    return fit_following(tracks, turns, np.concatenate(targets), size=model.markers.diagonal)


def _matrices(motion: Motion) -> np.ndarray:
    return rotations.to_matrix(motion.turns.astype(np.float64))


def rig_run(run: Restored, model: Model, dataset: str) -> Rigged:
    """Learns from a run's training motions how the rig's joints follow its key points.

    Args:
      run: of DIMO on the rig's videos.
      model: the rig, with the nodes hidden as at the import.
      dataset: folder of the run's data, of which the true joints are read.

    Raises:
      UserError: the dataset cannot be read, or the model is not the one that it was imported from.
    """
    scene, recorder = model.scene, MotionRecorder(run)
    names = [str(run.facts["names"][index]) for index in run.trained_motions]
    joints = read_joints(dataset, names, run.num_frames)
    step = step_into(Path(dataset), run)
    aligned = align_source(scene, {name: step.apply(each) for name, each in joints.items()})
    if aligned.timing.root_motion != "keep":
        raise UserError(f"--workdir: {dataset} was imported with --root_motion=remove, expected clips as they are")
    trained = place_trained(run, recorder, aligned)
    nodes, offsets = _choose_points(model)
    clips = dict(zip(name_motions(scene.clips), scene.clips))
    true = [pose_nodes(scene, clips[name], aligned.timing.times(clips[name])).matrices for name in names]
    targets = [place_markers(model.markers.joints, matrices, nodes, offsets) for matrices in true]
    following = _learn(trained, targets, model)
    return Rigged(run, model, aligned, nodes, offsets, following, trained, targets, recorder)


def _choose_points(model: Model) -> tuple[tuple[int, ...], np.ndarray]:
    """Four points of each joint: the middle of what hangs on it, and one along each axis of its spread."""
    rest = pose_nodes(model.scene, None, np.zeros(1)).matrices[0]
    bodies = make_bodies(model.scene, model.markers.joints, rest, size=model.markers.diagonal)
    frames = np.asarray(bodies.frames, np.float64)
    points = np.concatenate([frames[..., 3:], frames[..., 3:] + frames[..., :3]], axis=-1)
    return tuple(int(node) for node in np.repeat(bodies.nodes, 4)), np.swapaxes(points, 1, 2).reshape(-1, 3)


def play_rigged(rigged: Rigged, workdir: str, choice: Choice, *, duration: float, fps: float) -> list[Animation]:
    """The chosen motions of a run on its rig.

    Args:
      rigged: see `rig_run`.
      workdir: of the run.
      choice: of motions.
      duration: in seconds; 0: as in training.
      fps: frames a second; 0: as in training.

    Raises:
      UserError: see `choose_codes`.
    """
    run, framing = rigged.run, rigged.aligned.framing
    rate = fps or run.frame_rate
    count = max(round((duration or run.num_frames / run.frame_rate) * rate), 1)
    found = []
    for name, code in choose_codes(run, workdir, choice, count):
        motion = rigged.recorder.record(name, code, frame_times(count), frame_rate=rate)
        pose, misses = rigged.solve(to_source_units(motion, framing.scale, framing.center))
        figures = {"fit_error": 100 * float(np.median(misses)) / rigged.model.markers.diagonal}
        found.append(finish(rigged.model, name, pose, rate, figures))
    return found
