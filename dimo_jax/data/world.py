"""Where the method's world stands in the user's: one scale, one rotation and one centre, kept with the data.

The method's lengths (the ball that it starts from, the sizes of its first Gaussians, its learning rates) are those of
an object about 1 across at the origin, +Y up, seen from a distance of about 2. A user's point p stands there at
`scale * rotation @ (p - center)`. Datasets and runs record these, so that exports come back to the user's place.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.dataset import Dataset, surface_height
from dimo_jax.geometry.world import World
from dimo_jax.io.json_fields import get_array, get_field

KINDS = ("cameras", "model")


def parse_world(table: Any, where: str) -> World | None:
    """The field `world` of a JSON object, as `World.to_json` writes it; None where there is none.

    Raises:
      UserError: a part that is missing, of a wrong type, or no rotation or scale.
    """
    if get_field(table, "world", (dict, type(None)), where, default=None) is None:
        return None
    table, where = table["world"], f"{where}: world"
    scale = float(get_field(table, "scale", (int, float), where))
    if not 0 < scale < np.inf:
        raise UserError(f"{where}: scale is {scale}, expected a number above 0")
    rotation = get_array(table, "rotation", (3, 3), where, dtype=np.float64)
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-6 or np.linalg.det(rotation) < 0:
        raise UserError(f"{where}: rotation is none, expected an orthonormal 3 x 3 matrix")
    of = get_field(table, "of", str, where)
    if of not in KINDS:
        raise UserError(f"{where}: of is {of[:40]!r}, expected one of {', '.join(KINDS)}")
    return World(scale, get_array(table, "center", (3,), where, dtype=np.float64), rotation, of)


def describe_world(world: World) -> str:
    """Where a recorded world stands, in a few words."""
    center = ", ".join(f"{x:.3g}" for x in np.where(np.abs(world.center) * world.scale < 1e-6, 0.0, world.center))
    turned = "" if np.array_equal(world.rotation, np.eye(3)) else ", turned upright"
    return f"the source's coordinates are scaled by {world.scale:.3g} around ({center}){turned}"


def place_cameras(cameras: Camera, world: World) -> Camera:
    """Cameras of the user's world in the method's: world_to_camera [V,4,4] float64; their pictures stay the same."""
    poses = np.asarray(cameras.world_to_camera, np.float64)
    if not world.is_identity:
        turned = poses[:, :3, :3] @ world.rotation.T
        moved = world.scale * (poses[:, :3, :3] @ world.center + poses[:, :3, 3])
        poses = np.concatenate([np.concatenate([turned, moved[..., None]], axis=-1), poses[:, 3:]], axis=1)
    return dataclasses.replace(cameras, world_to_camera=poses)  # type: ignore[arg-type]


def settle(dataset: Dataset) -> Dataset:
    """The dataset with cameras of float32, which has digits enough once they stand near the origin."""
    poses = np.asarray(dataset.cameras.world_to_camera, np.float32)
    cameras = dataclasses.replace(dataset.cameras, world_to_camera=poses)  # type: ignore[arg-type]
    return dataclasses.replace(dataset, cameras=cameras)


def place_dataset(dataset: Dataset, step: World) -> Dataset:
    """A dataset whose own coordinates go through one more `step`; its truth and its `world` follow, pictures stay."""
    before = dataset.world or World(of=step.of)
    placed = dataclasses.replace(dataset, world=before.then(step), cameras=place_cameras(dataset.cameras, step))
    if step.is_identity:
        return placed

    def move(points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else step.apply(points).astype(np.float32)

    surface = move(dataset.surface)
    height = None if dataset.height is None else dataset.height * step.scale
    return dataclasses.replace(
        placed,
        surface=surface,
        joints=move(dataset.joints),
        height=height if surface is None else surface_height(surface),
    )


def bring_into(dataset: Dataset, world: World) -> Dataset:
    """The dataset in another world than its own: that in which a model was trained.

    Both must stand in the same user's world: recorded from the same kind of source, or the dataset's not known.
    """
    own = dataset.world or World(of=world.of)
    step = World(of=world.of) if own.same_place(world) else own.inverse().then(world)
    return dataclasses.replace(settle(place_dataset(dataset, step)), world=world)
