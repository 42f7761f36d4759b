"""Pictures of a body with its part in some pose, and where on the part every pixel looks: backends of one function.

A `Draw` is made by `draw_mesh` (the textured mesh, exact), `splats.draw_splats` (Gaussians on surface points through
the package's rasterizer) or `splats.draw_metaballs` (the same as fuzzy metaballs); a motion is explained by any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.meshes.objects import ObjectMesh, bounds, join_objects, move_object, select_faces
from dimo_jax.meshes.renderer import Material, Mesh, find_seen, render_mesh

_LOW, _HIGH = 0.25, 1.0  # places are drawn as colours in this range, so that the body can be black


@dataclass(frozen=True)
class Layers:
    """One pose, seen by V cameras."""

    colors: np.ndarray  # [V,H,W,4] float32 premultiplied, 0..1, sRGB
    places: np.ndarray  # [V,H,W,3] float32, the point of the part at rest that a pixel looks at; anything where none
    seen: np.ndarray  # [V,H,W] bool, the part is in front
    hidden: np.ndarray  # [V,H,W] bool, the part is there, but something is in front of it


Draw = Callable[[np.ndarray, bool], Layers]  # (pose [4,4], whether places are needed) -> Layers
MakeDraw = Callable[[ObjectMesh, ObjectMesh, Camera], Draw]  # of body, part and V cameras


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
    # What of the body no view ever sees costs as much to draw as what it sees.
    bodies = [select_faces(body, find_seen(body.vertices, body.mesh, view, samples=samples)) for view in views]
    darks = [_paint(each, np.zeros((len(each.vertices), 3))) for each in bodies]
    bright = _paint(part, _LOW + (_HIGH - _LOW) * (part.vertices - low) / span)

    def draw(pose: np.ndarray, with_places: bool) -> Layers:
        moved = move_object(part, pose)
        colors = np.stack([_render(join_objects([each, moved]), view, samples) for each, view in zip(bodies, views)])
        empty = np.zeros(colors.shape[:3], bool)
        if not with_places:
            return Layers(colors, np.zeros((*empty.shape, 3), np.float32), empty, empty)
        marked = [join_objects([dark, move_object(bright, pose)]) for dark in darks]
        flat = np.stack([render_mesh(each.vertices, each.mesh, view, samples=1) for each, view in zip(marked, views)])
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
