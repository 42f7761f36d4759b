"""New clips for a rig: poses of it at times, and figures that say how far to believe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dimo_jax.rigs.forward import Pose, Rig, make_rig, place_frames
from dimo_jax.rigs.inverse import solve_pose
from dimo_jax.rigs.lifting import Lifted
from dimo_jax.rigs.markers import place_markers
from dimo_jax.rigs.pose_markers import PoseMarkers, make_markers
from dimo_jax.rigs.posing import pose_nodes, pose_scene
from dimo_jax.rigs.scene import Scene

UNSURE = 0.5  # of confidence: fewer than two clean views
OFTEN = 0.1  # share of frames from which an unsure joint is named
AGREEMENT = 0.6  # of sightings: two of four views always meet somewhere
_MOST_SAMPLED = 300  # frames of each of the file's own clips


@dataclass(frozen=True)
class Model:
    """A rigged model that gets new clips."""

    scene: Scene
    rig: Rig
    markers: PoseMarkers


@dataclass(frozen=True)
class Animation:
    """A new clip: what its source of motion gives, whichever that is."""

    name: str
    seconds: np.ndarray  # [T] from 0
    pose: Pose  # leading axis T
    figures: dict[str, Any]  # a row of the report


def make_model(scene: Scene) -> Model:
    """The rig and the markers of a model.

    Raises:
      UserError: no skin, or no joint that carries weight.
    """
    return Model(scene, make_rig(scene), make_markers(scene))


def measure_height(model: Model) -> float:
    """Extent of a model at rest along +Y, in its units."""
    return max(float(np.ptp(pose_scene(model.scene, None, 0.0)[:, 1])), 1e-12)


def place_joints(model: Model, pose: Pose) -> np.ndarray:
    """World positions [T,M,3] of the points of a model's joints in a pose."""
    return place_markers(model.markers.joints, place_frames(model.rig, pose))


def animate_markers(model: Model, name: str, lifted: Lifted, frame_rate: float, *, smooth: float = 0.0) -> Animation:
    """A clip in which a model's markers are where they were lifted to.

    Args:
      model: the rig.
      name: of the clip.
      lifted: its markers in space, in its own world.
      frame_rate: frames a second.
      smooth: of `solve_pose`.
    """
    markers = model.markers
    shown = markers.marker_of >= 0
    targets = np.where(shown[:, None], lifted.points[:, markers.marker_of], np.nan)
    confidence = np.where(shown, lifted.confidence[:, markers.marker_of], 0.0)
    solution = solve_pose(model.rig, markers.joints, targets, confidence, smooth=smooth)
    sure = confidence >= UNSURE
    figures: dict[str, Any] = {
        "reprojection_px": _median(lifted.errors),
        "fit_error": 100 * _median(np.where(sure, solution.misses, np.nan)) / markers.diagonal,
        "low_confidence": name_unsure(markers, lifted),
    }
    return finish(model, name, solution.pose, frame_rate, figures)


def finish(model: Model, name: str, pose: Pose, frame_rate: float, figures: dict[str, Any]) -> Animation:
    """A clip with the figures that every source's clips have.

    Args:
      model: the rig.
      name: of the clip.
      pose: leading axis T.
      frame_rate: frames a second.
      figures: of the source: what the clip's row of the report begins with.
    """
    seconds = np.arange(len(pose.translations)) / frame_rate
    joints = place_joints(model, pose)
    row: dict[str, Any] = {"clip": name, "frames": len(seconds), "frame_rate": frame_rate}
    row |= figures | {
        "bone_drift": measure_drift(model, joints),
        "jerk": measure_jerk(joints, frame_rate, model.markers.diagonal),
    }
    return Animation(name, seconds, pose, row)


def name_unsure(markers: PoseMarkers, lifted: Lifted) -> dict[str, float]:
    """Markers that in many frames fewer than two views see well -> share of these frames."""
    shares = (lifted.confidence < UNSURE).mean(axis=0)
    return {name: round(float(share), 3) for name, share in zip(markers.names, shares) if share >= OFTEN}


def measure_drift(model: Model, joints: np.ndarray) -> float:
    """Mean change of bones' lengths against rest, in percent of their length; bones of next to no length are left out.

    Args:
      model: the rig.
      joints: [T,M,3] of `place_joints`.
    """
    places, lines = find_bones(model)
    rest = place_markers(model.markers.joints, pose_nodes(model.scene, None, np.zeros(1)).matrices)[0]
    at_rest = np.linalg.norm(rest[places] - rest[lines], axis=-1)
    lengths = np.linalg.norm(joints[:, places] - joints[:, lines], axis=-1)
    long = at_rest > 1e-3 * model.markers.diagonal
    return 100 * float((np.abs(lengths - at_rest) / np.where(long, at_rest, 1))[:, long].mean()) if long.any() else 0.0


def find_bones(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """The points [E], [E] at both ends of every bone."""
    joints = model.markers.joints
    heads = {node: place for place, node in enumerate(joints.deforming)}
    pairs = []
    for place, node in enumerate(joints.nodes):
        above = node if place >= joints.num_heads else model.rig.parents[node]
        while above >= 0 and above not in heads:
            above = model.rig.parents[above]
        if above >= 0:
            pairs.append((place, heads[above]))
    first, second = np.array(pairs, int).reshape(-1, 2).T
    return first, second


def measure_jerk(joints: np.ndarray, frame_rate: float, diagonal: float) -> float:
    """Mean size of the third derivative in time of points [T,M,3], in diagonals / s^3; 0 of fewer than 4 frames."""
    if len(joints) < 4:
        return 0.0
    return float(np.linalg.norm(np.diff(joints, n=3, axis=0), axis=-1).mean()) * frame_rate**3 / diagonal


def measure_own_jerk(model: Model, frame_rate: float) -> float | None:
    """Median jerk of the file's own clips at a frame rate, to compare with; None where it has none that moves."""
    found = []
    for clip in model.scene.clips:
        if clip.problem or clip.end - clip.start <= 3 / frame_rate:
            continue
        times = np.arange(clip.start, min(clip.end, clip.start + _MOST_SAMPLED / frame_rate), 1 / frame_rate)
        joints = place_markers(model.markers.joints, pose_nodes(model.scene, clip, times).matrices)
        found.append(measure_jerk(joints, frame_rate, model.markers.diagonal))
    return float(np.median(found)) if found else None


def describe(row: dict[str, Any]) -> str:
    """A clip's line."""
    parts = [f"{row['clip']}: {row['frames']} frames at {row['frame_rate']:g} a second"]
    if row.get("reprojection_px") is not None:
        parts.append(f"reprojection {row['reprojection_px']:.2f} px")
    if row.get("fit_error") is not None:
        parts.append(f"fit {row['fit_error']:.2f} % of the diagonal")
    if row.get("vertex_error") is not None:
        parts.append(f"vertices {row['vertex_error']:.2f} % of the height from the file's")
    if row.get("foot_slide") is not None:
        before = row["foot_slide_before"]
        parts.append(f"feet slide {row['foot_slide']:.1f} % of the height a second ({before:.1f} before)")
    parts.append(f"bones {row['bone_drift']:.2f} %")
    own = row.get("own_jerk")
    parts.append(f"jerk {row['jerk']:.3g}" + (f" (own clips {own:.3g})" if own is not None else ""))
    unsure = row.get("low_confidence") or {}
    parts.append(f"unsure: {', '.join(unsure)}" if unsure else "no joint unsure")
    return ", ".join(parts)


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def check_cameras(lifted: Lifted, markers: PoseMarkers) -> str:
    """What is wrong with the cameras that markers were lifted with; empty where nothing is."""
    if lifted.agreement < AGREEMENT:
        share = f"{100 * lifted.agreement:.0f} % of what views show"
        return f"only {share} meets in one place, expected {100 * AGREEMENT:.0f} % at least"
    places = np.flatnonzero(markers.parents >= 0)
    rest = np.linalg.norm(markers.rest[places] - markers.rest[markers.parents[places]], axis=-1)
    bones = np.linalg.norm(lifted.points[:, places] - lifted.points[:, markers.parents[places]], axis=-1)
    sure = lifted.confidence[:, places] >= UNSURE
    if len(places) and sure.any():
        ratio = float(np.median((bones / np.maximum(rest, 1e-9))[sure]))
        if not 0.5 <= ratio <= 2:
            return f"bones come out {ratio:.3g} times as long as the model's, expected its own unit"
    return ""
