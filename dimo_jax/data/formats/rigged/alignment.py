"""Where a dataset's source model stands in the dataset's world: its clips at the motions' frames, scale and centre.

An import poses every clip, then places all vertices at `scale * (p - center)`. The joints that it stores as truth tell
which times it took and where it put things: the same clips are posed again and fitted to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dimo_jax.cameras.framing import Framing
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.passes import Timing, pose_clip
from dimo_jax.data.formats.rigged.plan import name_motions
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skeleton import Clip
from dimo_jax.runtime.progress import track

TOLERANCE = 1e-3  # of the joints' extent: float32 truth agrees to 1e-6, another pose or time by percents


@dataclass(frozen=True, eq=False)
class Aligned:
    """A source model at the frames of M motions of a dataset made from it. Positions are in the source's own units."""

    framing: Framing  # source units to world units
    vertices: np.ndarray  # [M,T,P,3] float32, every vertex of the scene
    timing: Timing  # which times of the clips the frames are

    def to_source(self, points: np.ndarray) -> np.ndarray:
        """World points [...,3] in the source's units."""
        return points / self.framing.scale + self.framing.center


def align_source(scene: Scene, joints: Mapping[str, np.ndarray]) -> Aligned:
    """Poses the clips that motions were made from, and finds the framing.

    Args:
      scene: the source model, with the same nodes hidden as when it was imported.
      joints: true joints [T,J,3] in world units by name of motion; at least one.

    Raises:
      UserError: a motion without a clip of that name, another number of joints, or joints that are elsewhere.
    """
    clips = dict(zip(name_motions(scene.clips), scene.clips))
    for name, truth in joints.items():
        if name not in clips:
            raise UserError(f"{scene.path}: no clip for the motion {name!r}, found {', '.join(list(clips)[:6])}, ...")
        if truth.shape[1] != len(scene.joints):
            raise UserError(
                f"{scene.path}: {len(scene.joints)} joints, expected {truth.shape[1]} as in the run's dataset "
                "(the same file and the same --hide as for its import)"
            )
    few = list(joints)[:: max(1, len(joints) // 3)][:3]
    timing = _find_timing(scene, [clips[name] for name in few], [joints[name] for name in few])
    posed = [pose_clip(scene, clips[name], timing=timing) for name in track(joints, "posing the source", unit="clip")]
    framing, error = fit_framing_to([joints_ for _, joints_, _ in posed], list(joints.values()))
    _check(scene, error)
    return Aligned(framing, np.stack([vertices.astype(np.float32) for vertices, _, _ in posed]), timing)


def _find_timing(scene: Scene, clips: Sequence[Clip], truth: Sequence[np.ndarray]) -> Timing:
    """The sampling of clips that explains their true joints best."""
    best, least = Timing(num_frames=len(truth[0])), np.inf
    for loop, root_motion in itertools.product((False, True), ("keep", "remove")):
        timing = Timing(num_frames=len(truth[0]), loop=loop, root_motion=root_motion)
        _, error = fit_framing_to([pose_clip(scene, clip, timing=timing)[1] for clip in clips], truth)
        if error < least:
            best, least = timing, error
    _check(scene, least)
    return best


def _check(scene: Scene, error: float) -> None:
    if error > TOLERANCE:
        raise UserError(
            f"{scene.path}: its joints are {error:.1%} of their extent away from those of the run's dataset, expected "
            "the file that it was imported from, with the same --hide"
        )


def fit_framing_to(source: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> tuple[Framing, float]:
    """The framing that brings source points nearest to true ones, by least squares.

    Args:
      source, truth: arrays [...,3] in pairs of one shape; not all points at one place.

    Returns:
      The framing, and the largest distance that remains over the truth's largest extent.
    """
    points = np.concatenate([each.reshape(-1, 3) for each in source]).astype(np.float64)
    targets = np.concatenate([each.reshape(-1, 3) for each in truth]).astype(np.float64)
    middle, aim = points.mean(axis=0), targets.mean(axis=0)
    scale = float(((points - middle) * (targets - aim)).sum() / max(((points - middle) ** 2).sum(), 1e-30))
    if not scale > 0:
        return Framing(middle, 1.0), np.inf
    framing = Framing(middle - aim / scale, scale)
    extent = max(float(np.ptp(targets, axis=0).max()), 1e-12)
    return framing, float(np.linalg.norm(framing.apply(points) - targets, axis=-1).max()) / extent
