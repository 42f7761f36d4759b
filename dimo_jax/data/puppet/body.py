"""The embedded character's body: skeleton, primitives, forward kinematics, surface points.

Body units: standing height 1, the floor at y = 0, +Y up, facing +Z, so the character's left is +X. `SIZE` and
`ORIGIN_HEIGHT` turn them into world units, centred so that no motion leaves a camera at radius 2 with 33.9 degrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dimo_jax.data.puppet.raycast import RoundCones

SIZE = 0.84  # world units per body unit
ORIGIN_HEIGHT = 0.54  # the world's origin, in body units above the floor


class Joint(NamedTuple):
    """A joint, its parent, its place in the parent's frame (body units) and the sign of each channel's rotation.

    Channels are degrees. The local rotation is Rx(flex) Rz(abduct) Ry(twist) with these signs: flex bends naturally
    (arms, legs and spine forward, knees backward, toes up), abduct moves a limb outward and the spine to its left,
    twist turns to the left.
    """

    name: str
    parent: str | None
    offset: tuple[float, float, float]
    signs: tuple[float, float, float]


def _limbs(side: str, s: float) -> list[Joint]:
    """Arm and leg of one side; s is +1 for the left (+X) and -1 for the right."""
    return [
        Joint(f"{side}_clavicle", "spine", (0.03 * s, 0.185, 0.0), (-1, s, 1)),
        Joint(f"{side}_shoulder", f"{side}_clavicle", (0.1 * s, 0.0, 0.0), (-1, s, s)),
        Joint(f"{side}_elbow", f"{side}_shoulder", (0.0, -0.145, 0.0), (-1, s, s)),
        Joint(f"{side}_wrist", f"{side}_elbow", (0.0, -0.135, 0.0), (-1, s, s)),
        Joint(f"{side}_hand", f"{side}_wrist", (0.0, -0.07, 0.0), (0, 0, 0)),
        Joint(f"{side}_hip", "root", (0.072 * s, -0.02, 0.0), (-1, s, s)),
        Joint(f"{side}_knee", f"{side}_hip", (0.0, -0.165, 0.0), (1, s, s)),
        Joint(f"{side}_ankle", f"{side}_knee", (0.0, -0.16, 0.0), (-1, s, s)),
        Joint(f"{side}_toe", f"{side}_ankle", (0.0, -0.02, 0.1), (0, 0, 0)),
    ]


JOINTS: tuple[Joint, ...] = (
    Joint("root", None, (0.0, 0.4, 0.0), (1, -1, 1)),
    Joint("spine", "root", (0.0, 0.04, 0.0), (1, -1, 1)),
    Joint("neck", "spine", (0.0, 0.235, 0.0), (1, -1, 1)),
    Joint("head_top", "neck", (0.0, 0.33, 0.0), (0, 0, 0)),
    *_limbs("left", 1.0),
    *_limbs("right", -1.0),
)
JOINT_NAMES = tuple(joint.name for joint in JOINTS)
_AXES = ("flex", "abduct", "twist")
CHANNELS = tuple(f"{joint.name}.{axis}" for joint in JOINTS if any(joint.signs) for axis in _AXES) + (
    "root.x",
    "root.z",
    "root.lift",
)
REST = {
    f"{side}_{part}": value
    for side in ("left", "right")
    for part, value in (("shoulder.abduct", 14.0), ("elbow.flex", 12.0))
}

SKIN = (0.93, 0.72, 0.57)
HAIR = (0.36, 0.2, 0.11)
SHIRT = (0.98, 0.8, 0.2)
BAND = (0.13, 0.33, 0.65)
SHORTS = (0.22, 0.28, 0.5)
WHITE = (0.96, 0.96, 0.94)
BLACK = (0.08, 0.07, 0.09)
RED = (0.85, 0.18, 0.17)
TEAL = (0.1, 0.6, 0.58)
PURPLE = (0.52, 0.24, 0.68)
ORANGE = (0.98, 0.52, 0.12)
GREEN = (0.25, 0.62, 0.25)

Color = tuple[float, float, float]
Vector = tuple[float, float, float]


class Part(NamedTuple):
    """One round cone on a joint: its base and tip (body units, the joint's frame), radii there, and its looks.

    The local +Y axis runs from base to tip (up, if both are the same); local +X stays the joint's +X.
    """

    name: str
    joint: str
    base: Vector
    tip: Vector
    radii: tuple[float, float]
    scale: Vector
    color: Color
    stripes: tuple[Vector, Color] | None = None  # cycles per body unit along the local axes, and the second colour
    decals: tuple[tuple[Vector, Vector, Color], ...] = ()  # centre and radii in the part's frame, colour


def _face() -> tuple[tuple[Vector, Vector, Color], ...]:
    eyes = []
    for s in (-1.0, 1.0):
        eyes += [
            ((0.058 * s, 0.005, 0.13), (0.03, 0.038, 0.05), WHITE),
            ((0.053 * s, 0.0, 0.135), (0.017, 0.025, 0.05), BLACK),
            ((0.058 * s, 0.058, 0.12), (0.034, 0.011, 0.05), HAIR),
        ]
    return (
        ((0.085, -0.05, 0.11), (0.028, 0.02, 0.05), (0.96, 0.55, 0.47)),
        ((-0.085, -0.05, 0.11), (0.028, 0.02, 0.05), (0.96, 0.55, 0.47)),
        *eyes,
        ((0.0, -0.075, 0.12), (0.045, 0.018, 0.06), (0.72, 0.16, 0.2)),
        ((0.0, -0.065, 0.12), (0.042, 0.014, 0.06), SKIN),
    )


def _slab(low: float, high: float, color: Color) -> tuple[Vector, Vector, Color]:
    """A band around a part between two heights on its axis."""
    return ((0.0, (low + high) / 2, 0.0), (9.0, (high - low) / 2, 9.0), color)


def _arm(side: str, sleeve: Color, glove: Color, stripes: Color | None) -> list[Part]:
    pattern = None if stripes is None else ((0.0, 22.0, 0.0), stripes)
    one = (1.0, 1.0, 1.0)
    return [
        Part(f"{side}_upper_arm", f"{side}_shoulder", (0, 0, 0), (0, -0.145, 0), (0.05, 0.041), one, sleeve, pattern),
        Part(
            f"{side}_forearm", f"{side}_elbow", (0, 0, 0), (0, -0.13, 0), (0.041, 0.033), one, SKIN, None,
            (_slab(-0.05, 0.03, sleeve), _slab(0.085, 0.105, WHITE)),
        ),
        Part(
            f"{side}_palm", f"{side}_wrist", (0, -0.01, 0), (0, -0.05, 0), (0.036, 0.04), (0.8, 1, 1), glove, None,
            (_slab(-0.04, -0.014, WHITE),),
        ),
    ]  # fmt: skip


def _leg(side: str, sock: Color, shoe: Color, stripes: Color) -> list[Part]:
    one = (1.0, 1.0, 1.0)
    return [
        Part(
            f"{side}_thigh", f"{side}_hip", (0, 0, 0), (0, -0.16, 0), (0.068, 0.05), one, SKIN, None,
            (_slab(-0.1, 0.105, SHORTS), _slab(0.095, 0.112, sock)),
        ),
        Part(
            f"{side}_shin", f"{side}_knee", (0, 0, 0), (0, -0.15, 0), (0.049, 0.036), one, sock,
            ((0.0, 25.0, 0.0), stripes), (_slab(-0.06, 0.06, SKIN),),
        ),
        Part(
            f"{side}_foot", f"{side}_ankle", (0, -0.017, -0.015), (0, -0.019, 0.085), (0.04, 0.036), (1.05, 1, 1), shoe,
            None, (((0, 0.04, 0.05), (9.0, 9.0, 0.024), WHITE), ((0, 0.12, -0.036), (0.05, 0.03, 0.03), WHITE)),
        ),
    ]  # fmt: skip


PARTS: tuple[Part, ...] = (
    Part("pelvis", "root", (0, 0.0, 0), (0, 0.0, 0), (0.1, 0.1), (1.12, 0.8, 0.86), SHORTS, None,
         (_slab(0.035, 0.06, BLACK), ((0, 0.047, 0.09), (0.02, 0.016, 0.03), SHIRT))),
    Part("torso", "spine", (0, -0.01, 0), (0, 0.14, 0), (0.088, 0.1), (1.12, 1, 0.84), SHIRT, None,
         (_slab(0.015, 0.045, BAND), ((0, 0.115, 0.1), (0.045, 0.045, 0.06), BAND),
          ((0, 0.115, 0.1), (0.024, 0.024, 0.06), WHITE), _slab(0.208, 0.3, RED))),
    Part("backpack", "spine", (0, 0.03, -0.1), (0, 0.13, -0.1), (0.068, 0.06), (1.1, 1, 0.62), GREEN, None,
         (((0, 0.015, -0.04), (0.045, 0.035, 0.05), (0.75, 0.6, 0.25)), _slab(0.075, 0.09, BLACK))),
    Part("neck", "neck", (0, -0.04, 0), (0, 0.03, 0), (0.045, 0.04), (1, 1, 1), SKIN),
    Part("head", "neck", (0, 0.155, 0), (0, 0.155, 0), (0.15, 0.15), (1, 1.03, 0.97), SKIN, None, _face()),
    Part("nose", "neck", (0, 0.135, 0.145), (0, 0.135, 0.145), (0.019, 0.019), (1, 1, 1), (0.9, 0.6, 0.45)),
    Part("hair", "neck", (0, 0.185, -0.025), (0, 0.185, -0.025), (0.15, 0.15), (1.05, 1.0, 0.98), HAIR,
         ((12.0, 0.0, 0.0), (0.3, 0.16, 0.085))),
    Part("ponytail", "neck", (0, 0.22, -0.175), (0, 0.11, -0.2), (0.05, 0.026), (1, 1, 1), HAIR, None,
         (_slab(-0.035, -0.005, RED),)),
    *_arm("left", RED, ORANGE, WHITE),
    *_arm("right", TEAL, PURPLE, None),
    *_leg("left", WHITE, RED, GREEN),
    *_leg("right", ORANGE, BAND, ORANGE),
)  # fmt: skip


def _part_axes(part: Part) -> tuple[np.ndarray, float]:
    """Rotation [3,3] of the part's frame in its joint's frame, and the distance from base to tip."""
    axis = np.subtract(part.tip, part.base)
    length = float(np.linalg.norm(axis))
    y = axis / length if length else np.asarray([0.0, 1.0, 0.0])
    z = np.cross([1.0, 0.0, 0.0], y)
    z /= np.linalg.norm(z)
    return np.stack([np.cross(y, z), y, z], axis=-1), length


def round_cones() -> RoundCones:
    """The character's primitives, in world units."""
    num_decals = max(len(part.decals) for part in PARTS)
    never = ((np.inf,) * 3, (1.0,) * 3, (0.0,) * 3)
    decals = np.asarray([part.decals + (never,) * (num_decals - len(part.decals)) for part in PARTS], np.float64)
    waves = [part.stripes[0] if part.stripes else (0.0, 0.0, 0.0) for part in PARTS]
    scale = np.asarray([part.scale for part in PARTS])
    return RoundCones(
        scale=scale * SIZE,
        radii=np.asarray([part.radii for part in PARTS]),
        length=np.asarray([_part_axes(part)[1] for part in PARTS]) / scale[:, 1],
        colors=np.asarray([part.color for part in PARTS]),
        stripe_colors=np.asarray([part.stripes[1] if part.stripes else part.color for part in PARTS]),
        stripe_waves=np.asarray(waves) / SIZE,
        decal_centers=decals[:, :, 0] * SIZE,
        decal_radii=decals[:, :, 1] * SIZE,
        decal_colors=decals[:, :, 2],
    )


def _rotations(degrees: np.ndarray, order: str) -> np.ndarray:
    """Rotation matrices [T,3,3] about x, y, z by degrees [T,3], multiplied in `order` from the left."""
    result = np.broadcast_to(np.eye(3), (len(degrees), 3, 3))
    for letter in order:
        index = "xyz".index(letter)
        angle = np.deg2rad(degrees[:, index])
        matrix = np.zeros((len(degrees), 3, 3))
        i, j = (index + 1) % 3, (index + 2) % 3
        matrix[:, index, index] = 1.0
        matrix[:, i, i] = matrix[:, j, j] = np.cos(angle)
        matrix[:, j, i] = np.sin(angle)
        matrix[:, i, j] = -matrix[:, j, i]
        result = result @ matrix
    return result


class Pose(NamedTuple):
    """The character at T instants, world units."""

    joints: np.ndarray  # [T,Jn,3] positions in the order of JOINT_NAMES
    positions: np.ndarray  # [T,P,3] of the primitives' frames
    rotations: np.ndarray  # [T,P,3,3]


def _channel(curves: Mapping[str, np.ndarray], name: str, num_frames: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(curves.get(name, 0.0), np.float64) + REST.get(name, 0.0), (num_frames,))


def turn_joints(curves: Mapping[str, np.ndarray], num_frames: int) -> np.ndarray:
    """Rotations [T,Jn,3,3] of the joints against their parents; arguments as those of `pose`."""
    turns = []
    for joint in JOINTS:
        flex, abduct, twist = (
            _channel(curves, f"{joint.name}.{axis}", num_frames) * sign for axis, sign in zip(_AXES, joint.signs)
        )
        order = "yxz" if joint.parent is None else "xzy"
        turns.append(_rotations(np.stack([flex, twist, abduct], axis=-1), order))
    return np.stack(turns, axis=1)


def pose(curves: Mapping[str, np.ndarray], num_frames: int) -> Pose:
    """Forward kinematics of one motion.

    The body stands on the floor by itself: its lowest point is put at y = 0 plus `root.lift`, so squats, kneeling and
    falls need no vertical path.

    Args:
      curves: channel name (`CHANNELS`) -> [T] degrees, or body units for root.x, root.z and root.lift; relative to
        the rest pose. Missing channels rest.
      num_frames: T.

    Raises:
      KeyError: a channel that does not exist.
    """
    unknown = set(curves) - set(CHANNELS)
    if unknown:
        raise KeyError(f"unknown channels {sorted(unknown)}")
    local = turn_joints(curves, num_frames)
    places: dict[str, np.ndarray] = {}
    turns: dict[str, np.ndarray] = {}
    for index, joint in enumerate(JOINTS):
        if joint.parent is None:
            places[joint.name] = np.broadcast_to(np.asarray(joint.offset), (num_frames, 3))
            turns[joint.name] = local[:, index]
        else:
            places[joint.name] = places[joint.parent] + turns[joint.parent] @ np.asarray(joint.offset)
            turns[joint.name] = turns[joint.parent] @ local[:, index]
    joints = np.stack([places[name] for name in JOINT_NAMES], axis=1)
    rotations = np.stack([turns[part.joint] @ _part_axes(part)[0] for part in PARTS], axis=1)
    positions = np.stack([places[part.joint] + turns[part.joint] @ np.asarray(part.base) for part in PARTS], axis=1)
    cones = round_cones()
    drop = lowest_points(cones, positions * SIZE, rotations).min(axis=1) / SIZE
    x, lift, z = (_channel(curves, name, num_frames) for name in ("root.x", "root.lift", "root.z"))
    shift = np.stack([x, lift - drop - ORIGIN_HEIGHT, z], axis=-1)
    return Pose((joints + shift[:, None]) * SIZE, (positions + shift[:, None]) * SIZE, rotations)


def lowest_points(cones: RoundCones, positions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Exact lowest y [T,P] of each primitive: the lower of its two scaled end spheres."""
    support = np.linalg.norm(rotations[:, :, 1, :] * cones.scale, axis=-1)
    tip = positions[:, :, 1] + rotations[:, :, 1, 1] * cones.length * cones.scale[:, 1]
    return np.minimum(positions[:, :, 1] - support * cones.radii[:, 0], tip - support * cones.radii[:, 1])


def _sample_part(cones: RoundCones, index: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random points [count,3] on one primitive, in its frame after scaling, denser where it is larger only.

    Directions are drawn on the sphere that slides along the axis; the scaling's stretch is evened out later.
    """
    length, (low, high) = cones.length[index], cones.radii[index]
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    if length == 0:
        return direction * low * cones.scale[index]
    sine = (low - high) / length
    cosine = np.sqrt(1 - sine**2)
    areas = np.asarray([low**2 * (1 - sine), high**2 * (1 + sine), (low + high) / 2 * length * cosine])
    which = rng.choice(3, size=count, p=areas / areas.sum())
    # Caps: reflect directions to the sphere's own side of the circle where the cone touches it.
    points = np.empty((count, 3))
    y = np.where(which == 0, rng.uniform(-1, sine, count), rng.uniform(sine, 1, count))
    ring = direction[:, [0, 2]] / np.maximum(np.linalg.norm(direction[:, [0, 2]], axis=-1, keepdims=True), 1e-9)
    radius = np.where(which == 0, low, high)
    points[:, [0, 2]] = (radius * np.sqrt(1 - y**2))[:, None] * ring
    points[:, 1] = radius * y + np.where(which == 0, 0.0, length)
    along = rng.uniform(size=count)
    side = low + (high - low) * along
    cone = which == 2
    points[cone, 1] = (along * length + side * sine)[cone]
    points[np.ix_(cone, [0, 2])] = ((side * cosine)[:, None] * ring)[cone]
    return points * cones.scale[index]


def inside(cones: RoundCones, index: int, points: np.ndarray) -> np.ndarray:
    """Whether points [n,3] in a primitive's frame after scaling lie inside it: bool [n]."""
    low, high = cones.radii[index]
    local = points / cones.scale[index]
    distance = np.hypot(local[:, 0], local[:, 2])
    foot = 0.0
    if cones.length[index] > 0:
        sine = (low - high) / cones.length[index]
        foot = np.clip((local[:, 1] - distance * sine / np.sqrt(1 - sine**2)) / cones.length[index], 0, 1)
    center = foot * cones.length[index]
    return np.hypot(distance, local[:, 1] - center) < low + (high - low) * foot


def attach_points(num_points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points fixed on the visible surface: primitive index [P] and position [P,3] in its frame, world units.

    Candidates inside another primitive in the rest pose are dropped; the rest are thinned by farthest point sampling,
    so that the points cover the body evenly.
    """
    rng = np.random.default_rng(seed)
    cones = round_cones()
    rest = pose({}, 1)
    sizes = cones.scale.mean(axis=-1) ** 2 * (cones.radii.sum(axis=-1) * (cones.radii.mean(axis=-1) + cones.length))
    counts = np.ceil(6 * num_points * sizes / sizes.sum()).astype(int)
    parts = np.repeat(np.arange(len(PARTS)), counts)
    local = np.concatenate([_sample_part(cones, index, count, rng) for index, count in enumerate(counts)])
    world = rest.positions[0, parts] + np.einsum("nij,nj->ni", rest.rotations[0, parts], local)
    seen = np.ones(len(parts), bool)
    for index in range(len(PARTS)):
        there = (world - rest.positions[0, index]) @ rest.rotations[0, index]
        seen &= (parts == index) | ~inside(cones, index, there)
    parts, local, world = parts[seen], local[seen], world[seen].astype(np.float32)
    chosen = np.zeros(num_points, int)
    gap = np.full(len(world), np.inf, np.float32)
    x, y, z = (np.ascontiguousarray(axis) for axis in world.T)  # a tenth of the time of sums over a trailing axis of 3
    for step in range(1, num_points):
        last = chosen[step - 1]
        np.minimum(gap, (x - x[last]) ** 2 + (y - y[last]) ** 2 + (z - z[last]) ** 2, out=gap)
        chosen[step] = int(np.argmax(gap))
    return parts[chosen], local[chosen]


def surface_points(poses: Sequence[Pose], *, num_points: int, seed: int = 0) -> np.ndarray:
    """Trajectories [M,T,P,3] float32, world units, of points fixed on the surface of every posed motion."""
    parts, local = attach_points(num_points, seed)
    moved = [pose.positions[:, parts] + np.einsum("tnij,nj->tni", pose.rotations[:, parts], local) for pose in poses]
    return np.stack(moved).astype(np.float32)
