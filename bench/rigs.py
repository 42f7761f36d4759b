"""How well rigs survive: poses computed, points fitted, and clips sent through pose-map videos and back.

    python -m bench.rigs --data=FOLDER --out=FILE.json

For every .glb and .gltf file of a folder, in percent of the diagonal of the model's box at rest:

- `fk_error`: largest distance between vertices posed in JAX (float32) and by NumPy in float64, over all clips;
- `ik_floor`, `ik_worst`: mean vertex error where inverse kinematics is given the true heads and leaf tips, over
  `--clips` clips, and of the worst of these;
- `round_trip_joint`, `round_trip_vertex`: median joint and mean vertex error of a clip that was drawn as four pose-map
  videos (480 px, crf 23, views turned off the axes) and read back from them alone;
- `ik_seconds`, `ik_cpu_seconds`: of inverse kinematics of 60 frames of the longest clip, after compiling, the median of
  five calls, by the clock and of all processor cores together;
- `seconds`: of reading the videos back, from files to poses, compiling included.

A file without clips is moved by a made-up one. Rigs that `--out` has from an earlier call with the same options are not
measured again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.cameras.surround import surround
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.pose_folder import open_pose_folder, read_pose_clip, write_pose_folder
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.forward import Pose
from dimo_jax.rigs.inverse import solve_pose
from dimo_jax.rigs.markers import place_markers
from dimo_jax.rigs.pose_markers import place_pose_markers
from dimo_jax.rigs.posing import pose_nodes, pose_vertices
from dimo_jax.rigs.recovery import recover_markers
from dimo_jax.rigs.sampling import sample_clip
from dimo_jax.rigs.skeleton import LINEAR, Channel, Clip
from dimo_jax.rigs.skinned import make_surface, pose_surface
from dimo_jax.runs.animation import Model, animate_markers, make_model, place_joints
from dimo_jax.runtime.files import read_json, write_json

SIZE, TIMED_FRAMES = 480, 60
COLUMNS = (
    *("joints", "clips", "fk_error", "ik_floor", "ik_worst", "round_trip_joint", "round_trip_vertex"),
    *("ik_seconds", "ik_cpu_seconds", "seconds"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, nargs="+", help="folders with rigs, or files")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--frames", type=int, default=24, help="each clip is sampled at")
    parser.add_argument("--clips", type=int, default=4, help="of each rig that are fitted, evenly chosen; 0: all")
    options = parser.parse_args()
    settings = {"frames": options.frames, "clips": options.clips}
    before = read_json(Path(options.out)) or {}
    rigs: dict[str, Any] = before.get("rigs", {}) if before.items() >= settings.items() else {}
    print(f"{'rig':28}" + "".join(f"{name:>18}" for name in COLUMNS), flush=True)
    for path in find_rigs(options.data):
        if path.name not in rigs:
            try:
                rigs[path.name] = measure(path, options.frames, options.clips)
            except UserError as error:
                rigs[path.name] = {"error": str(error)}
        row = rigs[path.name]
        cells = (f"{row[name]:18.4g}" for name in COLUMNS) if "error" not in row else (row["error"],)
        print(f"{path.name:28}" + "".join(cells), flush=True)
        write_json(settings | {"rigs": rigs}, Path(options.out))


def find_rigs(places: list[str]) -> list[Path]:
    """The models of some folders, by name; files stand for themselves."""
    found = []
    for place in map(Path, places):
        if not place.exists():
            raise SystemExit(f"--data={place}: no such folder, expected one with .glb or .gltf files")
        found += sorted(p for p in place.iterdir() if p.suffix in (".glb", ".gltf")) if place.is_dir() else [place]
    return found


def measure(path: Path, frames: int, most: int) -> dict[str, Any]:
    """The row of a rig."""
    model = make_model(load_scene(path, animated=False))
    own = [clip for clip in model.scene.clips if not clip.problem]
    clips = own or [make_up(model)]
    chosen = clips if most == 0 else [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, most).astype(int))]
    longest = max(clips, key=lambda clip: clip.end - clip.start)
    floors = [measure_inverse(model, clip, frames) for clip in chosen]
    trip = round_trip(model, longest, frames)
    return {
        "joints": len(model.scene.joints),
        "clips": len(own),
        "markers": len(model.markers.names),
        "fk_error": max(measure_forward(model, clip, frames) for clip in clips),
        "ik_floor": float(np.mean(floors)),
        "ik_worst": max(floors),
        "clip": longest.name,
        **time_inverse(model, longest),
        **trip,
    }


def make_up(model: Model) -> Clip:
    """A clip of two seconds for a rig that has none: every joint that moves vertices sways about an axis of its own."""
    rng = np.random.default_rng(0)
    times = np.linspace(0, 2, 25)
    channels = []
    for node in model.markers.joints.deforming:
        axis = rng.normal(size=3)
        angle = 0.15 * np.sin(np.pi * times * rng.integers(1, 3))[:, None] * axis / np.linalg.norm(axis)
        turn = np.concatenate([np.sin(angle), np.cos(np.linalg.norm(angle, axis=1, keepdims=True))], axis=1)
        turn /= np.linalg.norm(turn, axis=1, keepdims=True)
        channels.append(Channel(node, "rotation", LINEAR, times, _multiply(model.scene.nodes[node].rotation, turn)))
    return Clip("made up", 0.0, 2.0, tuple(channels))


def _multiply(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Products of quaternions xyzw, [4] and [T,4]."""
    a, w = first[:3], first[3]
    b, v = second[:, :3], second[:, 3:]
    return np.concatenate([w * b + v * a + np.cross(a, b), w * v - (b @ a)[:, None]], axis=1)


def _times(clip: Clip, frames: int) -> np.ndarray:
    return np.linspace(clip.start, clip.end, frames)


def _true_vertices(model: Model, clip: Clip, frames: int) -> np.ndarray:
    return pose_vertices(model.scene, pose_nodes(model.scene, clip, _times(clip, frames)), slice(None))


def _distances(model: Model, pose: Pose, clip: Clip, frames: int) -> np.ndarray:
    """Of the vertices of a pose from a clip's, in percent of the diagonal -> [T,P]."""
    found = np.asarray(pose_surface(model.rig, make_surface(model.scene, model.rig), pose), np.float64)
    return 100 * np.linalg.norm(found - _true_vertices(model, clip, frames), axis=-1) / model.markers.diagonal


def measure_forward(model: Model, clip: Clip, frames: int) -> float:
    """Largest vertex error of posing a clip in JAX."""
    return float(_distances(model, sample_clip(model.rig, clip, _times(clip, frames)), clip, frames).max())


def measure_inverse(model: Model, clip: Clip, frames: int) -> float:
    """Mean vertex error of a clip that inverse kinematics recovers from true points."""
    matrices = pose_nodes(model.scene, clip, _times(clip, frames)).matrices
    joints = model.markers.joints
    pose = solve_pose(model.rig, joints, place_markers(joints, matrices)).pose
    return float(_distances(model, pose, clip, frames).mean())


def time_inverse(model: Model, clip: Clip) -> dict[str, float]:
    """Seconds of inverse kinematics of a clip from true points."""
    joints = model.markers.joints
    points = place_markers(joints, pose_nodes(model.scene, clip, _times(clip, TIMED_FRAMES)).matrices)
    solve_pose(model.rig, joints, points)
    taken = []
    for _ in range(5):
        start = time.perf_counter(), time.process_time()
        solve_pose(model.rig, joints, points)
        taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = np.median(taken, axis=0)
    return {"ik_seconds": float(wall), "ik_cpu_seconds": float(cpu)}


def round_trip(model: Model, clip: Clip, frames: int) -> dict[str, float]:
    """Errors of a clip that went through pose-map videos, and the seconds that reading it took."""
    matrices = pose_nodes(model.scene, clip, _times(clip, frames)).matrices
    points = place_pose_markers(model.markers, matrices)
    cameras = surround(points, height=SIZE, width=SIZE)
    with tempfile.TemporaryDirectory() as folder:
        write_pose_folder(folder, points, cameras, model.markers, crf=23)
        start = time.perf_counter()
        opened = open_pose_folder(folder)
        seen = read_pose_clip(opened, *opened.clips[0], model.markers)
        assert seen.frames is not None
        lifted = recover_markers(seen.frames, seen.cameras, model.markers)
        animation = animate_markers(model, clip.name, lifted, seen.frame_rate)
        seconds = time.perf_counter() - start
    joints, diagonal = model.markers.joints, model.markers.diagonal
    off = np.linalg.norm(place_joints(model, animation.pose) - place_markers(joints, matrices), axis=-1)
    lifted_off = np.linalg.norm(lifted.points - points, axis=-1)
    return {
        "round_trip_joint": 100 * float(np.median(off[:, : joints.num_heads])) / diagonal,
        "round_trip_vertex": float(_distances(model, animation.pose, clip, frames).mean()),
        "round_trip_marker": 100 * float(np.median(lifted_off)) / diagonal,
        "confidence": float(lifted.confidence.mean()),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
