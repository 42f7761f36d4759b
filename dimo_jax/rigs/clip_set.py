"""All clips of a rig as arrays of one shape, whatever their lengths and rates, and which of them go round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.rigs.channels import find_carriers
from dimo_jax.rigs.forward import Pose, Rig
from dimo_jax.rigs.markers import Joints
from dimo_jax.rigs.posing import Poses, pose_nodes
from dimo_jax.rigs.sampling import sample_clip
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skeleton import Clip
from dimo_jax.rigs.travel import NO_WAY, find_movers, find_way, follow_ways, take_way, travel

CLOSED = 0.05  # of the extent, or radians: a clip whose ends are nearer goes round
_MOMENTS = 8  # of a clip, at which it is looked at for what moves besides its way


@dataclass(frozen=True)
class ClipSet:
    """M clips of one rig, each at T instants: those of a loop spaced by 1 / T of it, of others from its first key to
    its last. Of a loop that travels the poses are without its way.
    """

    scene: Scene
    rig: Rig
    names: tuple[str, ...]  # [M]
    poses: Pose  # leading axes M, T
    seconds: np.ndarray  # [M] how long each lasts; 0 for one key
    rates: np.ndarray  # [M] frames a second of its keys
    loops: np.ndarray  # [M] bool; a clip in which nothing moves is one
    ways: np.ndarray  # [M,3] how far each loop goes across the ground while it lasts, see `rigs/travel.py`
    tops: tuple[int, ...]  # nodes by which the model as a whole moves

    @property
    def num_frames(self) -> int:
        """Instants T of each clip."""
        return int(self.poses.translations.shape[1])

    def times(self, clip: int) -> np.ndarray:
        """Instants [T] of a clip, in shares of it."""
        return find_times(self.num_frames, loop=bool(self.loops[clip]))

    def travelled(self, clip: int) -> Pose:
        """The poses of a clip, leading axis T, as in the file: along its way."""
        pose = jax.tree.map(lambda x: x[clip], self.poses)
        return travel(self.rig, self.tops, pose, self.ways[clip], self.times(clip))


def find_times(num_frames: int, *, loop: bool) -> np.ndarray:
    """Instants [T] of a clip in shares of it."""
    return np.arange(num_frames) / num_frames if loop else np.linspace(0, 1, num_frames)


def collect_clips(scene: Scene, rig: Rig, clips: Sequence[Clip], joints: Joints, num_frames: int) -> ClipSet:
    """Samples clips.

    Args:
      scene: of the rig.
      rig: with N nodes.
      clips: of the scene.
      joints: of the rig: what moves nothing drawn need not end as it began.
      num_frames: T, at least 2.

    Raises:
      UserError: a clip that cannot be posed.
    """
    carriers = find_carriers(rig, joints)
    looked = [sample_clip(rig, clip, _at(clip, np.linspace(0, 1, _MOMENTS))) for clip in clips]
    tops = find_movers(rig, carriers, looked)
    found = [find_loop(scene, clip, joints, carriers, tops) for clip in clips]
    poses = []
    for clip, way in zip(clips, found):
        times = find_times(num_frames, loop=way is not None)
        pose = sample_clip(rig, clip, _at(clip, times))
        poses.append(take_way(rig, tops, pose, way, times) if way is not None and way.any() else pose)
    return ClipSet(
        scene=scene,
        rig=rig,
        names=tuple(clip.name for clip in clips),
        poses=jax.tree.map(lambda *each: jnp.asarray(np.stack(each)), *poses),
        seconds=np.array([clip.end - clip.start for clip in clips]),
        rates=np.array([find_rate(clip) for clip in clips]),
        loops=np.array([way is not None for way in found]),
        ways=np.array([NO_WAY if way is None else way for way in found]),
        tops=tops,
    )


def _at(clip: Clip, shares: np.ndarray) -> np.ndarray:
    seconds: np.ndarray = clip.start + (clip.end - clip.start) * shares
    return seconds


def find_loop(
    scene: Scene, clip: Clip, joints: Joints, carriers: Sequence[int], tops: Sequence[int]
) -> np.ndarray | None:
    """The way [3] across the ground of a clip that goes round but for it; zeros of one that stays, None of no loop.

    Whoever walks on goes round in pose alone. A thing that merely slides, or turns, has no pose besides: it is no loop.

    Args:
      scene: of the clip.
      clip: of it.
      joints: of the rig.
      carriers: nodes whose ends must meet, see `find_carriers`.
      tops: nodes by which the model as a whole moves.
    """
    if is_loop(scene, clip, carriers):
        return NO_WAY
    below = set(tops)
    for node in (int(index) for index in scene.order):
        if scene.nodes[node].parent in below:
            below.add(node)
    if not tops or not below.issuperset(joints.deforming):
        return None
    poses = pose_nodes(scene, clip, _at(clip, np.linspace(0, 1, _MOMENTS)))
    matrices = poses.matrices[:, list(joints.deforming)]
    size = _measure(matrices[..., :3, 3])
    points = np.concatenate([matrices[..., :3, 3][..., None, :], _end_axes(matrices, size)], axis=-2)
    way = find_way(*(points[moment].reshape(-1, 3) for moment in (0, -1)))
    still = np.linalg.inv(follow_ways(way, np.linspace(0, 1, _MOMENTS)))[:, None] @ matrices
    off = [_compare(still[[0, moment]], size) for moment in range(1, _MOMENTS)]
    closes = max(off[-1], _compare_morphs(poses)) < CLOSED
    return way if closes and max(off) >= CLOSED else None


def _measure(places: np.ndarray) -> float:
    """The extent of points [T,J,3]."""
    return max(float(np.linalg.norm(np.ptp(places.reshape(-1, 3), axis=0))), 1e-12)


def _axes(matrices: np.ndarray) -> np.ndarray:
    """The turned axes [...,3,3] of nodes, without their scales."""
    scales = np.maximum(np.linalg.norm(matrices[..., :3, :3], axis=-2, keepdims=True), 1e-12)
    axes: np.ndarray = matrices[..., :3, :3] / scales
    return axes


def _end_axes(matrices: np.ndarray, size: float) -> np.ndarray:
    """The ends [...,3,3] of nodes' axes, a tenth of the extent long: what turns in its place shows by them."""
    return matrices[..., None, :3, 3] + 0.1 * size * _axes(matrices).swapaxes(-1, -2)


def _compare(matrices: np.ndarray, size: float) -> float:
    """How far two poses [2,J,4,4] of nodes are from each other at most: radians of a turn, or shares of the extent."""
    axes, places = _axes(matrices), matrices[..., :3, 3]
    turned = np.linalg.norm(axes[1] - axes[0], axis=(-2, -1)).max(initial=0) / np.sqrt(2)  # of a small turn
    apart = np.linalg.norm(places[1] - places[0], axis=-1).max(initial=0) / size
    return float(max(turned, apart))


def _compare_morphs(poses: Poses) -> float:
    return max((float(np.abs(w[-1] - w[0]).max(initial=0)) for w in poses.weights.values()), default=0.0)


def is_loop(scene: Scene, clip: Clip, carriers: Sequence[int]) -> bool:
    """Whether a clip ends where and as it begins, so that it can go round."""
    ends = pose_nodes(scene, clip, np.array([clip.start, clip.end]))
    matrices = ends.matrices[:, np.array(carriers, int)]
    return max(_compare(matrices, _measure(matrices[..., :3, 3])), _compare_morphs(ends)) < CLOSED


def find_rate(clip: Clip) -> float:
    """Frames a second of a clip's most finely keyed property; 30 where it has one key."""
    gaps = [np.median(np.diff(channel.times)) for channel in clip.channels if len(channel.times) > 1]
    gaps = [gap for gap in gaps if gap > 0]
    return float(np.clip(1 / min(gaps), 1, 120)) if gaps else 30.0
