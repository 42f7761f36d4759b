"""How large the object of a dataset is, and where, by masks and cameras; and what brings it to the method's size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.world import place_dataset, settle
from dimo_jax.geometry.world import World
from dimo_jax.io.cutting import OPAQUE

# The cameras and the object that the method's lengths are made for.
DISTANCE = 2.0
EXTENT = 1.0
# Inside of these nothing is moved, so that data of the right size trains as it is, bit for bit.
EXTENTS = (0.4, 2.0)
DISTANCES = (1.0, 6.0)  # where no mask tells the object's size
MAX_OFFSET = 0.3  # of the object's middle from the origin
Boxes = list[list[np.ndarray | None]]  # of times that are looked at, what `find_box` finds in each view
_TRIM = 0.002  # share of a mask's pixels that may lie beyond its box at each side: specks
_MAX_SAMPLES = 24  # motions and frames looked at
_LEAST_SPREAD = 1e-3  # least eigenvalue of mean(1 - d d^T) at which rays d fix a point: some 3 degrees between them


@dataclass(frozen=True)
class Sight:
    """What cameras and masks tell of where things stand, in the coordinates of the cameras."""

    focus: np.ndarray  # [3] what the cameras look at
    distance: float  # median of the cameras from there
    middle: np.ndarray | None  # [3] of the object over all motions; None where no masks tell
    extent: float | None  # its largest side, likewise


def nearest_point(eyes: np.ndarray, directions: np.ndarray) -> np.ndarray | None:
    """The point nearest to lines through `eyes` [n,3] along unit `directions` [n,3]; None where they do not fix one."""
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    total = across.mean(axis=0)
    if np.linalg.eigvalsh(total)[0] < _LEAST_SPREAD:
        return None
    middle = eyes.mean(axis=0)  # numbers stay small where the world's origin is far away
    point: np.ndarray = middle + np.linalg.solve(total, np.einsum("nab,nb->a", across, eyes - middle) / len(eyes))
    return point


def find_eyes(poses: np.ndarray) -> np.ndarray:
    """Where cameras stand, [V,3], from world_to_camera [V,4,4]."""
    # A transpose is an inverse to float32's digits only, too few where the world's origin is kilometres away.
    eyes: np.ndarray = -np.linalg.solve(poses[:, :3, :3], poses[:, :3, 3:])[..., 0]
    return eyes


def find_focus(cameras: Camera) -> tuple[np.ndarray, float]:
    """What cameras look at, [3], and their median distance from it.

    Where their axes do not fix a point (one camera, or parallel ones) it is the point of the mean axis that lies
    nearest to the origin, if that is in front; otherwise one at the method's own distance.
    """
    poses = np.asarray(cameras.world_to_camera, np.float64)
    eyes, forward = find_eyes(poses), poses[:, 2, :3]
    focus = nearest_point(eyes, forward)
    if focus is None or (np.einsum("vi,vi->v", focus - eyes, forward) <= 0).mean() > 0.5:
        eye, axis = eyes.mean(axis=0), forward.mean(axis=0)
        axis = axis / max(float(np.linalg.norm(axis)), 1e-12)
        ahead = -float(eye @ axis)
        focus = eye + (ahead if ahead > 1e-6 * np.linalg.norm(eye) else DISTANCE) * axis
    distance = float(np.median(np.linalg.norm(eyes - focus, axis=1)))
    return np.where(np.abs(focus) < 1e-9 * distance, 0.0, focus), distance  # no rounding errors for coordinates


def find_box(alpha: np.ndarray) -> np.ndarray | None:
    """Pixels (left, top, right, bottom) around what is opaque in an alpha [H,W] uint8, specks aside.

    None where nothing is, where it fills the picture, or is cut by its border, so that it does not tell a size.
    """
    mask = alpha >= OPAQUE
    count = int(mask.sum())
    if not count:
        return None
    box = []
    for axis in (0, 1):
        shares = np.cumsum(mask.sum(axis=axis)) / count
        low = int(np.searchsorted(shares, _TRIM, side="right"))
        high = int(np.searchsorted(shares, 1 - _TRIM, side="left")) + 1
        if low == 0 or high >= mask.shape[1 - axis]:
            return None
        box.append((low, high))
    return np.array([box[0][0], box[1][0], box[0][1], box[1][1]], np.float64)


def pick(num_motions: int, num_frames: int) -> list[tuple[int, int]]:
    """An even choice of (motion, frame) to look at; not a stride, which would meet one frame of every motion."""
    count = num_motions * num_frames
    indices = np.unique(np.linspace(0, count - 1, min(count, _MAX_SAMPLES)).round().astype(int))
    return [(int(index) // num_frames, int(index) % num_frames) for index in indices]


def find_boxes(alphas: np.ndarray) -> Boxes:
    """`find_box` of picked motions and frames of alphas [M,V,T,H,W] uint8, over all views."""
    picks = pick(alphas.shape[0], alphas.shape[2])
    return [[find_box(np.asarray(alpha)) for alpha in alphas[m, :, t]] for m, t in picks]


def find_object(cameras: Camera, boxes: Boxes) -> tuple[np.ndarray, float] | None:
    """Middle [3] and largest side of the box in which the object is, over motions and frames, by its silhouettes.

    The rays through the middles of the masks' boxes meet at the object's middle, and at that depth a box has its size:
    of these sizes the upper quartile, since a view may see it end on.

    Args:
      cameras: V views.
      boxes: of every time that is looked at, those of the V views.

    Returns:
      None where fewer than two views show an object that is neither opaque everywhere nor cut by the border.
    """
    found = [_locate(cameras, each) for each in boxes]
    seen = [each for each in found if each is not None]
    if not seen or 2 * len(seen) < len(found):
        return None
    middles, halves = np.stack([middle for middle, _ in seen]), np.array([half for _, half in seen])
    low, high = (middles - halves[:, None]).min(axis=0), (middles + halves[:, None]).max(axis=0)
    return (low + high) / 2, float((high - low).max())


def _locate(cameras: Camera, boxes: list[np.ndarray | None]) -> tuple[np.ndarray, float] | None:
    """Middle and half the size of the object by its boxes in V views at one time; None where they do not tell."""
    poses = np.asarray(cameras.world_to_camera, np.float64)
    views = [view for view, box in enumerate(boxes) if box is not None]
    if len(views) < 2:
        return None
    sides = np.stack([box for box in boxes if box is not None])
    focal = np.broadcast_to(np.asarray(cameras.focal, np.float64), (len(poses), 2))[views]
    middles = ((sides[:, :2] + sides[:, 2:]) / 2 - np.asarray(cameras.center, np.float64)[views]) / focal
    turns = poses[views, :3, :3]
    rays = np.einsum("vji,vj->vi", turns, np.concatenate([middles, np.ones((len(views), 1))], axis=1))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    eyes = find_eyes(poses[views])
    point = nearest_point(eyes, rays)
    if point is None:
        return None
    depths = np.einsum("vi,vi->v", point - eyes, turns[:, 2])
    if (depths <= 0).any():
        return None
    halves = 0.5 * ((sides[:, 2:] - sides[:, :2]) / focal).max(axis=1) * depths
    return point, float(np.quantile(halves, 0.75))


def look(cameras: Camera, boxes: Boxes) -> Sight:
    """Measures what V cameras see, in their coordinates; boxes as `find_object`."""
    focus, distance = find_focus(cameras)
    found = find_object(cameras, boxes)
    return Sight(focus, distance, *(found or (None, None)))


def fits(sight: Sight) -> bool:
    """Whether the method's lengths suit what stands there, so that nothing need be moved."""
    if sight.middle is None or sight.extent is None:
        low, high = DISTANCES
        return low <= sight.distance <= high and float(np.linalg.norm(sight.focus)) <= MAX_OFFSET
    low, high = EXTENTS
    return low <= sight.extent <= high and float(np.linalg.norm(sight.middle)) <= MAX_OFFSET


def find_world(sight: Sight) -> World:
    """What brings a dataset to the method's size: the identity where it `fits`.

    The cameras go to their distance of 2 around what they look at, so that the same recording in other units or at
    another place becomes the same; where the object does not suit that, it goes to the origin with an extent of 1.
    """
    if fits(sight):
        return World()
    world = World(scale=DISTANCE / max(sight.distance, 1e-12), center=sight.focus)
    if sight.middle is None or sight.extent is None or fits(_placed(sight, world)):
        return world
    return World(scale=EXTENT / max(sight.extent, 1e-12), center=sight.middle)


def _placed(sight: Sight, world: World) -> Sight:
    assert sight.middle is not None
    assert sight.extent is not None
    return dataclasses.replace(
        sight,
        focus=world.apply(sight.focus),
        distance=sight.distance * world.scale,
        middle=world.apply(sight.middle),
        extent=sight.extent * world.scale,
    )


def describe(sight: Sight, world: World) -> str:
    """One line: how large the object is, where it and the cameras stand, and what is done about it."""

    def place(point: np.ndarray) -> str:
        return "(" + ", ".join(f"{x:.3g}" for x in np.where(np.abs(point) < 1e-6 * sight.distance, 0.0, point)) + ")"

    if sight.middle is None:
        what = f"no masks tell the object's size; the cameras look at {place(sight.focus)}"
    else:
        what = f"the object spans about {sight.extent:.3g} units around {place(sight.middle)}"
    done = "as the method has it" if world.is_identity else f"scaled by {world.scale:.3g}"
    if not world.is_identity and float(np.linalg.norm(world.center)) > 1e-3 * sight.distance:
        done += f" and moved by {place(-world.center)}"
    return f"{what}; cameras at {sight.distance:.3g}; {done}"


def normalize(dataset: Dataset, boxes: Boxes | None = None) -> tuple[Dataset, str]:
    """A dataset at the method's size, its `world` telling how it came there; and one line about it.

    The same arrays where it `fits` already. `boxes` are those of its pictures; None: they are found.
    """
    sight = look(dataset.cameras, find_boxes(dataset.frames[..., 3]) if boxes is None else boxes)
    world = find_world(sight)
    return settle(place_dataset(dataset, world)), describe(sight, world)
