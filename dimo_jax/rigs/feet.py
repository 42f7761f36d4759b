"""Feet: which points of a rig stand on the ground in its clips, and how they are held where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.rigs.forward import Pose, Rig, place_frames
from dimo_jax.rigs.inverse import solve_pose
from dimo_jax.rigs.markers import Joints, place_markers

GROUND = 0.04  # of the height, above a point's lowest place: there it may stand
SLOW = 0.15  # heights a second, below which it stands, in clips
LOCKABLE = 0.6  # likewise, below which it is held, in new ones
LOW = 0.12  # of the height, above the lowest point of all: there a foot's lowest place is
STANDS = 0.1  # share of the frames of the clips in which a foot stands at least
MOST = 0.5  # share of a rig's points that may be feet: what lies on the ground has none
_HELD, _KEPT = 1.0, 0.02  # weights of feet that stand, and of all other points


@dataclass(frozen=True)
class Feet:
    """Points of a rig that stand."""

    points: tuple[int, ...]  # numbers among the points of `Joints`
    names: tuple[str, ...]
    lowest: np.ndarray  # [n] heights below which each stands
    height: float  # of the model


def find_feet(joints: Joints, tracks: Sequence[np.ndarray], rates: Sequence[float], height: float) -> Feet | None:
    """The feet of a rig, from its clips; None where nothing stands, or more than half of it does.

    Args:
      joints: of the rig.
      tracks: of each clip the places [T,M,3] of its points.
      rates: frames a second of each.
      height: of the model.
    """
    tracks_and_rates = [(track, rate) for track, rate in zip(tracks, rates) if len(track) > 2]
    if not tracks_and_rates:
        return None
    heights = np.concatenate([track[:, :, 1] for track, _ in tracks_and_rates])
    lowest = np.quantile(heights, 0.02, axis=0)
    stands = np.concatenate([_stand(track, rate, lowest + GROUND * height, SLOW * height)
                             for track, rate in tracks_and_rates])  # fmt: skip
    feet = np.flatnonzero((stands.mean(axis=0) >= STANDS) & (lowest <= lowest.min() + LOW * height))
    if not len(feet) or len(feet) > MOST * len(joints.names):
        return None
    return _take(joints, feet, lowest, height)


def name_feet(joints: Joints, names: Sequence[str], tracks: Sequence[np.ndarray], height: float) -> Feet:
    """The feet of these names, nodes' or with " (tip)".

    Raises:
      UserError: a name that no point of the rig has.
    """
    chosen = []
    for name in names:
        found = [index for index, each in enumerate(joints.names) if name in (each, each.removesuffix(" (tip)"))]
        if not found:
            raise UserError(f"--foot_lock: found {name!r}, expected 'auto' or joints: {', '.join(joints.names[:12])}")
        chosen += found
    heights = np.concatenate([track[:, :, 1] for track in tracks])
    return _take(joints, np.unique(chosen), np.quantile(heights, 0.02, axis=0), height)


def _take(joints: Joints, feet: np.ndarray, lowest: np.ndarray, height: float) -> Feet:
    names = tuple(joints.names[index] for index in feet)
    return Feet(tuple(map(int, feet)), names, lowest[feet] + GROUND * height, height)


def _stand(track: np.ndarray, rate: float, below: np.ndarray, slow: float) -> np.ndarray:
    """In which frames [T,M] points are low, and slow."""
    speed = np.linalg.norm(np.gradient(track, axis=0), axis=-1) * rate
    stands: np.ndarray = (track[:, :, 1] <= below) & (speed <= slow)
    return stands


def find_contacts(feet: Feet, track: np.ndarray, rate: float) -> np.ndarray:
    """In which frames [T,n] the feet are to stand, by the places [T,M,3] of a rig's points."""
    if len(track) < 3:
        return np.zeros((len(track), len(feet.points)), bool)
    return _stand(track[:, list(feet.points)], rate, feet.lowest, LOCKABLE * feet.height)


def measure_slide(feet: Feet, track: np.ndarray, rate: float) -> float:
    """Mean speed across the ground of feet that stand, in heights a second; 0 where none does."""
    contacts = find_contacts(feet, track, rate)
    both = contacts[1:] & contacts[:-1]
    if not both.any():
        return 0.0
    moved = np.linalg.norm(np.diff(track[:, list(feet.points)][..., [0, 2]], axis=0), axis=-1)
    return float(moved[both].mean()) * rate / feet.height


def hold_feet(rig: Rig, joints: Joints, feet: Feet, pose: Pose, rate: float) -> Pose:
    """A pose in which feet that stand stay at one place while they do; bones keep the lengths that they have in it.

    Args:
      rig: of the model.
      joints: of it.
      feet: of it.
      pose: leading axis T.
      rate: frames a second.
    """
    track = _place(rig, joints, pose)
    contacts = find_contacts(feet, track, rate)
    if not contacts.any():
        return pose
    targets, weights = track.copy(), np.full(track.shape[:2], _KEPT)
    for place, point in enumerate(feet.points):
        for begin, end in find_spans(contacts[:, place]):
            own = slice(begin, end)
            targets[own, point] = track[own, point].mean(axis=0)
            weights[own, point] = _HELD
    return solve_pose(rig, joints, targets, weights, base=pose, stretch=0).pose


def find_spans(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last of every run of True of at least three."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2) if end - begin >= 3]


def _place(rig: Rig, joints: Joints, pose: Pose) -> np.ndarray:
    return place_markers(joints, place_frames(rig, pose))
