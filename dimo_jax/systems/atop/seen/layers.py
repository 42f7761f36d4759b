"""Pictures of a body with its part in some pose, and where on the part every pixel looks: backends of one function.

A `Draw` is made by `draw_mesh` (the textured mesh, exact) or `splats.draw_splats` (Gaussians on surface points through
the package's rasterizer); a motion is explained by either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.meshes.objects import ObjectMesh, bounds, join_objects, move_object
from dimo_jax.meshes.renderer import Material, Mesh, render_mesh

_LOW, _HIGH = 0.25, 1.0  # places are drawn as colours in this range, so that the body can be black


@dataclass(frozen=True)
class Layers:
    """One pose, seen by V cameras."""

    colors: np.ndarray  # [V,H,W,4] float32 premultiplied, 0..1, sRGB
    places: np.ndarray  # [V,H,W,3] float32, the point of the part at rest that a pixel looks at; anything where none
    seen: np.ndarray  # [V,H,W] bool, the part is in front
    hidden: np.ndarray  # [V,H,W] bool, the part is there, but something is in front of it


Draw = Callable[[np.ndarray, bool], Layers]  # (pose [4,4], whether places are needed) -> Layers


def draw_mesh(body: ObjectMesh, part: ObjectMesh, cameras: Camera, *, samples: int = 2) -> Draw:
    """Draws the mesh itself with `meshes.renderer`.

    Args:
      body, part: in the coordinates of the cameras.
      cameras: V views, arrays stacked.
      samples: a pixel and axis.
    """
    low, high, _ = bounds(part.vertices)
    span = np.maximum(high - low, 1e-9)
    views = split_cameras(cameras)
    dark = _paint(body, np.zeros((len(body.vertices), 3)))
    bright = _paint(part, _LOW + (_HIGH - _LOW) * (part.vertices - low) / span)

    def draw(pose: np.ndarray, with_places: bool) -> Layers:
        moved = move_object(part, pose)
        whole = join_objects([body, moved])
        colors = np.stack([_render(whole, view, samples) for view in views])
        empty = np.zeros(colors.shape[:3], bool)
        if not with_places:
            return Layers(colors, np.zeros((*empty.shape, 3), np.float32), empty, empty)
        marked = join_objects([dark, move_object(bright, pose)])
        flat = np.stack([render_mesh(marked.vertices, marked.mesh, view, samples=1) for view in views])
        alone = np.stack([render_mesh(moved.vertices, bright.mesh, view, samples=1)[..., 3] > 0 for view in views])
        linear = _to_linear(flat[..., :3])
        seen = np.all(linear > 0.5 * _LOW, axis=-1)
        places = (low + span * (linear - _LOW) / (_HIGH - _LOW)).astype(np.float32)
        return Layers(colors, places, np.asarray(seen), alone & ~seen)

    return draw


def split_cameras(cameras: Camera) -> list[Camera]:
    """One camera a view."""
    count = len(cameras.world_to_camera)
    focal = np.broadcast_to(np.asarray(cameras.focal), (count, 2))
    return [
        replace(
            cameras, world_to_camera=np.asarray(cameras.world_to_camera)[i], focal=focal[i], center=cameras.center[i]
        )
        for i in range(count)
    ]


def premultiply(images: np.ndarray) -> np.ndarray:
    """uint8 [...,4] with straight alpha -> float32 [...,4] premultiplied, 0..1."""
    scaled = images.astype(np.float32) / 255
    scaled[..., :3] *= scaled[..., 3:]
    return scaled


def _render(thing: ObjectMesh, camera: Camera, samples: int) -> np.ndarray:
    return premultiply(render_mesh(thing.vertices, thing.mesh, camera, samples=samples))


def _paint(thing: ObjectMesh, colors: np.ndarray) -> ObjectMesh:
    """The same surface in unlit vertex colours [P,3], linear."""
    mesh: Mesh = thing.mesh
    sides = [Material(np.ones(4), unlit=True, double_sided=material.double_sided) for material in mesh.materials]
    rgba = np.concatenate([colors, np.ones((len(colors), 1))], axis=-1)
    return replace(thing, mesh=replace(mesh, materials=tuple(sides), colors=rgba, emissive_texcoords=None))


def _to_linear(encoded: np.ndarray) -> np.ndarray:
    """sRGB bytes to linear light, 0..1."""
    value = encoded.astype(np.float32) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
