"""How far a joint goes: to the first collision, and no farther than is usual for its kind of motion."""

from __future__ import annotations

import numpy as np

from dimo_jax.systems.atop.scores import View

_ANGLES = {"hinge": 90.0, "spin": 90.0, "crank": 90.0, "lever": 60.0}  # degrees, where nothing stops it
_ROUND = frozenset(
    ("valve", "wheel", "fan", "propeller", "rotor", "turntable", "roller", "gear", "pulley", "globe", "screw")
)


def find_range(view: View, row: int, side: int, kind: str) -> tuple[float, float]:
    """(low, high) of candidate `row` going the way `side`: radians, or the object's unit of length."""
    e, scale = view.evidence, view.setting.scale
    free = float(e.free[row, side])
    words = set(view.meaning.words)
    if kind == "spin" and words & _ROUND:
        return -2 * np.pi, 2 * np.pi
    if kind in ("spin", "crank") and words & {"faucet", "tap", "spout"}:
        return -np.pi / 2, np.pi / 2
    if kind == "lever" and words & {"trigger", "squeeze", "grip", "pedal"}:
        return 0.0, float(np.deg2rad(20))  # they sink into what holds them, so collisions say nothing
    if kind in _ANGLES:
        usual = np.deg2rad(_ANGLES[kind])
        if free < np.deg2rad(5):  # a collision at once says more about the mesh than about the joint
            return 0.0, usual / 2
        return 0.0, float(min(usual, free))
    length = float(e.length[row])
    if kind == "pull":
        return 0.0, scale * min(0.87 * length, free if free > 0.1 * length else length)
    if kind == "slide":
        return 0.0, scale * min(length, free if free > 0.2 * length else length)
    return 0.0, scale * (min(free, 2.5 * length) if free > 0.2 * length else 0.5 * length)
