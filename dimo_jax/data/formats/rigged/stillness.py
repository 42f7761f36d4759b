"""How much a clip moves by its own curves, and how much of that a choice of frames shows.

Frames that meet a motion at the same phase each time show a still pose, so stillness is judged at the clip's keys and
between them. What moves is measured on `choose_probes`, a few vertices of every part that go wherever anything goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.rigs.posing import pose_nodes, pose_vertices
from dimo_jax.rigs.scene import Part, Scene
from dimo_jax.rigs.skeleton import Clip

# Places between two keys, beside the keys: where a spline through equal keys, and turns of nested nodes that cancel
# at the keys, are away from both. Uneven, lest they alias in turn.
BETWEEN = (0.21, 0.5, 0.83)
AT_ONCE = 256  # times, which bounds the memory of clips of any length
MAX_KEPT = 1 << 21  # positions
UNSEEN = 1e-6  # of the largest part's size: a part that is scaled to nothing moves unseen
SHOWN = 0.25  # share of a movement that may lie between frames which still show it
MAX_DOUBLINGS = 8  # of the number of frames, in the search for one that shows a motion


@dataclass(frozen=True)
class Sway:
    """What a clip moves. `moved` and `moved_at_all` are shares of the size of the part that moves furthest so."""

    moved: float  # the furthest that a vertex comes from its place at the first frame
    moved_at_all: float  # the same before any travel is removed
    missed: float  # share of the movement that lies between the frames; of the body's own or of its path's, the larger
    enough: int  # number of frames that would show it; 0 where these do, or none was found


def choose_probes(scene: Scene) -> Scene:
    """The scene with a few vertices of each part: the outermost of what each joint moves, and of each morph target."""
    used = np.zeros(scene.num_vertices, bool)
    used[scene.mesh.triangles] = True
    parts: list[Part] = []
    start = 0
    for part in scene.parts:
        chosen = _outermost(part, used[part.start : part.start + len(part.positions)])
        thin = replace(
            part,
            start=start,
            positions=part.positions[chosen],
            joints=part.joints[chosen],
            weights=part.weights[chosen],
            morph_targets=part.morph_targets[:, chosen],
        )
        parts.append(thin)
        start += len(chosen)
    return replace(scene, parts=tuple(parts))


def _outermost(part: Part, used: np.ndarray) -> np.ndarray:
    """Indices of the vertices that stand for a part, of those that a triangle uses."""
    drawn = np.flatnonzero(used)
    groups = [drawn]
    if part.skin >= 0:
        for joint in np.unique(part.joints[drawn][part.weights[drawn] > 0]):
            share = np.where(part.joints[drawn] == joint, part.weights[drawn], 0).sum(axis=1)
            groups.append(drawn[share >= share.max() / 2])
    chosen = [np.zeros(0, np.int64)]
    for group in groups:
        if len(group):
            place = part.positions[group]
            chosen.append(group[np.concatenate([place.argmin(axis=0), place.argmax(axis=0)])])
    if len(drawn):
        chosen.append(drawn[np.linalg.norm(part.morph_targets[:, drawn], axis=-1).argmax(axis=1)])
    return np.unique(np.concatenate(chosen))


def key_times(clip: Clip) -> np.ndarray:
    """Seconds [S], rising: every key of a clip, and places between neighbours."""
    keys = np.unique(np.concatenate([channel.times for channel in clip.channels] or [np.array([clip.start])]))
    steps = np.diff(keys)
    return np.sort(np.concatenate([keys, *(keys[:-1] + share * steps for share in BETWEEN)]))


def measure_sway(probes: Scene, clip: Clip, frames: np.ndarray, *, in_place: bool) -> Sway:
    """Measures a clip at its own keys.

    Args:
      probes: from `choose_probes`.
      clip: one of its clips.
      frames: [T] seconds that are to be shown.
      in_place: whether the straight horizontal line from the first to the last frame's centroid is taken away.
    """
    with np.errstate(all="ignore"):  # what overflows is said of the vertices themselves
        ends = trace(probes, clip, frames[[0, -1]]).mean(axis=1)
        drift = (ends[1] - ends[0]) * np.array([1.0, 0.0, 1.0]) if in_place else np.zeros(3)
        curves = Curves(probes, clip)
        moved, moved_at_all = _measure_parts(curves, frames, drift)
        missed, enough = _measure_missed(curves, frames, drift), 0
        if missed > SHOWN:
            denser = (np.linspace(frames[0], frames[-1], (len(frames) - 1) * 2**n + 1) for n in range(1, MAX_DOUBLINGS))
            enough = next((len(each) for each in denser if _measure_missed(curves, each, drift) <= SHOWN), 0)
    return Sway(moved, moved_at_all, missed, enough)


class Curves:
    """The probes' paths at a clip's own times, in pieces; kept where they are few."""

    def __init__(self, probes: Scene, clip: Clip) -> None:
        """Poses nothing yet."""
        self.probes, self.clip, self._times = probes, clip, key_times(clip)
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Times [s] in seconds, and positions [s,n,3] at them."""
        if self._kept:
            yield from self._kept
            return
        keep = len(self._times) * self.probes.num_vertices <= MAX_KEPT
        for begin in range(0, len(self._times), AT_ONCE):
            times = self._times[begin : begin + AT_ONCE]
            piece = times, trace(self.probes, self.clip, times)
            if keep:
                self._kept.append(piece)
            yield piece


def trace(probes: Scene, clip: Clip, times: np.ndarray) -> np.ndarray:
    """Positions [T,n,3] of the probes."""
    return pose_vertices(probes, pose_nodes(probes, clip, times), slice(None))


def _line(frames: np.ndarray, drift: np.ndarray, times: np.ndarray) -> np.ndarray:
    """What is taken away at `times` [S] of a clip that is kept in place -> [S,1,3]."""
    span = frames[-1] - frames[0]
    return ((times - frames[0]) / span if span > 0 else 0 * times)[:, None, None] * drift


def _measure_parts(curves: Curves, frames: np.ndarray, drift: np.ndarray) -> tuple[float, float]:
    """The largest movement over its part's size, without the line and with it."""
    probes = curves.probes
    first = trace(probes, curves.clip, frames[:1])
    spans = [slice(part.start, part.start + len(part.positions)) for part in probes.parts if len(part.positions)]
    sizes, away, away_at_all = (np.zeros(len(spans)) for _ in range(3))
    for times, points in curves:
        offsets = points - first
        for index, span in enumerate(spans):
            sizes[index] = max(sizes[index], np.ptp(points[:, span], axis=1).max())
            away_at_all[index] = max(away_at_all[index], np.linalg.norm(offsets[:, span], axis=-1).max())
            straight = offsets[:, span] - _line(frames, drift, times)
            away[index] = max(away[index], np.linalg.norm(straight, axis=-1).max())
    seen = sizes > UNSEEN * sizes.max(initial=0)
    if not seen.any():
        return 0.0, 0.0
    return float((away[seen] / sizes[seen]).max()), float((away_at_all[seen] / sizes[seen]).max())


def _measure_missed(curves: Curves, frames: np.ndarray, drift: np.ndarray) -> float:
    """The share of a movement that is away from the straight lines between the frames' poses.

    The centroid's path and what the body does around it are two movements, else a long travel would hide the steps.
    """
    end = curves.clip.end
    ends = np.append(frames, end) if end > frames[-1] else frames  # a loop's last frame lies before its end
    shown = _split(trace(curves.probes, curves.clip, ends) - _line(frames, drift, ends))
    moved, missed, size = np.zeros(2), np.zeros(2), 0.0
    for times, points in curves:
        size = max(size, float(np.ptp(points, axis=1).max()))
        before = np.clip(np.searchsorted(ends, times, side="right") - 1, 0, max(len(ends) - 2, 0))
        after = np.minimum(before + 1, len(ends) - 1)
        for kind, (found, frame) in enumerate(zip(_split(points - _line(frames, drift, times)), shown)):
            moved[kind] = max(moved[kind], np.linalg.norm(found - frame[:1], axis=-1).max())
            missed[kind] = max(missed[kind], _distance(found, frame[before], frame[after]).max())
    shares = [away / most for away, most in zip(missed, moved) if most > 1e-3 * size]
    return float(max(shares, default=0.0))


def _split(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions [T,n,3] as the path of their centroid [T,1,3], and where they are around it [T,n,3]."""
    path = points.mean(axis=1, keepdims=True)
    return path, points - path


def _distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distances of points [...,3] from the straight lines between `start` and `end`."""
    line = end - start
    length = (line * line).sum(axis=-1)
    along = np.divide(((points - start) * line).sum(axis=-1), length, out=np.zeros_like(length), where=length > 0)
    return np.linalg.norm(points - start - np.clip(along, 0, 1)[..., None] * line, axis=-1)
