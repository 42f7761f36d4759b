"""All clips of a rig as arrays of one shape, whatever their lengths and rates, and which of them go round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.rigs.forward import Pose, Rig
from dimo_jax.rigs.posing import pose_nodes
from dimo_jax.rigs.sampling import sample_clip
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skeleton import Clip

CLOSED = 0.05  # of the extent, or radians: a clip whose ends are nearer goes round


@dataclass(frozen=True)
class ClipSet:
    """M clips of one rig, each at T instants: those of a loop spaced by 1 / T of it, of others from its first key to
    its last.
    """

    scene: Scene
    rig: Rig
    names: tuple[str, ...]  # [M]
    poses: Pose  # leading axes M, T
    seconds: np.ndarray  # [M] how long each lasts; 0 for one key
    rates: np.ndarray  # [M] frames a second of its keys
    loops: np.ndarray  # [M] bool; a clip in which nothing moves is one

    @property
    def num_frames(self) -> int:
        """Instants T of each clip."""
        return int(self.poses.translations.shape[1])


def collect_clips(scene: Scene, rig: Rig, clips: Sequence[Clip], carriers: Sequence[int], num_frames: int) -> ClipSet:
    """Samples clips.

    Args:
      scene: of the rig.
      rig: with N nodes.
      clips: of the scene.
      carriers: the nodes that move anything drawn, see `find_carriers`: the others' ends need not meet.
      num_frames: T, at least 2.

    Raises:
      UserError: a clip that cannot be posed.
    """
    loops = np.array([is_loop(scene, clip, carriers) for clip in clips])
    poses = []
    for clip, loop in zip(clips, loops):
        shares = np.arange(num_frames) / num_frames if loop else np.linspace(0, 1, num_frames)
        poses.append(sample_clip(rig, clip, clip.start + (clip.end - clip.start) * shares))
    return ClipSet(
        scene=scene,
        rig=rig,
        names=tuple(clip.name for clip in clips),
        poses=jax.tree.map(lambda *each: jnp.asarray(np.stack(each)), *poses),
        seconds=np.array([clip.end - clip.start for clip in clips]),
        rates=np.array([find_rate(clip) for clip in clips]),
        loops=loops,
    )


def is_loop(scene: Scene, clip: Clip, carriers: Sequence[int]) -> bool:
    """Whether a clip ends as it begins, so that it can go round; one that travels does not."""
    ends = pose_nodes(scene, clip, np.array([clip.start, clip.end]))
    matrices = ends.matrices[:, np.array(carriers, int)]
    scales = np.maximum(np.linalg.norm(matrices[..., :3, :3], axis=-2, keepdims=True), 1e-12)
    axes = matrices[..., :3, :3] / scales
    turned = np.linalg.norm(axes[1] - axes[0], axis=(-2, -1)).max(initial=0) / np.sqrt(2)  # radians of a small turn
    places = matrices[..., :3, 3]
    size = max(float(np.linalg.norm(np.ptp(places, axis=(0, 1)))), 1e-12)
    apart = np.linalg.norm(places[1] - places[0], axis=-1).max(initial=0) / size
    morphs = max((float(np.abs(w[1] - w[0]).max(initial=0)) for w in ends.weights.values()), default=0.0)
    return bool(max(turned, apart, morphs) < CLOSED)


def find_rate(clip: Clip) -> float:
    """Frames a second of a clip's most finely keyed property; 30 where it has one key."""
    gaps = [np.median(np.diff(channel.times)) for channel in clip.channels if len(channel.times) > 1]
    gaps = [gap for gap in gaps if gap > 0]
    return float(np.clip(1 / min(gaps), 1, 120)) if gaps else 30.0
