"""More of the embedded character's motions: dances, sports, falls and whole-body moves; see `motions`."""

from __future__ import annotations

import numpy as np

from dimo_jax.data.puppet.motions import BOTH, OTHER, SIGN, Curves, _above, _crouch, _merge, hold, pulse, ramp, swing


def sway(u: np.ndarray, *, cycles: float) -> Curves:
    """Dances with swaying hips, the arms bent and following."""
    on = hold(u, 0.0, 0.12, 0.9, 1.0)
    side_to_side = on * swing(u, cycles)
    curves: Curves = {
        "root.abduct": 17 * side_to_side, "spine.abduct": -32 * side_to_side, "root.x": 0.06 * side_to_side,
        "neck.abduct": 18 * side_to_side, "root.twist": 14 * side_to_side,
    }  # fmt: skip
    for side in BOTH:
        curves[f"{side}_hip.abduct"] = SIGN[side] * 17 * side_to_side
        curves[f"{side}_shoulder.abduct"] = on * 34 + SIGN[side] * 22 * side_to_side
        curves[f"{side}_elbow.flex"] = on * 85
    return curves


def disco(u: np.ndarray, *, side: str, cycles: float) -> Curves:
    """One hand points up and out, then down across the body, in turn; the other rests on the hip."""
    on = hold(u, 0.0, 0.15, 0.88, 1.0)
    up = pulse(u, cycles, 0.0, 0.92)
    other = OTHER[side]
    return {
        f"{side}_shoulder.abduct": on * (-30 + 150 * up), f"{side}_shoulder.flex": on * (45 - 35 * up),
        f"{other}_shoulder.abduct": 38 * on, f"{other}_elbow.abduct": -92 * on,
        "spine.twist": SIGN[side] * on * (36 * up - 18), "root.abduct": -SIGN[side] * on * 6 * up,
        f"{side}_hip.abduct": 12 * on, f"{other}_hip.abduct": 10 * on, f"{side}_knee.flex": 18 * on * (1 - up),
    }  # fmt: skip


def robot(u: np.ndarray, *, cycles: float) -> Curves:
    """Upper arms out, forearms at right angles flipping up and down against each other."""
    on = hold(u, 0.0, 0.18, 0.85, 1.0)
    phase = np.tanh(2.2 * swing(u, cycles, 0.15, 0.9))
    curves: Curves = {"neck.twist": 28 * on * phase}
    for side in BOTH:
        curves[f"{side}_shoulder.abduct"] = 72 * on
        curves[f"{side}_elbow.abduct"] = on * SIGN[side] * 84 * phase
        curves[f"{side}_elbow.flex"] = -8 * on
    return curves


def twist_dance(u: np.ndarray, *, cycles: float) -> Curves:
    """Bent knees; hips and shoulders turn against each other."""
    on = hold(u, 0.0, 0.15, 0.88, 1.0)
    phase = on * swing(u, cycles)
    curves: Curves = {"root.twist": 36 * phase, "spine.twist": -62 * phase}
    for side in BOTH:
        curves |= {f"{side}_shoulder.abduct": 18 * on, f"{side}_elbow.flex": 80 * on}
        curves[f"{side}_shoulder.flex"] = 15 * on
    return _merge(curves, _crouch(24 * on + 8 * np.abs(phase)))


def cancan(u: np.ndarray, *, cycles: float) -> Curves:
    """Kicks the straight legs high in turn, arms out."""
    on = hold(u, 0.0, 0.15, 0.9, 1.0)
    phase = on * swing(u, cycles)
    curves: Curves = {"spine.flex": -8 * on}
    for side in BOTH:
        curves |= {f"{side}_hip.flex": 88 * _above(SIGN[side] * phase), f"{side}_shoulder.abduct": 62 * on}
    return curves


def fall(u: np.ndarray, *, forward: bool) -> Curves:
    """Tips over, buckles and lies on the back or the face."""
    down, buckle = ramp(u, 0.1, 0.8), hold(u, 0.0, 0.3, 0.5, 0.9)
    curves: Curves = {"root.flex": (84 if forward else -86) * down, "root.z": (-0.05 if forward else 0.12) * down}
    curves["neck.flex"] = (-16 if forward else 18) * hold(u, 0.1, 0.5, 0.6, 1.0)
    for side in BOTH:
        curves[f"{side}_hip.flex"] = (10 if forward else 40) * buckle
        curves[f"{side}_knee.flex"] = 55 * buckle + (48 if forward else 0) * ramp(u, 0.55, 0.95)
        curves[f"{side}_shoulder.abduct"] = (20 if forward else 55) * down
        curves[f"{side}_shoulder.flex"] = (70 if forward else 30) * buckle
    return curves


def collapse(u: np.ndarray, *, side: str) -> Curves:
    """Sinks to the knees and lies down on one side, curled up."""
    sink, over = ramp(u, 0.0, 0.55), ramp(u, 0.3, 0.85)
    curves: Curves = {"root.abduct": SIGN[side] * 84 * over, "spine.flex": 25 * sink, "neck.flex": 15 * sink}
    curves["root.x"] = -SIGN[side] * 0.12 * over
    for each in BOTH:
        curves |= {f"{each}_hip.flex": 50 * sink, f"{each}_knee.flex": 90 * sink, f"{each}_shoulder.flex": 50 * sink}
    return curves


def arm_circles(u: np.ndarray, *, sides: tuple[str, ...], turns: float) -> Curves:
    """Straight arms turn about the shoulders; positive turns rise in front."""
    curves: Curves = {}
    for side in sides:
        curves[f"{side}_shoulder.flex"] = 360 * turns * ramp(u, -0.12, 1.12) - 360 * turns * ramp(
            u[:1] * 0, -0.12, 1.12
        )
        curves[f"{side}_shoulder.abduct"] = 12 * hold(u, 0.0, 0.2, 0.8, 1.0)
        curves[f"{side}_elbow.flex"] = -12 * hold(u, 0.0, 0.2, 0.8, 1.0)
    return curves


def shrug(u: np.ndarray, *, cycles: float) -> Curves:
    """Lifts the shoulders, palms out."""
    up = pulse(u, cycles, 0.0, 0.95)
    curves: Curves = {"neck.abduct": 14 * up}
    for side in BOTH:
        curves |= {f"{side}_clavicle.abduct": 26 * up, f"{side}_shoulder.abduct": 18 * up}
        curves |= {f"{side}_elbow.flex": 75 * up, f"{side}_elbow.abduct": 45 * up}
    return curves


def step_aside(u: np.ndarray, *, side: str) -> Curves:
    """Takes a wide step to one side and draws the other foot after."""
    lead, trail = hold(u, 0.0, 0.35, 0.5, 0.85), hold(u, 0.15, 0.5, 0.55, 0.9)
    other = OTHER[side]
    curves = {
        "root.x": SIGN[side] * 0.2 * ramp(u, 0.05, 0.85), f"{side}_hip.abduct": 32 * lead,
        f"{other}_hip.abduct": 26 * trail, f"{side}_knee.flex": 40 * hold(u, 0.0, 0.18, 0.22, 0.42),
        f"{side}_hip.flex": 28 * hold(u, 0.0, 0.18, 0.22, 0.42),
        f"{other}_knee.flex": 45 * hold(u, 0.5, 0.68, 0.72, 0.95),
        f"{other}_hip.flex": 30 * hold(u, 0.5, 0.68, 0.72, 0.95), "spine.abduct": -SIGN[side] * 8 * lead,
    }  # fmt: skip
    return curves | {f"{each}_shoulder.abduct": 35 * lead for each in BOTH}


def hop(u: np.ndarray, *, side: str, cycles: int) -> Curves:
    """Hops on one foot, the other tucked behind."""
    on = hold(u, 0.0, 0.2, 0.88, 1.0)
    x = np.clip((u - 0.2) / 0.65, 0.0, 1.0) * cycles % 1.0
    air = np.where((u > 0.2) & (u < 0.85), 4 * x * (1 - x), 0.0)
    other, low = OTHER[side], 18 * on * (1 - air)
    curves: Curves = {"root.lift": 0.1 * air, f"{other}_knee.flex": 98 * on, f"{other}_hip.flex": 22 * on}
    curves |= {f"{side}_hip.flex": low, f"{side}_knee.flex": 2 * low, f"{side}_ankle.flex": low - 25 * air * on}
    return curves | {f"{each}_shoulder.abduct": on * (45 + 18 * air) for each in BOTH}


def balance(u: np.ndarray, *, side: str, tree: bool) -> Curves:
    """Stands on one leg: a tree pose with the hands overhead, or an aeroplane leaning forward."""
    on = hold(u, 0.0, 0.4, 0.7, 1.0)
    other = OTHER[side]
    if tree:
        curves = {f"{other}_hip.abduct": 52 * on, f"{other}_knee.abduct": -118 * on, "root.x": 0.0 * on}
        return curves | {f"{each}_shoulder.abduct": 158 * on for each in BOTH}
    curves = {"root.flex": 66 * on, f"{side}_hip.flex": 66 * on, "neck.flex": -30 * on, "root.z": -0.08 * on}
    return curves | {f"{each}_shoulder.abduct": 76 * on for each in BOTH}


def lunge(u: np.ndarray, *, side: str) -> Curves:
    """A long step forward with one leg, knee bent, hands to the hips."""
    on = hold(u, 0.05, 0.42, 0.62, 1.0)
    other = OTHER[side]
    curves = {
        f"{side}_hip.flex": 68 * on, f"{side}_knee.flex": 72 * on, f"{side}_ankle.flex": 4 * on,
        f"{other}_hip.flex": -42 * on, f"{other}_knee.flex": 28 * on, f"{other}_ankle.flex": -20 * on,
        "root.z": -0.02 * on,
    }  # fmt: skip
    for each in BOTH:
        curves |= {f"{each}_shoulder.abduct": 36 * on, f"{each}_elbow.abduct": -92 * on}
    return curves


def throw(u: np.ndarray, *, side: str) -> Curves:
    """Draws one arm back behind the head and hurls it forward, stepping into it."""
    wind, fling = hold(u, 0.0, 0.32, 0.38, 0.64), hold(u, 0.38, 0.64, 0.7, 1.0)
    lifted = hold(u, 0.1, 0.35, 0.42, 0.6)
    other = OTHER[side]
    return {
        f"{side}_shoulder.abduct": 92 * wind - 10 * fling, f"{side}_shoulder.flex": -35 * wind + 75 * fling,
        f"{side}_elbow.flex": 30 * wind, f"{side}_elbow.abduct": 85 * wind, "spine.flex": -8 * wind + 28 * fling,
        "spine.twist": SIGN[side] * (42 * wind - 38 * fling), f"{other}_shoulder.flex": 70 * wind - 25 * fling,
        f"{other}_hip.flex": 55 * lifted + 22 * fling, f"{other}_knee.flex": 60 * lifted,
        f"{side}_hip.flex": -22 * fling,
    }  # fmt: skip


def flap(u: np.ndarray, *, cycles: float) -> Curves:
    """Beats both arms like wings."""
    on = hold(u, 0.0, 0.15, 0.88, 1.0)
    beat = swing(u, cycles, 0.0, 0.95)
    curves: Curves = {"root.lift": 0.03 * on * pulse(u, cycles)}
    for side in BOTH:
        curves |= {f"{side}_shoulder.abduct": on * (72 + 58 * beat), f"{side}_elbow.abduct": -22 * on * beat}
    return curves


def flex_muscles(u: np.ndarray, *, cycles: float) -> Curves:
    """Shows both biceps, arms out and forearms up, pumping."""
    on = hold(u, 0.0, 0.3, 0.8, 1.0)
    beat = pulse(u, cycles, 0.25, 0.85)
    curves: Curves = {"spine.flex": -7 * on}
    for side in BOTH:
        curves |= {f"{side}_shoulder.abduct": on * (74 - 12 * beat), f"{side}_elbow.abduct": on * (78 + 42 * beat)}
        curves[f"{side}_hip.abduct"] = 14 * on
    return curves


def push(u: np.ndarray, *, pull: bool) -> Curves:
    """Both hands shove forward from the chest with a bent front knee, or haul back towards it."""
    on, out = hold(u, 0.0, 0.25, 0.85, 1.0), pulse(u, 2.0 if pull else 1.0, 0.2, 0.9)
    reach = 1 - out if pull else out
    curves: Curves = {"spine.flex": on * (-24 + 14 * reach if pull else 6 + 22 * reach)}
    for side in BOTH:
        curves |= {f"{side}_elbow.flex": on * (112 - 124 * reach), f"{side}_shoulder.flex": on * (20 + 62 * reach)}
    curves |= {
        "left_hip.flex": 42 * on,
        "left_knee.flex": 50 * on,
        "right_hip.flex": -28 * on,
        "right_knee.flex": 12 * on,
    }
    return curves | {"left_ankle.flex": 8 * on, "right_ankle.flex": -12 * on, "root.z": (0.05 if pull else -0.03) * on}


def duck(u: np.ndarray) -> Curves:
    """Drops low and covers the head with both hands."""
    down = hold(u, 0.05, 0.35, 0.65, 0.95)
    curves: Curves = {"neck.flex": 22 * down, "spine.flex": 22 * down}
    for side in BOTH:
        curves |= {f"{side}_shoulder.abduct": 122 * down, f"{side}_elbow.abduct": 92 * down}
    return _merge(curves, _crouch(58 * down))


def drum(u: np.ndarray, *, cycles: float) -> Curves:
    """Beats the air with both forearms in turn."""
    on = hold(u, 0.0, 0.18, 0.86, 1.0)
    phase = swing(u, cycles, 0.15, 0.9)
    curves: Curves = {"neck.flex": 14 * on * np.abs(phase)}
    for side in BOTH:
        curves |= {
            f"{side}_elbow.flex": on * (72 + 44 * SIGN[side] * phase),
            f"{side}_shoulder.flex": on * (28 + 22 * SIGN[side] * phase),
        }
        curves[f"{side}_shoulder.abduct"] = 14 * on
    return curves


def crawl(u: np.ndarray, *, cycles: float) -> Curves:
    """Goes down on hands and knees and crawls."""
    down = ramp(u, 0.0, 0.4)
    phase = ramp(u, 0.35, 0.5) * swing(u, cycles, 0.35, 1.0)
    curves: Curves = {"root.flex": 84 * down, "neck.flex": -42 * down, "root.z": -0.06 * down}
    for side in BOTH:
        curves[f"{side}_shoulder.flex"] = down * (82 + 30 * SIGN[side] * phase)
        curves[f"{side}_hip.flex"] = down * (80 - 30 * SIGN[side] * phase)
        curves[f"{side}_knee.flex"] = 88 * down
        curves |= {f"{side}_ankle.flex": -50 * down, f"{side}_elbow.flex": -10 * down}
    return curves


def push_up(u: np.ndarray, *, cycles: float) -> Curves:
    """Drops to a plank and bends the arms."""
    down = ramp(u, 0.0, 0.4)
    low = pulse(u, cycles, 0.4, 1.0)
    curves: Curves = {"root.flex": down * (66 + 16 * low), "neck.flex": -26 * down, "root.z": -0.1 * down}
    for side in BOTH:
        curves[f"{side}_shoulder.flex"] = down * (72 - 62 * low)
        curves[f"{side}_shoulder.abduct"] = 24 * down * low
        curves |= {f"{side}_elbow.flex": down * (-8 + 100 * low), f"{side}_ankle.flex": 30 * down}
    return curves


def cartwheel(u: np.ndarray, *, side: str) -> Curves:
    """Wheels sideways over the hands, arms and legs spread."""
    spread = hold(u, 0.0, 0.22, 0.78, 1.0)
    angle = 2 * np.pi * ramp(u, 0.1, 0.92)
    # With the arms up the body's middle lies above the hips; the shift keeps it in the middle of the picture.
    curves: Curves = {"root.abduct": SIGN[side] * np.rad2deg(angle), "root.x": -SIGN[side] * 0.12 * np.sin(angle)}
    for each in BOTH:
        curves |= {f"{each}_shoulder.abduct": 138 * spread, f"{each}_hip.abduct": 32 * spread}
    return curves


def swim(u: np.ndarray, *, turns: float) -> Curves:
    """Bends forward and circles the arms in turn, as in front crawl."""
    down = hold(u, 0.0, 0.25, 0.85, 1.0)
    curves: Curves = {"spine.flex": 46 * down, "neck.flex": -26 * down, "spine.twist": 18 * down * swing(u, turns)}
    for side in BOTH:
        lag = 0.0 if side == "left" else 0.5 / turns
        circle = np.clip((u - 0.5 * lag) / (1 - 0.5 * lag), 0.0, 1.0)
        curves[f"{side}_shoulder.flex"] = -360 * turns * ramp(circle, 0.0, 1.0)
    return curves


def bat(u: np.ndarray, *, side: str) -> Curves:
    """Swings both joined hands from one side to the other, as with a bat; `side` is where the swing starts."""
    on, through = hold(u, 0.0, 0.3, 0.82, 1.0), ramp(u, 0.4, 0.66)
    reach = SIGN[side] * (1 - 2 * through)
    curves: Curves = {"spine.twist": 50 * on * reach, "root.twist": 22 * on * reach, "neck.twist": -40 * on * reach}
    for each in BOTH:
        curves[f"{each}_shoulder.flex"] = on * 72
        curves[f"{each}_shoulder.abduct"] = on * (-42 + 10 * SIGN[each] * reach)
        curves[f"{each}_hip.abduct"] = 14 * on
    return _merge(curves, _crouch(12 * on))


def side_stretch_legs(u: np.ndarray, *, cycles: float) -> Curves:
    """Legs wide, touches each foot with the opposite hand in turn."""
    on = hold(u, 0.0, 0.2, 0.85, 1.0)
    phase = on * swing(u, cycles, 0.1, 0.95)
    reach = np.abs(phase)
    curves: Curves = {
        "spine.flex": 48 * reach,
        "spine.twist": 48 * phase,
        "root.flex": 38 * reach,
        "root.z": -0.06 * on,
    }
    for side in BOTH:
        curves[f"{side}_hip.flex"] = 38 * reach
        curves[f"{side}_hip.abduct"] = 26 * on
        curves[f"{side}_shoulder.abduct"] = 62 * on
    return curves
