"""A run's motions applied to the mesh that its dataset was imported from: `--app=export --format=mesh`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.native import read_truth
from dimo_jax.data.formats.native_schema import read_description
from dimo_jax.data.formats.rigged.alignment import Aligned, align_source
from dimo_jax.geometry import rotations
from dimo_jax.geometry.world import World
from dimo_jax.io.gltf.mesh import pose_binding, to_source_units, write_mesh_glb
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.io.motion import Motion
from dimo_jax.rigs.posing import pose_scene
from dimo_jax.rigs.scene import Scene
from dimo_jax.runs.motions import MotionRecorder
from dimo_jax.runs.restore import Restored, world_of
from dimo_jax.skinning.binding import Binding, fit_binding
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training.config_file import load_config


@dataclass(frozen=True, eq=False)
class BoundMesh:
    """A source model bound to the key points of a run."""

    scene: Scene
    aligned: Aligned
    trained: list[Motion]  # the training motions, in the source's units
    binding: Binding
    object_name: str
    influences: int

    def describe(self) -> str:
        """One line: how far the mesh is from its true motion, over the training motions."""
        errors = measure_binding(self.scene, self.aligned.vertices, self.trained, self.binding)
        return (
            f"mesh: {errors.shape[2]} vertices follow {len(self.binding.binds)} key points; over {len(errors)} "
            f"training motions they are {errors.mean():.1%} of the height from their true places on average, 95 of "
            f"100 within {np.quantile(errors, 0.95):.1%}"
        )

    def write(self, clips: Sequence[Motion], target: Path, *, number: str = "") -> Path:
        """Writes the mesh, all `clips` its animations: `<name><number>_mesh.glb`, see `name_mesh`."""
        return self.write_as(clips, target / f"{name_mesh(clips, self.object_name)}{number}_mesh.glb")

    def write_as(self, clips: Sequence[Motion], path: Path) -> Path:
        """As `write`, under a name that is given."""
        placed = [_place(clip, self.aligned) for clip in clips]
        return write_mesh_glb(self.scene, self.binding, placed, path, num_influences=self.influences)


def find_dataset(workdir: str | Path) -> str:
    """The dataset folder that a run was trained on, or nothing."""
    return str(load_config(Path(workdir)).data.get("path") or "")


def name_mesh(clips: Sequence[Motion], object_name: str) -> str:
    """What a mesh is called after: its motion or, where there are several, the object."""
    return clips[0].name if len(clips) == 1 else object_name


def prepare(
    model: Restored,
    recorder: MotionRecorder,
    *,
    source: str,
    hide: str | Sequence[str],
    dataset: str,
    repair: bool = False,
    influences: int = 4,
) -> BoundMesh:
    """Binds the source's mesh by what its vertices do in the run's training motions.

    Args:
      model: the restored run.
      recorder: of that run.
      source: the model file that the dataset was imported from.
      hide: names or patterns of nodes left out at the import, see `load_scene`.
      repair: see `load_scene`; as at the import.
      dataset: folder of the run's dataset, of which the true joints are read.
      influences: key points that move a vertex at most.

    Raises:
      UserError: the source or the dataset cannot be read, or do not belong together.
    """
    scene = load_scene(source, hide=hide, repair=repair)
    names = [str(model.facts["names"][index]) for index in model.trained_motions]
    joints = read_joints(dataset, names, model.num_frames)
    step = step_into(Path(dataset), model)
    aligned = align_source(scene, {name: step.apply(each) for name, each in joints.items()})
    trained = place_trained(model, recorder, aligned)
    binding = bind(scene, aligned.vertices, trained, influences=influences)
    return BoundMesh(scene, aligned, trained, binding, str(model.facts["object_name"]), influences)


def step_into(dataset: Path, model: Restored) -> World:
    """What a run's loading did to the coordinates of its dataset folder."""
    world = world_of(model.facts)
    if world is None:
        return World()
    own = read_description(dataset).world or World(of=world.of)
    return World() if own.same_place(world) else own.inverse().then(world)


def place_trained(model: Restored, recorder: MotionRecorder, aligned: Aligned) -> list[Motion]:
    """All motions that a run was trained on, at the times of training, key points in the source's units."""
    times, names = frame_times(model.num_frames), model.facts["names"]
    return [
        _place(recorder.record(names[i], model.player.latent(int(i)), times, frame_rate=model.frame_rate), aligned)
        for i in model.trained_motions
    ]


def read_joints(dataset: str, names: Sequence[str], num_frames: int) -> dict[str, np.ndarray]:
    """True joints [T,J,3] of motions of a dataset folder.

    Raises:
      UserError: no such folder, or a motion whose joints are not known.
    """
    if not dataset or not Path(dataset).is_dir():
        raise UserError(
            f"--dataset: found {dataset or 'none'!r}, expected the folder that the run was trained on, as "
            "--app=import_data wrote it: its true joints tell where the mesh stands"
        )
    joints = {}
    for name in names:
        path = Path(dataset) / name / "truth.npz"
        truth = read_truth(path, num_frames) if path.is_file() else {}
        if "joints" not in truth:
            raise UserError(f"{path}: no true joints of {name!r}, expected a dataset imported from an animated model")
        joints[name] = truth["joints"]
    return joints


def bind(scene: Scene, vertices: np.ndarray, trained: Sequence[Motion], *, influences: int) -> Binding:
    """Binds a scene by its true vertices [M,T,P,3] in training motions, which are in its units."""
    tracks = np.concatenate([motion.tracks for motion in trained]).astype(np.float64)
    turns = np.concatenate([rotations.to_matrix(motion.turns.astype(np.float64)) for motion in trained])
    truth = vertices.reshape(-1, *vertices.shape[2:])
    return fit_binding(pose_scene(scene, None, 0.0), truth, tracks, turns, num_influences=influences)


def measure_binding(scene: Scene, vertices: np.ndarray, motions: Sequence[Motion], binding: Binding) -> np.ndarray:
    """Distances [M,T,P] of a bound mesh from true vertices [M,T,P,3], as shares of the model's height at rest."""
    rest = pose_scene(scene, None, 0.0)
    height = float(np.ptp(rest[:, 1]))
    posed = (pose_binding(binding, rest, motion) for motion in motions)
    return np.stack([np.linalg.norm(each - true, axis=-1) for each, true in zip(posed, vertices)]) / max(height, 1e-12)


def _place(motion: Motion, aligned: Aligned) -> Motion:
    return to_source_units(motion, aligned.framing.scale, aligned.framing.center)
