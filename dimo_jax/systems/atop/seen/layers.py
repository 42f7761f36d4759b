"""Pictures of a body with its part in some pose, and where on the part every pixel looks: backends of one function.

A `Draw` is made by `draw_mesh` (the textured mesh, exact), `splats.draw_splats` (Gaussians on surface points through
the package's rasterizer) or `splats.draw_metaballs` (the same as fuzzy metaballs); a motion is explained by any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.meshes.objects import ObjectMesh, join_objects, move_object, select_faces
from dimo_jax.meshes.renderer import Material, Mesh, draw_backdrop, look_at, render_mesh


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
    views = split_cameras(cameras)
    blends = np.array([material.blend for material in body.mesh.materials], bool)[body.mesh.triangle_materials]
    glass, solid = select_faces(body, blends), select_faces(body, ~blends)
    # The body stands still: it is drawn once a view, and then only what moves, and what the part is seen through.
    behind = [draw_backdrop(solid.vertices, solid.mesh, view, samples=samples) for view in views]
    opaque = _make_opaque(body)
    hiding = [draw_backdrop(body.vertices, opaque, view, samples=1) for view in views]

    def draw(pose: np.ndarray, with_places: bool) -> Layers:
        moved = move_object(part, pose)
        drawn = join_objects([glass, moved]) if blends.any() else moved
        colors = np.stack(
            [
                premultiply(render_mesh(drawn.vertices, drawn.mesh, view, samples=samples, backdrop=each))
                for view, each in zip(views, behind)
            ]
        )
        empty = np.zeros(colors.shape[:3], bool)
        if not with_places:
            return Layers(colors, np.zeros((*empty.shape, 3), np.float32), empty, empty)
        looks = [
            look_at(moved.vertices, moved.mesh, view, part.vertices, backdrop=each) for view, each in zip(views, hiding)
        ]
        places, seen, there = (np.stack(column) for column in zip(*looks))
        return Layers(colors, places, seen, there & ~seen)

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


def _make_opaque(thing: ObjectMesh) -> Mesh:
    """The same surface, of which nothing lets light through."""
    mesh: Mesh = thing.mesh
    solid = tuple(Material(np.ones(4), unlit=True, double_sided=each.double_sided) for each in mesh.materials)
    return replace(mesh, materials=solid, colors=np.ones_like(mesh.colors), emissive_texcoords=None)
