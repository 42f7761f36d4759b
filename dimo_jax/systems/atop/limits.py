"""How far a joint goes: to the first collision, and no farther than is usual for its kind of motion."""

from __future__ import annotations

import numpy as np

from dimo_jax.systems.atop.scores import View

_ANGLES = {"hinge": 90.0, "spin": 90.0, "crank": 90.0, "lever": 90.0}  # degrees, where nothing stops it
_TOGGLE = 40.0  # degrees from one side to the other, of a switch that does not lean
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
    if kind == "lever" and words & {"switch", "toggle", "rocker", "breaker"}:
        return 0.0, _across(view, row, float(np.deg2rad(_TOGGLE)))
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


def _across(view: View, row: int, usual: float) -> float:
    """The turn that brings a stick which leans out of its surface to its mirror image on the other side."""
    axis, stick = view.evidence.axes[row], view.setting.principal[0]
    flat = [each - (each @ axis) * axis for each in (stick, view.setting.contact_normal)]
    sizes = [float(np.linalg.norm(each)) for each in flat]
    if min(sizes) < 0.5:
        return usual
    lean = float(np.arccos(min(1.0, abs(flat[0] @ flat[1]) / (sizes[0] * sizes[1]))))
    return 2 * lean if np.deg2rad(8) < lean < np.deg2rad(45) else usual
