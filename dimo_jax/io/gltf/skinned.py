"""An animated GLB: key points are the joints of a skin, their trajectories its animation, Gaussians its geometry.

A joint's node stands at the key point's track with its rotation, its inverse bind matrix moves the canonical key point
to the origin; so the joint carries x to R_k (x - p_k) + p_k + T_k, and skinning by the weights of Eq. 1 is Eq. 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.types import Gaussians
from dimo_jax.geometry import rotations
from dimo_jax.io.gltf.gaussians import add_unlit_material, linear_colors
from dimo_jax.io.gltf.write import INDICES, POINTS, TRIANGLES, VERTICES, GlbBuilder
from dimo_jax.io.motion import Motion, limit_influences
from dimo_jax.io.ply import find_drawable
from dimo_jax.io.splat import base_colors, unit_quats

GEOMETRIES = ("ellipsoids", "points")
SPREAD = 1.5  # standard deviations from an octahedron's centre to its corners
MIN_OPACITY = 0.3
OCTAHEDRON = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)
_FACES = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]


def find_shown(gaussians: Gaussians, *, geometry: str) -> np.ndarray:
    """Which Gaussians become geometry: mask [N]. Octahedra are opaque, so faint Gaussians get none."""
    alive, valid = find_drawable(gaussians)
    return alive & valid & (base_colors(gaussians)[:, 3] >= (MIN_OPACITY if geometry == "ellipsoids" else 0))


def add_joints(builder: GlbBuilder, positions: np.ndarray, rotations: np.ndarray) -> list[int]:
    """Nodes of K joints at rest, below one root that the scene must show.

    Args:
      builder: the file.
      positions: [K,3].
      rotations: [K,4] unit wxyz.

    Returns:
      Indices of the joints; their parent's is one more than the last.
    """
    joints = [
        builder.add(
            "nodes",
            {
                "name": f"key_point_{index:03d}",
                "translation": position.tolist(),
                "rotation": np.roll(rotation, -1).tolist(),
            },
        )
        for index, (position, rotation) in enumerate(zip(positions.astype(np.float32), rotations.astype(np.float32)))
    ]
    builder.add("nodes", {"name": "key_points", "children": joints})
    return joints


def add_animation(
    builder: GlbBuilder, name: str, joints: Sequence[int], seconds: np.ndarray, tracks: np.ndarray, turns: np.ndarray
) -> int:
    """An animation with two channels a joint: seconds [T], tracks [T,K,3], and turns [T,K,4] unit wxyz of one sign."""
    keys = builder.add_array(seconds.astype(np.float32), bounds=True)
    values = {
        "translation": builder.add_arrays(np.swapaxes(tracks, 0, 1).astype(np.float32)),
        "rotation": builder.add_arrays(np.swapaxes(np.roll(turns, -1, axis=-1), 0, 1).astype(np.float32)),
    }
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    for path, outputs in values.items():
        for joint, output in zip(joints, outputs):
            channels.append({"sampler": len(samplers), "target": {"node": joint, "path": path}})
            samplers.append({"input": keys, "output": output, "interpolation": "LINEAR"})
    return builder.add("animations", {"name": name, "samplers": samplers, "channels": channels})


def add_influences(builder: GlbBuilder, neighbors: np.ndarray, weights: np.ndarray) -> dict[str, int]:
    """Attributes JOINTS_0, WEIGHTS_0, JOINTS_1, ... of vertices: `limit_influences` with a multiple of four columns."""
    small = np.uint8 if neighbors.max(initial=0) < 256 else np.uint16
    attributes = {}
    for index in range(neighbors.shape[1] // 4):
        columns = slice(4 * index, 4 * index + 4)
        attributes[f"JOINTS_{index}"] = builder.add_array(neighbors[:, columns].astype(small), target=VERTICES)
        attributes[f"WEIGHTS_{index}"] = builder.add_array(weights[:, columns].astype(np.float32), target=VERTICES)
    return attributes


def write_skinned_glb(
    motion: Motion,
    path: Path | str,
    *,
    geometry: str = "ellipsoids",
    num_influences: int = 8,
    spread: float = SPREAD,
) -> tuple[np.ndarray, np.ndarray]:
    """Writes a motion, atomically.

    Rotations between key times are slerped and positions interpolated on straight lines, as glTF has it; at the key
    times the skin is Eq. 7 of the paper. Gaussians that are dead or invalid are left out.

    Args:
      motion: what to write.
      path: the file to write; by custom ends in `.glb`.
      geometry: "points", one point with colour and opacity a Gaussian, or "ellipsoids", an octahedron of its axes each,
        opaque, which turns with its key points. Programs that do not skin points (three.js) need the latter.
      num_influences: key points that move a vertex at most; rounded up to a multiple of four. Many engines read four.
      spread: standard deviations from an octahedron's centre to its corners.

    Returns:
      The neighbors and weights [N,num_influences] that were written, of all Gaussians of the motion.

    Raises:
      ValueError: an unknown geometry, or nothing to draw.
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f"geometry is {geometry!r}, expected one of {GEOMETRIES}")
    keep = find_shown(motion.canonical, geometry=geometry)
    neighbors, weights = limit_influences(motion.neighbors, motion.weights, -(-num_influences // 4) * 4)
    colors = linear_colors(motion.canonical)
    if not keep.any():
        raise ValueError(f"{path}: none of {len(keep)} Gaussians can be drawn, expected at least one")
    builder = GlbBuilder()
    if geometry == "points":
        vertices, corners, faces = np.asarray(motion.canonical.means)[keep], 1, None
    else:
        vertices, faces = _octahedra(motion, keep, spread)
        corners = len(OCTAHEDRON)
    shade = np.repeat(colors[keep], corners, axis=0)
    attributes = {
        "POSITION": builder.add_array(vertices.astype(np.float32), target=VERTICES, bounds=True),
        "COLOR_0": builder.add_array(shade, target=VERTICES, normalized=True),
        **add_influences(
            builder, np.repeat(neighbors[keep], corners, axis=0), np.repeat(weights[keep], corners, axis=0)
        ),
    }
    material = dict(alphaMode="BLEND") if faces is None else dict(alphaMode="OPAQUE", doubleSided=True)
    primitive: dict[str, Any] = {"attributes": attributes, "mode": POINTS if faces is None else TRIANGLES}
    primitive["material"] = add_unlit_material(builder, name="gaussians", **material)
    if faces is not None:
        primitive["indices"] = builder.add_array(faces.reshape(-1), target=INDICES)
    identity = np.tile([1.0, 0, 0, 0], (len(motion.rest), 1))
    joints = add_joints(builder, motion.rest, identity)
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (len(joints), 1, 1))
    inverse_bind[:, :3, 3] = -motion.rest
    root = len(builder.json["nodes"]) - 1
    skin = builder.add(
        "skins", {"joints": joints, "skeleton": root, "inverseBindMatrices": builder.add_array(inverse_bind)}
    )
    mesh = builder.add("meshes", {"name": "gaussians", "primitives": [primitive]})
    node = builder.add("nodes", {"name": motion.name, "mesh": mesh, "skin": skin})
    builder.json |= {"scene": 0, "scenes": [{"nodes": [root, node]}]}
    add_animation(builder, motion.name, joints, motion.seconds, motion.tracks, motion.turns)
    builder.write(path)
    return neighbors, weights


def _octahedra(motion: Motion, keep: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [6n,3] and triangles [8n,3] of canonical Gaussians."""
    axes = rotations.to_matrix(unit_quats(motion.canonical)[keep])
    scales = spread * np.exp(np.asarray(motion.canonical.log_scales, np.float32)[keep])
    corners = np.einsum("nab,nb,cb->nca", axes, scales, OCTAHEDRON) + np.asarray(motion.canonical.means)[keep][:, None]
    first = np.arange(len(corners), dtype=np.uint32) * len(OCTAHEDRON)
    return corners.reshape(-1, 3), (first[:, None, None] + np.asarray(_FACES, np.uint32)).reshape(-1, 3)
