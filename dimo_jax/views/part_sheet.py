"""A picture of the parts that can be chosen, numbered: what `--list_parts` draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Camera
from dimo_jax.io.images import INK, font
from dimo_jax.meshes.objects import ObjectMesh, bounds
from dimo_jax.meshes.parts import SHOWN, PartChoice
from dimo_jax.meshes.renderer import Material, render_mesh

GREY, RED = (0.55, 0.55, 0.58, 1.0), (0.85, 0.12, 0.08, 1.0)
_DISTANCE = 1.9  # diagonals
_LABEL = 20  # pixels


def draw_parts(thing: ObjectMesh, choices: Sequence[PartChoice], *, size: int = 220) -> np.ndarray:
    """A tile for each of the first `SHOWN` parts, the part red in the grey object, under its number and label.

    Args:
      thing: the object.
      choices: of `list_parts`.
      size: pixels of a tile.

    Returns:
      uint8 [H,W,3].
    """
    shown = list(choices)[:SHOWN]
    columns = min(4, max(1, math.ceil(math.sqrt(len(shown)))))
    rows = max(1, math.ceil(len(shown) / columns))
    sheet = Image.new("RGB", (columns * size, rows * (size + _LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, choice in enumerate(shown):
        left, top = index % columns * size, index // columns * (size + _LABEL)
        label = f"{choice.number}  {choice.label}"[:40]
        pen.text((left + 4, top + 3), label, fill=INK, font=font(13))
        sheet.paste(Image.fromarray(draw_part(thing, choice.faces, size=size)), (left, top + _LABEL))
    return np.asarray(sheet)


def draw_part(thing: ObjectMesh, faces: np.ndarray, *, size: int = 220, azimuth: float = 35.0) -> np.ndarray:
    """The object in grey with the triangles `faces` [F] bool in red, seen from where more shows, [size,size,3]."""
    materials = tuple(Material(np.array(color)) for color in (GREY, RED))
    faces = np.asarray(faces, bool)
    mesh = replace(
        thing.mesh,
        materials=materials,
        triangle_materials=faces.astype(np.int32),
        colors=np.ones_like(thing.mesh.colors),
    )
    low, high, diagonal = bounds(thing.vertices[np.unique(thing.triangles)])
    vertices = (thing.vertices - (low + high) / 2) / diagonal
    alone = replace(mesh, triangles=mesh.triangles[faces], triangle_materials=mesh.triangle_materials[faces])
    cameras = [_camera(azimuth + turn, size) for turn in (0.0, 180.0)]
    pictures = [_on_white(render_mesh(vertices, mesh, camera, samples=1)) for camera in cameras]
    red = [int((each[..., 0] > each[..., 1] + 40).sum()) for each in pictures]
    chosen = int(np.argmax(red))
    picture = pictures[chosen]
    if alone.triangles.size:  # what lies behind shines through
        shape = render_mesh(vertices, alone, cameras[chosen], samples=1)
        picture = np.where(shape[..., 3:] > 0, (picture + _on_white(shape)) / 2, picture)
    return np.rint(picture).astype(np.uint8)


def _on_white(image: np.ndarray) -> np.ndarray:
    """Straight RGBA [H,W,4] uint8 over white -> [H,W,3] float in 0..255."""
    alpha = image[..., 3:] / 255
    return image[..., :3] * alpha + 255 * (1 - alpha)


def _camera(azimuth: float, size: int) -> Camera:
    """Looks at the origin from `_DISTANCE`, 25 degrees above."""
    cameras = orbit([azimuth], 25.0, radius=_DISTANCE, fov_deg=34.0, height=size, width=size)
    return replace(
        cameras, world_to_camera=cameras.world_to_camera[0], focal=cameras.focal[0], center=cameras.center[0]
    )
