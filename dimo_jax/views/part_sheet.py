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
    mesh = replace(
        thing.mesh,
        materials=materials,
        triangle_materials=np.asarray(faces, np.int32),
        colors=np.ones_like(thing.mesh.colors),
    )
    low, high, diagonal = bounds(thing.vertices[np.unique(thing.triangles)])
    vertices = (thing.vertices - (low + high) / 2) / diagonal
    pictures = [render_mesh(vertices, mesh, _camera(azimuth + turn, size), samples=1) for turn in (0.0, 180.0)]
    red = [int(((each[..., 0] > each[..., 1].astype(int) + 40) & (each[..., 3] > 0)).sum()) for each in pictures]
    chosen = pictures[int(np.argmax(red))].astype(np.float64)
    alpha = chosen[..., 3:] / 255
    return np.rint(chosen[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _camera(azimuth: float, size: int) -> Camera:
    """Looks at the origin from `_DISTANCE`, 25 degrees above."""
    cameras = orbit([azimuth], 25.0, radius=_DISTANCE, fov_deg=34.0, height=size, width=size)
    return replace(
        cameras, world_to_camera=cameras.world_to_camera[0], focal=cameras.focal[0], center=cameras.center[0]
    )
