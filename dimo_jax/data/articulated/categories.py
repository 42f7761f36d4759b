"""Ten categories of articulated objects, each a function of a generator of random numbers.

Sizes are those of real ones, in metres. Every object stands on the ground, shows its front to +Z, and is closed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE, make_joint

from .shapes import BODY, PART, MadeObject, bend, boxes, draw_materials, handle, lathe, make_object, open_case

GAP = 0.003
SHOWN, HELD_OUT = 8, 1000  # shapes of a category to learn from, seeds 0 to 7; the first seed of others


def make_shape(category: str, seed: int) -> MadeObject:
    """One object.

    Args:
      category: a key of `CATEGORIES`.
      seed: 0 to 7 are those to learn from, as many as in the paper; 1000 and on are held out.

    Raises:
      UserError: another category.
    """
    if category not in CATEGORIES:
        raise UserError(f"category: found {category[:40]!r}, expected one of {', '.join(CATEGORIES)}")
    return CATEGORIES[category](np.random.default_rng([seed, *category.encode()]))


def _hinged_front(
    rng: np.random.Generator,
    category: str,
    size: np.ndarray,
    *,
    wood: bool,
    width: float = 1.0,
    window: bool = False,
    name: str = "door",
) -> MadeObject:
    """A case whose door turns about an upright edge; `width` is the door's share, the rest is a panel."""
    materials, wall = draw_materials(rng, wood=wood), rng.uniform(0.015, 0.03)
    x, height, z = size[0] / 2, size[1], size[2] / 2
    right = bool(rng.random() < 0.5) and width == 1.0  # of the hinge
    end = -x + width * size[0]
    thick = rng.uniform(0.015, 0.03)
    pieces = [
        open_case(BODY, size, wall),
        boxes("front", PART, ((-x, GAP, z + GAP), (end - GAP, height - GAP, z + GAP + thick))),
    ]
    front = z + GAP + thick
    if width < 1:
        pieces.append(boxes("dark", BODY, ((end, 0, z - wall), (x, height, z + thick))))
        pieces += [
            lathe("metal", BODY, _disc(0.018, 0.012), (end + (x - end) / 2, y, z + thick), (0, 0, 1))
            for y in np.linspace(0.3, 0.7, int(rng.integers(1, 4))) * height
        ]
    if window:
        inset = 0.18 * min(end + x, height)
        pieces.append(boxes("dark", PART, ((-x + inset, inset, front), (end - inset, height - inset, front + 0.002))))
    side = -x + 0.06 if right else end - 0.04
    level = height * rng.uniform(0.4, 0.6)
    pieces.append(handle(rng, PART, (side, level, front), length=rng.uniform(0.15, 0.4) * height, upright=True))
    hinge = end - GAP if right else -x
    axis = (0, 1, 0) if right else (0, -1, 0)
    joint = make_joint(REVOLUTE, axis, (hinge, height / 2, z), (0.0, rng.uniform(1.2, 1.9)))
    return make_object(category, pieces, materials, joint, f"the {name} of the {category} is being opened")


def _disc(radius: float, depth: float) -> list[tuple[float, float]]:
    return [(0, 0), (radius, 0), (radius, depth), (0, depth)]


def make_cabinet_door(rng: np.random.Generator) -> MadeObject:
    """A cabinet with a door."""
    return _hinged_front(rng, "cabinet", rng.uniform((0.35, 0.5, 0.3), (0.7, 1.2, 0.5)), wood=True)


def make_fridge(rng: np.random.Generator) -> MadeObject:
    """A tall fridge with a door."""
    return _hinged_front(rng, "fridge", rng.uniform((0.5, 1.3, 0.5), (0.8, 1.9, 0.7)), wood=False)


def make_microwave(rng: np.random.Generator) -> MadeObject:
    """A microwave: a door with a dark window beside a panel with knobs."""
    size = rng.uniform((0.42, 0.25, 0.3), (0.6, 0.36, 0.45))
    return _hinged_front(rng, "microwave", size, wood=False, width=rng.uniform(0.68, 0.8), window=True)


def make_oven(rng: np.random.Generator) -> MadeObject:
    """An oven, whose door turns down about its lower edge, below a panel with knobs."""
    materials, wall = draw_materials(rng, wood=False), 0.03
    size = rng.uniform((0.5, 0.55, 0.5), (0.7, 0.9, 0.65))
    x, height, z = size[0] / 2, size[1], size[2] / 2
    low, high = rng.uniform(0.03, 0.12), height * rng.uniform(0.78, 0.88)
    thick = rng.uniform(0.02, 0.04)
    front = z + GAP + thick
    inset = 0.2 * (high - low)
    pieces = [
        open_case(BODY, size, wall),
        boxes("dark", BODY, ((-x, high, z), (x, height, z + thick)), ((-x, 0, z - wall), (x, low, z + thick))),
        boxes("front", PART, ((-x, low + GAP, z + GAP), (x, high - GAP, front))),
        boxes("dark", PART, ((-x + inset, low + inset, front), (x - inset, high - inset, front + 0.002))),
        boxes("metal", PART, ((-0.8 * x, high - 0.06, front + 0.02), (0.8 * x, high - 0.045, front + 0.035))),
        *(
            boxes(
                "metal",
                PART,
                ((s * 0.7 * x - 0.01, high - 0.06, front), (s * 0.7 * x + 0.01, high - 0.045, front + 0.02)),
            )
            for s in (-1, 1)
        ),
    ]
    knobs = np.linspace(-0.7, 0.7, int(rng.integers(3, 6))) * x
    middle = (high + height) / 2
    pieces += [lathe("metal", BODY, _disc(0.02, 0.02), (knob, middle, z + thick), (0, 0, 1)) for knob in knobs]
    joint = make_joint(REVOLUTE, (1, 0, 0), (0, low, z), (0.0, rng.uniform(1.2, 1.57)))
    return make_object("oven", pieces, materials, joint, "the door of the oven is being opened")


def make_washer(rng: np.random.Generator) -> MadeObject:
    """A washing machine with a round door, hinged at the left."""
    materials = draw_materials(rng, wood=False)
    size = rng.uniform((0.55, 0.8, 0.5), (0.65, 0.95, 0.65))
    x, height, z = size[0] / 2, size[1], size[2] / 2
    radius = rng.uniform(0.26, 0.34) * size[0]
    center, thick = np.array([0.0, height * rng.uniform(0.42, 0.5), z]), rng.uniform(0.02, 0.045)
    glass = radius * rng.uniform(0.6, 0.75)
    ring = [(0, GAP), (radius, GAP), (radius, thick * 0.6), (glass, thick), (0, thick)]
    pieces = [
        boxes("body", BODY, ((-x, 0, -z), (x, height, z))),
        boxes("dark", BODY, ((-0.3 * x, height - 0.11, z), (0.9 * x, height - 0.03, z + 0.004))),
        lathe("dark", BODY, _disc(0.9 * radius, 0.002), center, (0, 0, 1)),
        lathe("metal", BODY, _disc(0.03, 0.025), (-0.6 * x, height - 0.07, z), (0, 0, 1)),
        lathe("front", PART, ring, center, (0, 0, 1)),
        lathe("dark", PART, _disc(0.95 * glass, 0.004), center + [0, 0, thick], (0, 0, 1)),
        boxes(
            "metal", PART, (center + [0.86 * radius, -0.05, thick * 0.6], center + [0.97 * radius, 0.05, thick * 1.6])
        ),
    ]
    joint = make_joint(REVOLUTE, (0, -1, 0), center - [radius, 0, 0], (0.0, rng.uniform(1.3, 2.2)))
    return make_object("washer", pieces, materials, joint, "the door of the washer is being opened")


def make_drawer(rng: np.random.Generator) -> MadeObject:
    """A chest of some drawers, one of which slides out."""
    materials, wall = draw_materials(rng, wood=True), rng.uniform(0.015, 0.025)
    size = rng.uniform((0.4, 0.45, 0.35), (0.9, 0.95, 0.5))
    x, height, z = size[0] / 2, size[1], size[2] / 2
    count = int(rng.integers(2, 5))
    chosen, edges = int(rng.integers(count)), np.linspace(0, height, count + 1)
    thick, inner = rng.uniform(0.015, 0.025), x - wall
    pieces = [open_case(BODY, size, wall)]
    pieces += [boxes("body", BODY, ((-inner, y - wall / 2, -z), (inner, y + wall / 2, z))) for y in edges[1:-1]]
    bars = bool(rng.random() < 0.5)
    for index in range(count):
        node = PART if index == chosen else BODY
        low, high = edges[index] + GAP, edges[index + 1] - GAP
        front = z + GAP + thick
        pieces.append(boxes("front", node, ((-x, low, z + GAP), (x, high, front))))
        y = (low + high) / 2
        if bars:
            pieces.append(boxes("metal", node, ((-0.2 * x, y - 0.008, front), (0.2 * x, y + 0.008, front + 0.025))))
        else:
            pieces += [lathe("metal", node, _disc(0.014, 0.025), (s * 0.4 * x, y, front), (0, 0, 1)) for s in (-1, 1)]
        if node == PART:
            left, right, back, board = -inner + 0.005, inner - 0.005, -z + wall + 0.03, 0.01
            bottom, top = low + wall, high - 0.25 * (high - low)
            tray = [
                ((left, bottom, back), (right, bottom + board, z + GAP)),
                ((left, bottom + board, back), (left + board, top, z + GAP)),
                ((right - board, bottom + board, back), (right, top, z + GAP)),
                ((left + board, bottom + board, back), (right - board, top, back + board)),
            ]
            pieces.append(boxes("body", PART, *tray))
    middle = (edges[chosen] + edges[chosen + 1]) / 2
    joint = make_joint(PRISMATIC, (0, 0, 1), (0, middle, z), (0.0, rng.uniform(0.5, 0.8) * size[2]))
    return make_object("drawer", pieces, materials, joint, "the drawer is being pulled out")


def make_laptop(rng: np.random.Generator) -> MadeObject:
    """A laptop, nearly shut at rest, whose lid opens about the rear edge."""
    materials = draw_materials(rng, wood=False)
    size = rng.uniform((0.28, 0.014, 0.2), (0.4, 0.022, 0.28))
    x, height, z = size[0] / 2, size[1], size[2] / 2
    thick, shut = rng.uniform(0.006, 0.01), rng.uniform(0.15, 0.4)
    hinge = (0.0, height + GAP, -z)
    lid = [
        boxes("front", PART, ((-x, height + GAP, -z), (x, height + GAP + thick, z))),
        boxes("dark", PART, ((-0.93 * x, height + GAP - 0.001, -0.85 * z), (0.93 * x, height + GAP, 0.9 * z))),
    ]
    pieces = [
        boxes("body", BODY, ((-x, 0, -z), (x, height, z))),
        boxes("dark", BODY, ((-0.9 * x, height, -0.8 * z), (0.9 * x, height + 0.002, 0.15 * z))),
        boxes("metal", BODY, ((-0.25 * x, height, 0.35 * z), (0.25 * x, height + 0.001, 0.9 * z))),
        *(bend(piece, (-1, 0, 0), shut, hinge) for piece in lid),
    ]
    joint = make_joint(REVOLUTE, (-1, 0, 0), hinge, (0.0, rng.uniform(1.7, 2.1) - shut))
    return make_object("laptop", pieces, materials, joint, "the lid of the laptop is being opened")


def make_bin(rng: np.random.Generator) -> MadeObject:
    """A bin, square or round, whose lid turns up about its rear."""
    materials = draw_materials(rng, wood=False)
    height, half, deep = rng.uniform((0.35, 0.13, 0.13), (0.75, 0.24, 0.22))
    thick, wall = rng.uniform(0.015, 0.05), 0.012
    if rng.random() < 0.5:
        deep = half
        outer = [(0, 0), (0.85 * half, 0), (half, height), (half - wall, height), (0.85 * half - wall, wall), (0, wall)]
        pieces = [
            lathe("body", BODY, outer, (0, 0, 0), (0, 1, 0)),
            lathe(
                "front",
                PART,
                [(0, 0), (half, 0), (half, thick * 0.5), (0.8 * half, thick), (0, thick)],
                (0, height + GAP, 0),
                (0, 1, 0),
            ),
        ]
    else:
        walls = [
            ((-half, 0, -deep), (half, wall, deep)),
            ((-half, wall, -deep), (-half + wall, height, deep)),
            ((half - wall, wall, -deep), (half, height, deep)),
            ((-half + wall, wall, -deep), (half - wall, height, -deep + wall)),
            ((-half + wall, wall, deep - wall), (half - wall, height, deep)),
        ]
        pieces = [
            boxes("body", BODY, *walls),
            boxes("front", PART, ((-half, height + GAP, -deep), (half, height + GAP + thick, deep))),
        ]
    pieces += [
        boxes("metal", PART, ((-0.25 * half, height + GAP, deep), (0.25 * half, height + 0.02, deep + 0.02))),
        boxes("metal", BODY, ((-0.3 * half, 0, deep), (0.3 * half, 0.025, deep + 0.05))),
    ]
    joint = make_joint(REVOLUTE, (-1, 0, 0), (0, height + GAP, -deep), (0.0, rng.uniform(1.0, 1.7)))
    return make_object("bin", pieces, materials, joint, "the lid of the bin is being lifted")


def make_faucet(rng: np.random.Generator) -> MadeObject:
    """A faucet, whose lever turns about its upright axis."""
    materials = draw_materials(rng, wood=False)
    height, radius, reach = rng.uniform((0.12, 0.018, 0.1), (0.26, 0.03, 0.2))
    spout = radius * rng.uniform(0.5, 0.7)
    cap, length = rng.uniform(0.02, 0.04), rng.uniform(0.07, 0.13)
    top = height + GAP
    pieces = [
        lathe(
            "body",
            BODY,
            [(0, 0), (1.8 * radius, 0), (1.8 * radius, 0.01), (radius, 0.02), (radius, height), (0, height)],
            (0, 0, 0),
            (0, 1, 0),
        ),
        lathe("body", BODY, _disc(spout, reach), (0, 0.75 * height, 0), (0, 0, 1)),
        lathe("body", BODY, _disc(0.9 * spout, 0.3 * height), (0, 0.75 * height, reach - spout), (0, -1, 0)),
        lathe(
            "front",
            PART,
            [(0, 0), (radius, 0), (radius, 0.7 * cap), (0.6 * radius, cap), (0, cap)],
            (0, top, 0),
            (0, 1, 0),
        ),
        boxes("front", PART, ((-0.006, top + 0.3 * cap, 0.5 * radius), (0.006, top + 0.65 * cap, length))),
    ]
    start = rng.uniform(-0.3, 0.3)
    pieces = [bend(piece, (0, 1, 0), start, (0, 0, 0)) if piece.node == PART else piece for piece in pieces]
    joint = make_joint(REVOLUTE, (0, rng.choice([-1.0, 1.0]), 0), (0, top, 0), (0.0, rng.uniform(0.8, 1.6)))
    return make_object("faucet", pieces, materials, joint, "the lever of the faucet is being turned")


def make_knob(rng: np.random.Generator) -> MadeObject:
    """A control box with a large knob, which turns about its own axis."""
    materials = draw_materials(rng, wood=True)
    size = rng.uniform((0.14, 0.12, 0.05), (0.3, 0.22, 0.12))
    x, height, z = size[0] / 2, size[1], size[2] / 2
    radius, depth = rng.uniform(0.2, 0.32) * min(size[:2]), rng.uniform(0.02, 0.035)
    center = np.array([rng.uniform(-0.2, 0.2) * x, rng.uniform(0.45, 0.6) * height, z + GAP])
    grip, pointer = rng.uniform(0.15, 0.25) * radius, 0.9 * radius
    profile = [(0, 0), (radius, 0), (radius, 0.35 * depth), (0.85 * radius, 0.5 * depth), (0, 0.5 * depth)]
    out = 0.5 * depth
    turning = [
        lathe("front", PART, profile, center, (0, 0, 1)),
        boxes("front", PART, (center + [-grip, -pointer, out], center + [grip, pointer, depth])),
        boxes(
            "dark", PART, (center + [-0.3 * grip, 0.2 * radius, depth], center + [0.3 * grip, pointer, depth + 0.002])
        ),
    ]
    start = rng.uniform(-0.5, 0.5)
    pieces = [
        boxes("body", BODY, ((-x, 0, -z), (x, height, z))),
        *(
            boxes(
                "dark",
                BODY,
                (
                    center + [1.25 * radius * np.cos(a) - 0.003, 1.25 * radius * np.sin(a) - 0.003, -GAP],
                    center + [1.25 * radius * np.cos(a) + 0.003, 1.25 * radius * np.sin(a) + 0.003, -GAP + 0.002],
                ),
            )
            for a in np.linspace(-0.6, np.pi + 0.6, 7)
        ),
        *(bend(piece, (0, 0, 1), start, center) for piece in turning),
    ]
    joint = make_joint(REVOLUTE, (0, 0, rng.choice([-1.0, 1.0])), center, (0.0, rng.uniform(1.2, 2.6)))
    return make_object("knob", pieces, materials, joint, "the knob is being turned")


CATEGORIES: dict[str, Callable[[np.random.Generator], MadeObject]] = {
    "cabinet": make_cabinet_door,
    "drawer": make_drawer,
    "microwave": make_microwave,
    "oven": make_oven,
    "fridge": make_fridge,
    "washer": make_washer,
    "laptop": make_laptop,
    "bin": make_bin,
    "faucet": make_faucet,
    "knob": make_knob,
}
