"""What shape and contact say about every candidate: free travel, kept contact, levers, symmetry, handles, extents.

All arrays lead with the C candidates; those of signed motions have a second axis, 0 along the axis and 1 against it.
Lengths are in the normalized frame of `Setting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.spatial import cKDTree

from dimo_jax.geometry.joint import REVOLUTE, rotation_about
from dimo_jax.meshes.boxes import frame_around
from dimo_jax.meshes.revolution import fit_revolution, revolution_residual
from dimo_jax.meshes.sweeps import blocked_shares
from dimo_jax.meshes.symmetry import mirror_residual
from dimo_jax.systems.atop.candidates import Candidate, panel_of
from dimo_jax.systems.atop.setting import CONTACT, Setting, surface_distance

ANGLES = np.deg2rad([4, 10, 20, 32, 45, 60, 75, 90, 110, 135, 160, 180])
SLIDES = np.array([0.01, 0.025, 0.045, 0.07, 0.1, 0.14, 0.19, 0.25, 0.32, 0.42, 0.55, 0.75])
BLOCKED = 0.04  # the share of the part's surface that may be inside the body before it counts as a collision
PIN_ROUND = 0.08  # largest residual of what counts as a pin
SHARE_SHOWN, MOST_SHARE = (0.005, 0.25), 0.6  # of the surface above the panel: surely a handle's, and at most
SMALL_PIECE, STICKS_OUT = 0.12, 0.003  # share of the surface, and length, of a piece that may be a handle
_CHUNK = 40  # candidates whose paths are in memory together


@dataclass(frozen=True)
class Evidence:
    """Of C candidates."""

    turns: np.ndarray  # [C] bool: revolute
    axes: np.ndarray  # [C,3]
    origins: np.ndarray  # [C,3]
    blocked: np.ndarray  # [C,2,K] share of the part inside the body at ANGLES or SLIDES
    free: np.ndarray  # [C,2] how far it goes before a collision, radians or length
    kept: np.ndarray  # [C,2] gap between part and body when it has moved some way
    reach: np.ndarray  # [C] largest distance of the part from the axis (revolute)
    eccentric: np.ndarray  # [C] distance of the centroid from the axis, over `reach`
    outside: np.ndarray  # [C] smallest distance of the part from the axis, over `reach`
    near_contact: np.ndarray  # [C] distance of the nearest contact from the axis, over `reach`
    contact_off: np.ndarray  # [C] distance of the middle of the contact from the axis, over `reach`
    root_off: np.ndarray  # [C] distance of the part's end that lies deepest in the body from the axis, over `reach`
    asymmetry: np.ndarray  # [C] 0: the part looks the same after some turn around the axis
    pivot: np.ndarray  # [C] 0: the part is round about the axis where it touches the body
    mirror: np.ndarray  # [C] 0: the part is its own mirror image along the axis, as levers are
    tip: np.ndarray  # [C] distance of the end of the part that is farthest from the body from the axis, over `reach`
    post: np.ndarray  # [C] bool: the body has a slim round piece around the axis, beside the part: a post or a pin
    shaft: np.ndarray  # [C] bool: a slim round piece of the part around the axis touches the body: a pin, a knuckle
    grip: np.ndarray  # [C,2] 1: the part ends in something thin, such as a handle, at this end of the axis
    length: np.ndarray  # [C] extent of the part along the axis
    part_span: np.ndarray  # [C,2] lowest and highest place of the part along the axis
    body_span: np.ndarray  # [C,2] the same of the body


def gather(setting: Setting, found: Sequence[Candidate]) -> Evidence:
    """All evidence but collisions and kept contact, which `collide` adds: as if nothing stood in the way."""
    turns = np.array([each.type == REVOLUTE for each in found])
    axes = np.array([each.axis for each in found])
    origins = np.array([each.origin for each in found])
    points = setting.part.points
    radius = _radii(points, axes, origins)
    reach = np.maximum(np.percentile(radius, 98, axis=1), 1e-6)
    contact = setting.contact
    touch = _radii(contact, axes, origins) / reach[:, None]
    middle = _radii(contact.mean(axis=0)[None], axes, origins)[:, 0] / reach
    along, body_along = points @ axes.T, setting.body.points @ axes.T
    part_span = np.stack([along.min(axis=0), along.max(axis=0)], axis=1)
    eccentric = _radii(setting.part_center[None], axes, origins)[:, 0] / reach
    blocked = np.zeros((len(turns), 2, len(ANGLES)))
    return Evidence(
        turns=turns,
        axes=axes,
        origins=origins,
        blocked=blocked,
        free=_free_travel(blocked, turns),
        kept=np.zeros((len(turns), 2)),
        reach=reach,
        eccentric=eccentric,
        outside=np.percentile(radius, 1, axis=1) / reach,
        near_contact=np.percentile(touch, 5, axis=1),
        contact_off=middle,
        root_off=_radii(setting.root[None], axes, origins)[:, 0] / reach,
        asymmetry=_asymmetries(setting, turns & (eccentric < 0.4), axes, origins, reach),
        pivot=find_pivots(setting, turns, axes, origins),
        mirror=find_mirrored(setting, axes),
        tip=_radii(setting.tip[None], axes, origins)[:, 0] / reach,
        post=find_posts(setting, found),
        shaft=find_shafts(setting, turns, axes, origins),
        grip=find_grips(setting, axes),
        length=np.ptp(part_span, axis=1),
        part_span=part_span,
        body_span=np.stack([body_along.min(axis=0), body_along.max(axis=0)], axis=1),
    )


def select(evidence: Evidence, rows: np.ndarray) -> Evidence:
    """The evidence of candidates `rows` [n]."""
    return Evidence(**{field.name: getattr(evidence, field.name)[rows] for field in fields(Evidence)})


def collide(setting: Setting, evidence: Evidence) -> Evidence:
    """Adds free travel and kept contact; most time goes into rays along the paths of the part's points."""
    e = evidence
    blocked = find_blocked(setting, e.turns, e.axes, e.origins)
    kept = _kept_contact(setting, e.turns, e.axes, e.origins, e.length)
    return replace(e, blocked=blocked, free=_free_travel(blocked, e.turns), kept=kept)


def _radii(points: np.ndarray, axes: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Distances [C,N] of points from lines."""
    offset = points[None] - origins[:, None]
    along = np.einsum("cnd,cd->cn", offset, axes)
    return np.sqrt(np.maximum((offset**2).sum(axis=2) - along**2, 0))


def find_blocked(setting: Setting, turns: np.ndarray, axes: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Blocked shares [C,2,K] of both ways of every candidate."""
    size = float(2 * np.linalg.norm(setting.box.half))
    depth = float(np.clip(0.02 * size, 0.002, 0.006))
    result = np.zeros((len(turns), 2, len(ANGLES)))
    for start in range(0, len(turns), _CHUNK):
        rows = slice(start, start + _CHUNK)
        for side, sign in enumerate((1.0, -1.0)):
            paths = _paths(setting.probes, turns[rows], sign * axes[rows], origins[rows])
            result[rows, side] = blocked_shares(setting.obstacle, paths, depth=depth, two_sided=setting.two_sided)
    return result


def _paths(points: np.ndarray, turns: np.ndarray, axes: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Places [C,K+1,N,3] of points at rest and at ANGLES or SLIDES."""
    paths = np.empty((len(turns), len(ANGLES) + 1, len(points), 3))
    paths[:, 0] = points
    for row, (turn, axis, origin) in enumerate(zip(turns, axes, origins)):
        paths[row, 1:] = move(points, turn, axis, origin, ANGLES if turn else SLIDES)
    return paths


def move(points: np.ndarray, turns: bool, axis: np.ndarray, origin: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Points [N,3] at joint values [K] -> [K,N,3]."""
    if turns:
        return (points - origin) @ rotation_about(axis, values).swapaxes(-1, -2) + origin
    return points + np.asarray(values)[:, None, None] * axis


def _free_travel(blocked: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """[C,2]: how far it goes until the share of blocked points exceeds BLOCKED, between steps on a straight line."""
    values = np.where(turns[:, None], ANGLES, SLIDES)  # [C,K]
    over = blocked > BLOCKED
    first = np.where(over.any(axis=2), over.argmax(axis=2), blocked.shape[2])
    padded = np.concatenate([np.zeros((len(turns), 1)), values], axis=1)
    before = np.take_along_axis(padded, first, axis=1)
    after = np.take_along_axis(padded, np.minimum(first + 1, blocked.shape[2]), axis=1)
    shares = np.concatenate([np.zeros((*blocked.shape[:2], 1)), blocked], axis=2)
    low = np.take_along_axis(shares, first[..., None], axis=2)[..., 0]
    high = np.take_along_axis(shares, np.minimum(first + 1, blocked.shape[2])[..., None], axis=2)[..., 0]
    part = np.where(high > low, (BLOCKED - low) / np.maximum(high - low, 1e-9), 0)
    return before + (after - before) * np.clip(part, 0, 1)


def _kept_contact(
    setting: Setting, turns: np.ndarray, axes: np.ndarray, origins: np.ndarray, length: np.ndarray
) -> np.ndarray:
    """[C,2] distance between part and body when it has turned by 40 degrees, or moved by a third of its length."""
    points = setting.part.points[::6]
    result = np.zeros((len(turns), 2))
    for side, sign in enumerate((1.0, -1.0)):
        moved = np.stack(
            [
                move(points, turn, sign * axis, origin, np.array([np.deg2rad(40) if turn else size / 3]))[0]
                for turn, axis, origin, size in zip(turns, axes, origins, length)
            ]
        )
        gaps = surface_distance(setting.body_tree, setting.body, moved.reshape(-1, 3)).reshape(len(turns), -1)
        result[:, side] = np.maximum(gaps.min(axis=1) - setting.gap.min(), 0)
    return result


def _asymmetries(
    setting: Setting, turns: np.ndarray, axes: np.ndarray, origins: np.ndarray, reach: np.ndarray
) -> np.ndarray:
    """[C] how much the part changes when it turns: the residual of revolution, or of the best of a few turns."""
    points, normals = setting.part.points[::3], setting.part.normals[::3]
    tree = cKDTree(setting.part.points)
    spacing = float(np.median(tree.query(setting.part.points, k=2)[0][:, 1]))
    result = np.ones(len(turns))
    for row in np.flatnonzero(turns):
        smooth = revolution_residual(points, normals, axes[row], origins[row])
        folds = []
        for fold in (2, 3, 4, 5):
            turned = move(points, True, axes[row], origins[row], np.array([2 * np.pi / fold]))[0]
            off = tree.query(turned)[0]
            folds.append(float(np.maximum(off - spacing, 0).mean() / reach[row]))
        result[row] = min(smooth, 3 * min(folds))
    return result


def find_pivots(setting: Setting, turns: np.ndarray, axes: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """[C] residual of revolution of what of the part lies around the contact: a shaft or a bearing."""
    size = float(2 * np.linalg.norm(setting.box.half))
    gap = np.linalg.norm(setting.part.points - setting.contact.mean(axis=0), axis=1)
    near = gap <= max(float(np.percentile(gap, 12)), 0.15 * size)
    points, normals = setting.part.points[near], setting.part.normals[near]
    result = np.ones(len(turns))
    for row in np.flatnonzero(turns):
        result[row] = revolution_residual(points, normals, axes[row], origins[row])
    return result


def find_posts(setting: Setting, found: Sequence[Candidate]) -> np.ndarray:
    """[C] bool: a round piece of the body lies around the axis, slim against the part and along some of its length."""
    result = np.zeros(len(found), bool)
    size = 2 * float(setting.box.half.max())
    for row, each in enumerate(found):
        if each.type != REVOLUTE or "of the body" not in each.source:
            continue
        length = float(np.ptp(setting.part.points @ each.axis))
        for piece in setting.body_pieces:
            radius = float(np.percentile(_radii(piece.points, each.axis[None], each.origin[None]), 95))
            long = float(np.ptp(piece.points @ each.axis)) > 0.4 * length
            if long and radius < 0.2 * size:
                result[row] |= revolution_residual(piece.points, piece.normals, each.axis, each.origin) < 0.08
    return result


@dataclass(frozen=True)
class Pin:
    """A piece of the part, slim against the whole, that is round and touches the body: a knuckle, a pin, a shaft."""

    axis: np.ndarray  # [3] unit
    origin: np.ndarray  # [3] its middle
    radius: float
    half: float  # of its length

    def holds(self, points: np.ndarray) -> np.ndarray:
        """[N] bool: which points lie in it."""
        off = _radii(points, self.axis[None], self.origin[None])[0]
        return (off <= 1.1 * self.radius) & (np.abs((points - self.origin) @ self.axis) <= 1.05 * self.half)


def find_pins(setting: Setting) -> list[Pin]:
    """The pins of a part that has other pieces too: a part of one piece is no pin of itself."""
    found = []
    size = 2 * float(setting.box.half.max())
    for piece in setting.part_pieces if len(setting.part_pieces) > 1 else ():
        gap = surface_distance(setting.body_tree, setting.body, piece.points).min()
        fitted = fit_revolution(piece.points, piece.normals)
        if gap > setting.gap.min() + CONTACT or fitted is None or fitted.residual > PIN_ROUND:
            continue
        along = piece.points @ fitted.axis
        middle = fitted.origin + fitted.axis * ((along.min() + along.max()) / 2 - fitted.origin @ fitted.axis)
        radius = float(np.percentile(_radii(piece.points, fitted.axis[None], middle[None]), 95))
        if radius < 0.3 * size:
            found.append(Pin(fitted.axis, middle, radius, float(np.ptp(along)) / 2))
    return found


def find_shafts(setting: Setting, turns: np.ndarray, axes: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """[C] bool: the axis is that of a pin."""
    result = np.zeros(len(turns), bool)
    for pin in find_pins(setting):
        off = _radii(pin.origin[None], axes, origins)[:, 0]
        along = np.abs(axes @ pin.axis) > np.cos(np.deg2rad(5))
        result |= turns & along & (off < max(0.5 * pin.radius, 0.01))
    return result


def find_mirrored(setting: Setting, axes: np.ndarray) -> np.ndarray:
    """[C] residual of the part's mirror image along each axis, about the middle of its extent."""
    points = setting.part.points
    tree = cKDTree(points)
    _, first, which = np.unique(np.round(axes, 6), axis=0, return_index=True, return_inverse=True)
    residuals = []
    for row in first:
        along = points @ axes[row]
        middle = axes[row] * (along.min() + along.max()) / 2
        residuals.append(mirror_residual(tree, points[::3], axes[row], middle))
    return np.array(residuals)[which.reshape(-1)]


def find_grips(setting: Setting, axes: np.ndarray) -> np.ndarray:
    """[C,2] how much smaller the part is across the axis at either end than as a whole, 0..1."""
    points = setting.part.points
    result = np.zeros((len(axes), 2))
    for row, axis in enumerate(axes):
        across = _sides(setting, axis)
        flat, along = points @ across.T, points @ axis
        whole = float(np.ptp(flat, axis=0).prod())
        low, high = along.min(), along.max()
        band = 0.05 * (high - low) + 1e-6
        for side, mask in enumerate((along > high - band, along < low + band)):
            result[row, side] = 1 - float(np.ptp(flat[mask], axis=0).prod()) / max(whole, 1e-9)
    return np.clip(result, 0, 1)


def _sides(setting: Setting, axis: np.ndarray) -> np.ndarray:
    """Two directions [2,3] across an axis, along the part's own frame where that fits."""
    along = np.abs(setting.part_frame @ axis)
    if along.max() > 0.99:
        return np.delete(setting.part_frame, along.argmax(), axis=0)
    return frame_around(axis)[:2]


@dataclass(frozen=True)
class Handle:
    """What sticks out of the panel of a part."""

    outward: np.ndarray  # [3] unit normal of the panel, away from the body
    offset: np.ndarray  # [3] from the middle of the panel to the handle, along the panel; zero: no handle
    share: float  # of the surface
    bar: np.ndarray  # [3] along a handle that is long: its direction times 0 (round) to 1 (a bar)


def find_handle(setting: Setting) -> Handle:
    """The panel's outward normal, and where on it a handle sticks out, which is no pin.

    A handle stands on the panel's outer side, or beyond its outline; as a piece of its own it may be smaller
    than what samples of the whole show, and thinner than the layer that is taken for the panel.
    """
    normal, low, high = panel_of(setting)
    points = setting.part.points
    height = points @ normal
    toward = float((setting.part_center - setting.body.points.mean(axis=0)) @ normal)
    outward = normal if toward >= 0 else -normal
    above = height > high + 0.004 if toward >= 0 else height < low - 0.004
    pins = find_pins(setting)
    for pin in pins:
        above &= ~pin.holds(points)
    panel = (height >= low) & (height <= high)
    share = float(above.mean())
    knobs = _small_pieces(setting, outward, pins)
    if len(knobs) and not SHARE_SHOWN[0] < share < SHARE_SHOWN[1]:
        above_points, middle = knobs, setting.part_pieces[0].points.mean(axis=0)
    elif SHARE_SHOWN[0] < share < MOST_SHARE and panel.sum() >= 20:
        above_points, middle = points[above], points[panel].mean(axis=0)
    else:
        return Handle(outward, np.zeros(3), share, np.zeros(3))
    flat = above_points - np.outer(above_points @ normal, normal)
    offset = flat.mean(axis=0) - (middle - (middle @ normal) * normal)
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    long = float(np.clip(np.sqrt(values[2] / max(values[1], 1e-12)) / 2 - 1, 0, 1))
    return Handle(outward, offset, share, long * vectors[:, 2])


def _small_pieces(setting: Setting, outward: np.ndarray, pins: Sequence[Pin]) -> np.ndarray:
    """Points [N,3] of small pieces of the part that stick out of its largest one, outwards or beyond its outline."""
    if len(setting.part_pieces) < 2:
        return np.zeros((0, 3))
    largest = setting.part_pieces[0].points
    axes = np.stack([outward, *_sides(setting, outward)])
    low, high = (largest @ axes.T).min(axis=0), (largest @ axes.T).max(axis=0)
    found = []
    for piece, share in zip(setting.part_pieces[1:], setting.part_shares[1:]):
        places = piece.points @ axes.T
        out = places[:, 0] > high[0] + STICKS_OUT
        beside = ((places < low - STICKS_OUT) | (places > high + STICKS_OUT))[:, 1:].any(axis=1)
        level = places[:, 0].mean() > low[0] - STICKS_OUT
        if share > SMALL_PIECE or not (out.any() or (level and beside.any())):
            continue
        if any(pin.holds(piece.points).mean() > 0.5 for pin in pins):
            continue
        found.append(piece.points[: max(1, round(len(piece.points) * share / SMALL_PIECE))])
    return np.concatenate(found) if found else np.zeros((0, 3))
