"""Which way is up in a recording, by its cameras, and the turn that makes it +Y, on which orbits and exports rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.core.errors import UserError

AXES = {
    f"{sign}{name}": (-1.0 if sign else 1.0) * np.eye(3)[index]
    for sign in ("", "-")
    for index, name in enumerate("xyz")
}
CHOICES = ("auto", *AXES, "cameras")
ACROSS_DEG = 45.0  # from +Y, from where on cameras do not stand upright in the world
NEAR_DEG = 30.0  # of an axis, within which it is taken for what is up
LEVEL_DEG = 10.0  # likewise, where only the tilt of the cameras tells, which may look down
_LEAST_UP = 0.2  # share of the cameras' up directions that must agree
_LEAST_SPREAD = 0.02  # of the cameras' right directions, from where on they fix the vertical


@dataclass(frozen=True)
class Up:
    """The direction in which cameras see up."""

    direction: np.ndarray  # [3] unit
    is_vertical: bool  # square to all of their right vectors; else only the mean of their own up, tilted as they are


@dataclass(frozen=True)
class Turn:
    """A rotation of the world, and one line about it."""

    rotation: np.ndarray  # [3,3] the user's world to +Y up
    said: str  # "" where there is nothing to say


def find_up(poses: np.ndarray) -> Up | None:
    """Where cameras see up; None where they do not agree on a direction.

    People and turntables hold cameras level: their right vectors are horizontal, at any elevation, so that the vertical
    is what is square to all of them. Where those are too much alike, it is the mean of the cameras' own up.

    Args:
      poses: world_to_camera [V,4,4], OpenCV.
    """
    rights, ups = np.asarray(poses[:, 0, :3], np.float64), -np.asarray(poses[:, 1, :3], np.float64)
    mean = ups.mean(axis=0)
    if np.linalg.norm(mean) < _LEAST_UP:
        return None
    mean = mean / np.linalg.norm(mean)
    values, vectors = np.linalg.eigh(np.einsum("va,vb->ab", rights, rights) / len(rights))
    if values[1] < _LEAST_SPREAD or values[0] > 0.1 * values[1]:
        return Up(mean, False)
    vertical = vectors[:, 0] * np.sign(vectors[:, 0] @ mean)
    return Up(vertical, True) if vertical @ mean > 0.1 else Up(mean, False)


def angle_deg(first: np.ndarray, second: np.ndarray) -> float:
    """Degrees between two unit vectors [3]."""
    return float(np.rad2deg(np.arccos(np.clip(first @ second, -1, 1))))


def turn_to_y(up: np.ndarray) -> np.ndarray:
    """The least rotation [3,3] that brings the unit vector `up` [3] to +Y; +Z up becomes (x, z, -y), as in Blender."""
    target = np.array([0.0, 1.0, 0.0])
    cosine = float(up @ target)
    if cosine < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    axis = np.cross(up, target)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation: np.ndarray = np.eye(3) + cross + cross @ cross / (1 + cosine)
    return rotation + 0.0  # no -0


def choose_turn(poses: np.ndarray, up: str, *, where: str) -> Turn:
    """How a recording's world is turned.

    Args:
      poses: world_to_camera [V,4,4] in the user's world.
      up: an axis of `AXES`; "cameras", the direction in which they see up; or "auto": +Y where that is within 45
        degrees of it, else the axis that is within 30, else the direction itself. Where the cameras only tell their own
        tilt (one, or all abreast), "auto" turns level ones alone.
      where: file or flag that asked, for errors.

    Raises:
      UserError: no such choice, or "cameras" that do not agree on a direction.
    """
    if up not in CHOICES:
        raise UserError(f"{where}: found {up[:20]!r}, expected one of {', '.join(CHOICES)}")
    if up in AXES:
        said = "" if up == "y" else f"the world is turned so that its {up} is up (+Y), as asked"
        return Turn(turn_to_y(AXES[up]), said)
    seen = find_up(poses)
    if seen is None and up == "cameras":
        raise UserError(f"{where}: the cameras do not agree on what is up, expected an axis such as y or z")
    if seen is None:
        return Turn(np.eye(3), "")
    target, what = seen.direction, "this"
    if up == "auto":
        name = min(AXES, key=lambda axis: angle_deg(seen.direction, AXES[axis]))
        off = angle_deg(seen.direction, AXES[name])
        if angle_deg(seen.direction, AXES["y"]) <= ACROSS_DEG or (off > LEVEL_DEG and not seen.is_vertical):
            return Turn(np.eye(3), "")
        if off <= NEAR_DEG:
            target, what = AXES[name], f"its {name}"
    said = f"the cameras see up in {format_direction(seen.direction)}: the world is turned so that {what} is up (+Y)"
    return Turn(turn_to_y(target), said + ("; --up=y leaves it" if up == "auto" else ""))


def note_upright(poses: np.ndarray, names: list[str]) -> list[str]:
    """Notes cameras whose up is across the world's +Y, and single ones that are rolled against the others.

    Args:
      poses: world_to_camera [V,4,4].
      names: of the V views.
    """
    seen = find_up(poses)
    if seen is None:
        return [f"the cameras of {_some(names)} do not agree on what is up, expected the world's +Y"]
    notes = []
    if angle_deg(seen.direction, AXES["y"]) > ACROSS_DEG:
        notes.append(
            f"the cameras of {_some(names)} see up in {format_direction(seen.direction)}, across the world's "
            "(0, 1, 0), which orbits and exports take for up"
        )
    for index, (name, pose) in enumerate(zip(names, np.asarray(poses, np.float64))):
        others = find_up(np.delete(poses, index, axis=0)) if len(names) > 3 else None
        if others is None or not others.is_vertical or np.abs(pose[2, :3] @ others.direction) > 0.9:
            continue
        # Their right vector and their up against the vertical: level cameras have 0 and something positive.
        roll = np.rad2deg(np.arctan2(pose[0, :3] @ others.direction, -pose[1, :3] @ others.direction))
        if abs(roll) > NEAR_DEG:
            notes.append(f"view {name}: its camera is rolled by {abs(roll):.0f} degrees against the others' up")
    return notes


def format_direction(direction: np.ndarray) -> str:
    """Such as "(0, 0, 1)", to two digits."""
    return "(" + ", ".join(f"{x:.2g}" for x in np.round(direction, 2) + 0.0) + ")"


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
