"""The embedded character's motions: families of curves over time, one function each.

Every function takes `u`, [T] in 0..1 from the first frame to the last, and options, and returns channel curves of
`body.pose`: degrees relative to the rest pose (body units for root.x, root.z and root.lift). All curves are 0
at u = 0, so every motion starts from the same pose.
"""

from __future__ import annotations

import numpy as np

Curves = dict[str, np.ndarray]

SIGN = {"left": 1.0, "right": -1.0}
OTHER = {"left": "right", "right": "left"}
BOTH = ("left", "right")


def ramp(u: np.ndarray, start: float, end: float) -> np.ndarray:
    """Smooth step from 0 at `start` to 1 at `end`."""
    x = np.clip((u - start) / (end - start), 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def hold(u: np.ndarray, up: float, high: float, down: float, low: float) -> np.ndarray:
    """Rises from `up` to `high`, stays at 1, falls from `down` to `low`."""
    return ramp(u, up, high) * (1.0 - ramp(u, down, low))


def swing(u: np.ndarray, cycles: float, start: float = 0.0, end: float = 1.0) -> np.ndarray:
    """A sine of `cycles` periods between `start` and `end`, 0 outside."""
    return np.sin(2 * np.pi * cycles * np.clip((u - start) / (end - start), 0.0, 1.0))


def pulse(u: np.ndarray, cycles: float, start: float = 0.0, end: float = 1.0) -> np.ndarray:
    """`cycles` smooth rises from 0 to 1 and back between `start` and `end`."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * cycles * np.clip((u - start) / (end - start), 0.0, 1.0))


def _above(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0) ** 1.5


def _merge(*parts: Curves) -> Curves:
    """Adds curves channel by channel."""
    total: Curves = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
    return total


def _crouch(amount: np.ndarray) -> Curves:
    """Both feet flat, knees bent by twice `amount` degrees."""
    curves: Curves = {"spine.flex": 0.35 * amount}
    for side in BOTH:
        curves |= {f"{side}_hip.flex": amount, f"{side}_knee.flex": 2 * amount, f"{side}_ankle.flex": amount}
    return curves


def wave(u: np.ndarray, *, sides: tuple[str, ...], cycles: float = 3.0) -> Curves:
    """Forearms up beside the head, swinging sideways."""
    up = hold(u, 0.0, 0.25, 0.8, 1.0)
    curves: Curves = {}
    for side in sides:
        curves[f"{side}_shoulder.abduct"] = 88 * up
        curves[f"{side}_elbow.abduct"] = up * (58 + 38 * swing(u, cycles, 0.2, 0.85))
    return curves


def raise_arms(u: np.ndarray, *, sides: tuple[str, ...], forward: float = 0.0, outward: float = 0.0) -> Curves:
    """Straight arms up to an angle from hanging, through the front or the side, and down again."""
    up = hold(u, 0.0, 0.4, 0.6, 1.0)
    curves: Curves = {}
    for side in sides:
        curves[f"{side}_shoulder.flex"] = forward * up
        curves[f"{side}_shoulder.abduct"] = outward * up
        curves[f"{side}_elbow.flex"] = -12 * up
    return curves


def head(u: np.ndarray, *, axis: str, amplitude: float, cycles: float, spine: float = 0.0) -> Curves:
    """The head swings about one axis, the chest a little with it."""
    turn = hold(u, 0.0, 0.12, 0.85, 1.0) * swing(u, cycles)
    return {f"neck.{axis}": amplitude * turn, f"spine.{axis}": spine * turn}


def bow(u: np.ndarray, *, depth: float) -> Curves:
    """Bends forward at the waist and, beyond 50 degrees, at the hips, legs straight."""
    down = hold(u, 0.05, 0.4, 0.6, 0.95)
    waist, hips = min(depth, 50.0), max(depth - 50.0, 0.0)
    curves = {"spine.flex": waist * down, "root.flex": hips * down, "neck.flex": 18 * down, "root.z": -0.08 * down}
    for side in BOTH:
        curves |= {f"{side}_hip.flex": (hips - 8) * down, f"{side}_shoulder.flex": 0.6 * depth * down}
        curves[f"{side}_ankle.flex"] = -8 * down
    return curves


def squat(u: np.ndarray, *, depth: float, cycles: float, arms: float) -> Curves:
    """Bends both knees, feet flat, arms forward."""
    down = pulse(u, cycles, 0.0, 0.95)
    return _merge(_crouch(depth * down), {f"{side}_shoulder.flex": arms * down for side in BOTH})


def kick(u: np.ndarray, *, side: str, height: float, sideways: bool = False) -> Curves:
    """One leg swings up, forward after a backswing or straight to the side, the arms balancing."""
    back, up = hold(u, 0.0, 0.2, 0.25, 0.45), hold(u, 0.28, 0.5, 0.58, 0.9)
    other = OTHER[side]
    if sideways:
        bend = hold(u, 0.0, 0.22, 0.3, 0.48)
        return {
            f"{side}_hip.abduct": height * up, f"{side}_hip.flex": 60 * bend, f"{side}_knee.flex": 85 * bend,
            "spine.abduct": -SIGN[side] * 24 * up, f"{other}_shoulder.abduct": 55 * up,
            f"{side}_elbow.flex": 80 * up, f"{side}_shoulder.abduct": 20 * up,
        }  # fmt: skip
    return {
        f"{side}_hip.flex": height * up - 35 * back, f"{side}_knee.flex": 65 * back, "spine.flex": -14 * up,
        f"{side}_shoulder.flex": 30 * back - 40 * up, f"{other}_shoulder.flex": 60 * up,
        f"{side}_shoulder.abduct": 25 * up, f"{other}_shoulder.abduct": 15 * up,
    }  # fmt: skip


def jump(u: np.ndarray, *, height: float, arms: float = 0.0, spread: float = 0.0, tuck: float = 0.0) -> Curves:
    """Crouches, leaps and lands; in the air the arms rise, the limbs spread or the knees tuck."""
    crouch = hold(u, 0.0, 0.2, 0.24, 0.34) + 0.8 * hold(u, 0.64, 0.74, 0.8, 1.0)
    x = np.clip((u - 0.3) / 0.38, 0.0, 1.0)
    air = hold(u, 0.28, 0.45, 0.52, 0.7)
    curves: Curves = {"root.lift": 4 * height * x * (1 - x)}
    for side in BOTH:
        curves[f"{side}_shoulder.flex"] = -45 * crouch + arms * air
        curves[f"{side}_shoulder.abduct"] = 1.15 * spread * air
        curves[f"{side}_hip.abduct"] = 0.36 * spread * air
        curves[f"{side}_hip.flex"] = tuck * air
        curves[f"{side}_knee.flex"] = (1.4 * tuck + (0 if spread else 15)) * air
        curves[f"{side}_ankle.flex"] = -30 * air
    return _merge(_crouch(45 * crouch), curves)


def jumping_jack(u: np.ndarray, *, cycles: float) -> Curves:
    """Legs and arms open and close together with small hops."""
    open_ = pulse(u, cycles)
    curves: Curves = {"root.lift": 0.05 * np.abs(swing(u, cycles)) ** 2}
    for side in BOTH:
        curves |= {f"{side}_shoulder.abduct": 148 * open_, f"{side}_hip.abduct": 27 * open_}
    return curves


def step(
    u: np.ndarray, *, cycles: float, thigh: float, knee: float, arms: float, elbow: float = 10.0, lean: float = 0.0,
    lift: float = 0.0, back: float = 0.0, crouch: float = 0.0, reach: float = 0.0,
) -> Curves:  # fmt: skip
    """Steps in place: walk, march, run, sneak and zombie walk differ in these amplitudes.

    `thigh` lifts the leg forward, `back` carries it behind, `knee` bends it while it is lifted, `arms` swing against
    the legs, `reach` holds them forward.
    """
    on = hold(u, 0.0, 0.12, 0.9, 1.0)
    phase = swing(u, cycles)
    curves: Curves = {"spine.flex": lean * on, "root.lift": lift * on * phase**2}
    for side in BOTH:
        forward = SIGN[side] * phase
        curves[f"{side}_hip.flex"] = on * (thigh * _above(forward) - back * _above(-forward))
        curves[f"{side}_knee.flex"] = on * (knee * _above(forward) + 0.35 * knee * (back > 0) * _above(-forward))
        curves[f"{side}_shoulder.flex"] = on * (reach - arms * forward)
        curves[f"{side}_elbow.flex"] = on * elbow
    return _merge(curves, _crouch(crouch * on))


def punch(u: np.ndarray, *, sides: tuple[str, ...], upward: bool = False) -> Curves:
    """Fists up in guard, then each side strikes in turn, forward or upward."""
    guard = hold(u, 0.0, 0.2, 0.85, 1.0)
    curves: Curves = {"spine.twist": np.zeros_like(u)}
    for side in BOTH:
        curves[f"{side}_shoulder.flex"] = 38 * guard
        curves[f"{side}_elbow.flex"] = 112 * guard
    width = 0.65 / len(sides)
    for index, side in enumerate(sides):
        start = 0.2 + index * width
        out = hold(u, start, start + 0.35 * width, start + 0.5 * width, start + width)
        curves[f"{side}_shoulder.flex"] = curves[f"{side}_shoulder.flex"] + (105 if upward else 50) * out
        curves[f"{side}_elbow.flex"] = curves[f"{side}_elbow.flex"] - (70 if upward else 120) * out
        curves["spine.twist"] = curves["spine.twist"] - SIGN[side] * 28 * out
    return curves


def clap(u: np.ndarray, *, cycles: float, overhead: bool = False) -> Curves:
    """Hands meet again and again, before the chest or above the head."""
    up = hold(u, 0.0, 0.2, 0.85, 1.0)
    apart = pulse(u, cycles, 0.2, 0.85)
    curves: Curves = {}
    for side in BOTH:
        if overhead:
            curves[f"{side}_shoulder.abduct"] = up * (156 - 50 * apart)
        else:
            curves[f"{side}_shoulder.flex"] = 72 * up
            curves[f"{side}_shoulder.abduct"] = up * (-38 + 60 * apart)
            curves[f"{side}_elbow.flex"] = 14 * up
    return curves


def turn(u: np.ndarray, *, degrees: float) -> Curves:
    """Turns the whole body on the spot with small steps; positive is to its left."""
    steps = hold(u, 0.0, 0.1, 0.85, 1.0) * swing(u, 2.0)
    curves: Curves = {"root.twist": degrees * ramp(u, 0.0, 0.95)}
    for side in BOTH:
        lifted = _above(SIGN[side] * steps)
        curves |= {f"{side}_hip.flex": 28 * lifted, f"{side}_knee.flex": 50 * lifted}
        curves[f"{side}_shoulder.abduct"] = 22 * hold(u, 0.0, 0.3, 0.6, 1.0)
    return curves


def lean(u: np.ndarray, *, side: str) -> Curves:
    """Bends sideways with the far arm over the head and the near one down the leg."""
    over = hold(u, 0.0, 0.4, 0.6, 1.0)
    return {
        "spine.abduct": SIGN[side] * 38 * over, "neck.abduct": SIGN[side] * 14 * over,
        f"{OTHER[side]}_shoulder.abduct": 150 * over, f"{side}_shoulder.abduct": -6 * over,
        "root.x": -SIGN[side] * 0.05 * over,
    }  # fmt: skip


def twist(u: np.ndarray, *, cycles: float) -> Curves:
    """Arms out to the sides, the chest turns left and right."""
    out = hold(u, 0.0, 0.2, 0.82, 1.0)
    curves = {f"{side}_shoulder.abduct": 76 * out for side in BOTH}
    return curves | {"spine.twist": 58 * out * swing(u, cycles, 0.1, 0.95)}


def sit(u: np.ndarray, *, floor: bool) -> Curves:
    """Sits down and stays: on an unseen chair, or on the floor with the legs forward."""
    down = ramp(u, 0.05, 0.7)
    curves: Curves = {"root.z": (-0.12 if floor else -0.06) * down, "spine.flex": 30 * hold(u, 0.05, 0.35, 0.4, 0.75)}
    for side in BOTH:
        curves[f"{side}_hip.flex"] = (92 if floor else 88) * down
        curves[f"{side}_knee.flex"] = (12 if floor else 90) * down + (60 if floor else 0) * hold(u, 0.05, 0.3, 0.4, 0.7)
        curves[f"{side}_hip.abduct"] = (16 if floor else 5) * down
        curves[f"{side}_shoulder.flex"] = (-25 if floor else 32) * down
        curves[f"{side}_elbow.flex"] = (0 if floor else 42) * down
    return curves


def kneel(u: np.ndarray, *, knees: tuple[str, ...]) -> Curves:
    """Goes down on one knee, the other foot flat before it, or on both, and stays."""
    down = ramp(u, 0.05, 0.75)
    curves: Curves = {"spine.flex": 20 * hold(u, 0.05, 0.4, 0.5, 0.85)}
    for side in BOTH:
        if side in knees:
            curves |= {f"{side}_knee.flex": 96 * down, f"{side}_ankle.flex": -55 * down}
        else:
            curves |= {f"{side}_hip.flex": 88 * down, f"{side}_knee.flex": 88 * down}
            curves |= {f"{side}_shoulder.flex": 45 * down, f"{side}_elbow.flex": 35 * down}
    return curves


def gesture(
    u: np.ndarray, *, sides: tuple[str, ...], flex: float = 0.0, abduct: float = 0.0, elbow: float = 0.0,
    elbow_abduct: float = 0.0, beat: float = 0.0, cycles: float = 0.0, look: float = 0.0, nod: float = 0.0,
) -> Curves:  # fmt: skip
    """The hands go to a place, stay or beat there, and return: salute, point, drink, hands on hips, folded arms."""
    on = hold(u, 0.0, 0.3, 0.75, 1.0)
    beating = beat * swing(u, cycles, 0.25, 0.8) if cycles else 0.0
    curves: Curves = {"neck.twist": look * on, "neck.flex": nod * on}
    for side in sides:
        curves |= {f"{side}_shoulder.flex": flex * on, f"{side}_shoulder.abduct": abduct * on}
        curves |= {f"{side}_elbow.flex": on * (elbow + beating), f"{side}_elbow.abduct": elbow_abduct * on}
    return curves


def stretch(u: np.ndarray) -> Curves:
    """Reaches up with both arms on tiptoe, leaning back."""
    up = hold(u, 0.05, 0.45, 0.65, 1.0)
    curves: Curves = {"spine.flex": -13 * up, "neck.flex": -18 * up}
    for side in BOTH:
        curves |= {f"{side}_shoulder.abduct": 148 * up, f"{side}_ankle.flex": -42 * up, f"{side}_elbow.flex": -12 * up}
    return curves


def cheer(u: np.ndarray, *, cycles: float, bounce: float, sides: tuple[str, ...] = BOTH) -> Curves:
    """Pumps raised fists, bouncing."""
    up = hold(u, 0.0, 0.2, 0.85, 1.0)
    beat = pulse(u, cycles, 0.15, 0.9)
    curves: Curves = {"root.lift": bounce * up * beat, "neck.flex": -12 * up}
    for side in sides:
        curves |= {f"{side}_shoulder.abduct": up * (100 + 38 * beat), f"{side}_elbow.abduct": up * (48 - 40 * beat)}
    for side in BOTH:
        curves |= {f"{side}_hip.abduct": 9 * up, f"{side}_knee.flex": 0.0 * up}
    return _merge(curves, _crouch(20 * up * (1 - beat)))
