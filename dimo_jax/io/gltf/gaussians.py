"""Gaussians at one time as a GLB with the ratified extension KHR_gaussian_splatting, kernel "ellipse".

A primitive of points with POSITION, KHR_gaussian_splatting:ROTATION (xyzw, unit), :SCALE (linear), :OPACITY (0..1) and
:SH_DEGREE_l_COEF_n, whose order and signs are those of 3DGS. COLOR_0 holds linear colour and opacity for viewers that
know only points. Source: KhronosGroup/glTF, extensions/2.0/Khronos/KHR_gaussian_splatting.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dimo_jax.core.types import Gaussians
from dimo_jax.geometry.harmonics import degree_of
from dimo_jax.io.gltf.write import POINTS, VERTICES, GlbBuilder
from dimo_jax.io.ply import Written, find_drawable
from dimo_jax.io.splat import base_colors, unit_quats
from dimo_jax.meshes.textures import decode_srgb

EXTENSION = "KHR_gaussian_splatting"


def linear_colors(gaussians: Gaussians) -> np.ndarray:
    """`splat.base_colors` for COLOR_0: [N,4] uint16, normalized, linear light and straight alpha."""
    colors = base_colors(gaussians)
    colors[:, :3] = decode_srgb(colors[:, :3])
    return np.rint(65535 * colors).astype(np.uint16)


def add_unlit_material(builder: GlbBuilder, **entry: object) -> int:
    """A material that shows colours as they are, because those of Gaussians contain their light."""
    builder.use_extension("KHR_materials_unlit")
    surface = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    return builder.add(
        "materials", {"pbrMetallicRoughness": surface, "extensions": {"KHR_materials_unlit": {}}, **entry}
    )


def write_gaussian_glb(gaussians: Gaussians, path: Path | str, *, name: str = "gaussians") -> Written:
    """Writes Gaussians, atomically; dead and invalid ones are left out and counted as in `ply.write_gaussians`.

    Args:
      gaussians: without batch axes (means [N,3]; sh [N,(degree+1)^2,3]); at least one must be drawable.
      path: the file to write; by custom ends in `.glb`.
      name: of the mesh and its node.

    Raises:
      ValueError: nothing to draw; glTF has no empty primitives.
    """
    alive, valid = find_drawable(gaussians)
    keep = alive & valid
    if not keep.any():
        raise ValueError(f"{path}: none of {len(keep)} Gaussians can be drawn, expected at least one")
    sh = np.asarray(gaussians.sh, np.float32)[keep]
    columns = {
        "POSITION": np.asarray(gaussians.means, np.float32)[keep],
        f"{EXTENSION}:ROTATION": np.roll(unit_quats(gaussians)[keep], -1, axis=1),
        f"{EXTENSION}:SCALE": np.exp(np.asarray(gaussians.log_scales, np.float32)[keep]),
        f"{EXTENSION}:OPACITY": base_colors(gaussians)[keep, 3],
    }
    for degree in range(degree_of(gaussians.sh) + 1):
        for order in range(2 * degree + 1):
            columns[f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{order}"] = sh[:, degree**2 + order]
    builder = GlbBuilder()
    builder.use_extension(EXTENSION)
    attributes = {
        key: builder.add_array(values, target=VERTICES, bounds=key == "POSITION") for key, values in columns.items()
    }
    attributes["COLOR_0"] = builder.add_array(linear_colors(gaussians)[keep], target=VERTICES, normalized=True)
    primitive = {
        "attributes": attributes,
        "mode": POINTS,
        "material": add_unlit_material(builder, name="points", alphaMode="BLEND"),
        "extensions": {EXTENSION: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}},
    }
    mesh = builder.add("meshes", {"name": name, "primitives": [primitive]})
    builder.json |= {"scene": 0, "scenes": [{"nodes": [builder.add("nodes", {"name": name, "mesh": mesh})]}]}
    builder.write(path)
    return Written(int(keep.sum()), int((~alive).sum()), int((alive & ~valid).sum()))
