"""Candidate joints of a part, from its shape and its contact with the body: one list, each with its source.

The paper (Sec. 4.3) takes the smallest box of the part: 7 origins (its middle and the middles of its faces) with its 6
signed axes. Real hinges lie along edges, in posts and at contacts, so here directions come from boxes, face frames,
principal axes and surfaces of revolution of part and body, and places from the edges of boxes, circles and contact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE, JointType
from dimo_jax.meshes.boxes import frame_around
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.meshes.revolution import fit_center, fit_revolution
from dimo_jax.meshes.symmetry import find_mirrors
from dimo_jax.systems.atop.setting import Setting, make_setting

SAME_DIRECTION = np.cos(np.deg2rad(1.5))
SAME_PLACE = 0.008  # of the diagonal
BOXY = 0.6  # share of a part's surface along one frame, from where it is like a box
LEAST_CONTACT = 50  # points that tell a mirror plane
ROUND = 0.12  # largest residual of what counts as a surface of revolution


@dataclass(frozen=True)
class Candidate:
    """A joint that is possible: its line, not yet which way is positive nor how far it goes."""

    type: JointType
    axis: np.ndarray  # [3] unit
    origin: np.ndarray  # [3]
    source: str  # what proposed it


def candidates(body: ObjectMesh, part: ObjectMesh, up: np.ndarray | None = None) -> list[Candidate]:
    """All candidates in the coordinates of the meshes, each line once.

    Args:
      body: what stands still.
      part: what moves, at rest.
      up: [3] the direction against gravity, where it is known.

    Raises:
      UserError: body or part has no area or numbers that are not finite.
    """
    setting = make_setting(body, part, up)
    return [
        Candidate(each.type, each.axis, setting.center + setting.scale * each.origin, each.source)
        for each in propose(setting)
    ]


def propose(setting: Setting) -> list[Candidate]:
    """The candidates in the normalized frame."""
    directions = find_directions(setting)
    found = [Candidate(PRISMATIC, axis, setting.part_center, source) for axis, source in directions]
    for axis, source in directions:
        places: list[np.ndarray] = []
        for origin, place in _places(setting, axis):
            foot = origin + axis * ((setting.part_center - origin) @ axis)
            if all(np.linalg.norm(foot - known) > SAME_PLACE for known in places):
                places.append(foot)
                found.append(Candidate(REVOLUTE, axis, foot, f"{source}, {place}"))
    for axis, origin, source in _own_axes(setting):
        foot = origin + axis * ((setting.part_center - origin) @ axis)
        same = (
            abs(axis @ known.axis) > SAME_DIRECTION and np.linalg.norm(foot - known.origin) < SAME_PLACE
            for known in found
            if known.type == REVOLUTE
        )
        if not any(same):
            found.append(Candidate(REVOLUTE, axis, foot, source))
    return found


def find_directions(setting: Setting) -> list[tuple[np.ndarray, str]]:
    """Directions that axes may have, each once, the more exact sources first."""
    found: list[tuple[np.ndarray, str]] = []

    def add(axes: np.ndarray, source: str) -> None:
        for axis in np.atleast_2d(axes):
            if all(abs(axis @ known) < SAME_DIRECTION for known, _ in found):
                found.append((axis, source))

    if setting.up is not None:
        add(setting.up, "up")
    frames = [(setting.part_frame, setting.part_share, "faces of the part")]
    frames.append((setting.frame, setting.frame_share, "faces of the body"))
    for frame, share, source in frames:
        if share > 0.35:
            add(frame, source)
    add(setting.box.axes, "box of the part")
    if not found or min(setting.part_share, setting.frame_share) < 0.6:
        add(setting.principal, "principal axes of the part")
        for frame, _, source in frames:
            add(frame, source)
    for axis, _, source in _own_axes(setting):
        add(axis, source)
    if setting.part_share < BOXY:  # boxes have their mirrors along their faces
        for points, source in (
            (setting.part.points, "mirror of the part"),
            (setting.body.points, "mirror of the body"),
        ):
            normals = [mirror.normal for mirror in find_mirrors(points)]
            if normals:
                add(np.array(normals), source)
        if len(setting.contact) > LEAST_CONTACT:  # what holds a part is often alike on either side of it
            for mirror in find_mirrors(setting.contact, between=True)[:1]:
                add(mirror.normal, "mirror of the contact")
    if setting.up is not None:
        level = [np.cross(setting.up, axis) for axis, _ in found if 0.2 < abs(axis @ setting.up) < 0.98]
        for axis in level[:4]:
            add(axis / np.linalg.norm(axis), "level")
    return found


def _own_axes(setting: Setting) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Axes of pieces of part and body that are surfaces of revolution."""
    for pieces, source in (
        (setting.part_pieces, "round piece of the part"),
        (setting.body_pieces, "round piece of the body"),
    ):
        for piece in pieces:
            fitted = fit_revolution(piece.points, piece.normals)
            if fitted is not None and fitted.residual < ROUND:
                yield fitted.axis, fitted.origin, source


def _places(setting: Setting, axis: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Points that a line along `axis` may go through, each with its source."""
    points = setting.part.points
    across = _across(setting, axis)
    for pieces, source in ((setting.part_pieces, "part"), (setting.body_pieces, "body")):
        for piece in pieces:
            fitted = fit_center(piece.points, piece.normals, axis)
            if fitted is not None and fitted.residual < 2 * ROUND:
                yield fitted.origin, f"circle of the {source}"
    yield from _of_rectangle(points, across, "box")
    slab = _slab(setting)
    if slab.sum() > 50 and slab.mean() < 0.97:
        yield from _of_rectangle(points[slab], across, "panel")
    whole = fit_center(points, setting.part.normals, axis)
    if whole is not None:
        yield whole.origin, "circle of the whole part"
    yield points.mean(axis=0), "centroid"
    yield setting.root, "root"
    contact = setting.contact
    if len(contact) > 3:
        yield contact.mean(axis=0), "contact"
        yield from _of_rectangle(contact, across, "contact")
    if setting.part_share < BOXY:  # panels hang at their edges; else an axle lies inside the end that it holds
        for side in (across[0], -across[0], across[1], -across[1]):
            yield points[np.argsort(-(points @ side))[: len(points) // 10]].mean(axis=0), "end of the part"


def _across(setting: Setting, axis: np.ndarray) -> np.ndarray:
    """Two directions [2,3] across the axis, along the sides of the part where it has any."""
    for frame in (setting.part_frame, setting.box.axes, setting.frame):
        along = np.abs(frame @ axis)
        if along.max() > 0.999:
            return np.delete(frame, along.argmax(), axis=0)
    best = setting.box.axes[np.abs(setting.box.axes @ axis).argmin()]
    first = best - (best @ axis) * axis
    if np.linalg.norm(first) < 1e-6:
        return frame_around(axis)[:2]
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(axis, first)])


def _of_rectangle(points: np.ndarray, across: np.ndarray, source: str) -> Iterator[tuple[np.ndarray, str]]:
    """Middle, middles of the sides and corners of the rectangle around points in the plane of `across`."""
    flat = points @ across.T
    low, high = flat.min(axis=0), flat.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    along = points.mean(axis=0)
    for x in (0, -1, 1):
        for y in (0, -1, 1):
            name = ("middle", "side", "edge")[abs(x) + abs(y)]
            offset = middle + half * np.array([x, y]) - along @ across.T
            yield along + offset @ across, f"{name} of the {source}"


def panel_of(setting: Setting) -> tuple[np.ndarray, float, float]:
    """The largest flat layer of the part: its normal [3], and the lowest and highest place along it."""
    points, normals = setting.part.points, setting.part.normals
    thin = setting.part_frame[np.abs(normals @ setting.part_frame.T).sum(axis=0).argmax()]
    height = points @ thin
    facing = np.abs(normals @ thin) > 0.98
    if facing.sum() < 30:
        return thin, float(height.min()), float(height.max())
    order = np.sort(height[facing])
    width = max(0.02, 0.08 * float(np.ptp(height)))
    counts = np.searchsorted(order, order + width) - np.arange(len(order))
    low = float(order[counts.argmax()])
    return thin, low - 1e-3, low + width + 1e-3


def _slab(setting: Setting) -> np.ndarray:
    """[N] bool: the samples of the part in its largest flat layer: the panel without its handle."""
    thin, low, high = panel_of(setting)
    height = setting.part.points @ thin
    return (height >= low) & (height <= high)
