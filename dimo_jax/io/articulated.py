"""Everything that simulators and viewers load of an articulated object, in one folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dimo_jax.io.gltf.articulated import write_articulated_glb
from dimo_jax.io.mesh_files import FOLDER, MeshFolder
from dimo_jax.io.mjcf import format_mjcf
from dimo_jax.io.urdf import format_urdf
from dimo_jax.io.usd import write_usd
from dimo_jax.meshes.articulation import Articulation, Physics, stand_up, turn_articulation, turn_physics

URDF, MJCF, GLB, USD = "object.urdf", "object.xml", "object.glb", "object.usda"


def write_articulation(
    articulation: Articulation, physics: Physics, folder: Path, *, name: str, up: np.ndarray, usd: bool = False
) -> list[str]:
    """Writes URDF, MJCF, an animated GLB, on demand USD, and the meshes and textures that they refer to.

    A fixed base keeps the object's own coordinates and is stood upright by the joint (or body) that holds it. A free
    base stands upright by itself, so meshes and joints of its URDF, MJCF and USD are turned to +Z up; those of USD,
    whose up is +Y or +Z, also where a fixed base has another up. The GLB keeps the object's coordinates.

    Args:
      articulation: in metres.
      physics: of it (`add_physics`).
      folder: an existing one.
      name: of the object, for the files' own use.
      up: [3] what is up in the object.
      usd: whether to write USD as well, which needs `usd-core`.

    Returns:
      The names of what was written in `folder`.
    """
    meshes = MeshFolder(folder / FOLDER)
    stand, placed = stand_up(up), articulation
    if not physics.fixed_base:
        placed, physics, stand = turn_articulation(articulation, stand), turn_physics(physics, stand), np.eye(3)
    surfaces = [meshes.write_link(link) for link in placed.links]
    pieces = [
        meshes.write_pieces(link.name, body.pieces) for link, body in zip(placed.links, physics.bodies, strict=True)
    ]
    for file, write in ((URDF, format_urdf), (MJCF, format_mjcf)):
        text = write(placed, physics, surfaces, pieces, name=name, stand=stand)
        (folder / file).write_text(text, encoding="utf-8")
    write_articulated_glb(articulation, folder / GLB)
    written = [URDF, MJCF, GLB, FOLDER]
    if usd:
        axis = "Y" if physics.fixed_base and up[1] > (1 - 1e-9) * np.linalg.norm(up) else "Z"
        if axis == "Z":  # a no-op where the object stands so already
            placed, physics = turn_articulation(placed, stand), turn_physics(physics, stand)
        write_usd(placed, physics, surfaces, folder / USD, up=axis)
        written.append(USD)
    return written
