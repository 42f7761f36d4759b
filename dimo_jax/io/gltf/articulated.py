"""An articulated object as a GLB: a node for every link, hung on its parent, and animations that open and close it.

The node of a link stands at its joint and holds it in `extras.joint`; meshes keep their textures and colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, Joint, to_json
from dimo_jax.io.gltf.looks import LooksWriter
from dimo_jax.io.gltf.write import GlbBuilder
from dimo_jax.meshes.articulation import Articulation
from dimo_jax.meshes.objects import ObjectMesh, select_faces

SECONDS = 1.5  # from rest to a limit
_KEYS = 24  # from rest to a limit; of a whole turn each is well under half a turn, which is all that a key may be


def write_articulated_glb(articulation: Articulation, path: Path | str) -> Path:
    """Writes the object at rest with an animation `open_and_close` of all joints, and of each where there are more.

    Returns:
      `path`. Written atomically.
    """
    builder = GlbBuilder()
    looks = LooksWriter(builder)
    nodes: list[int] = []
    for index, link in enumerate(articulation.links):
        frame = articulation.frame_of(index)
        node: dict[str, Any] = {
            "name": link.name,
            "mesh": looks.add_mesh(link.name, link.vertices - frame, link.mesh),
        }
        if link.joint is not None:
            node |= {"translation": articulation.offset_of(index).tolist(), "extras": {"joint": to_json(link.joint)}}
        nodes.append(builder.add("nodes", node))
        if link.joint is not None:
            builder.json["nodes"][nodes[link.parent]].setdefault("children", []).append(nodes[-1])
    builder.json |= {"scene": 0, "scenes": [{"nodes": [nodes[0]]}]}
    moving = range(1, len(nodes))
    if moving:
        _add_animation(builder, "open_and_close", articulation, nodes, moving)
    for index in moving if len(moving) > 1 else ():
        _add_animation(builder, f"open_and_close_{articulation.links[index].name}", articulation, nodes, [index])
    return builder.write(path)


def write_object_glb(thing: ObjectMesh, path: Path | str) -> Path:
    """Writes a static object with its nodes, each under its own name and parent. Returns `path`. Atomic."""
    builder = GlbBuilder()
    looks = LooksWriter(builder)
    roots = []
    for index, (name, parent) in enumerate(zip(thing.node_names, thing.node_parents)):
        own = select_faces(thing, thing.triangle_nodes == index)
        builder.add("nodes", {"name": name})
        if len(own.triangles):
            builder.json["nodes"][index]["mesh"] = looks.add_mesh(name, own.vertices, own.mesh)
        if parent < 0:
            roots.append(index)
    for index, parent in enumerate(thing.node_parents):
        if parent >= 0:
            builder.json["nodes"][parent].setdefault("children", []).append(index)
    builder.json |= {"scene": 0, "scenes": [{"nodes": roots}]}
    return builder.write(path)


def opening_values(joint: Joint) -> np.ndarray:
    """Joint values from rest to the upper limit and back, then the lower one and back where that is not rest itself."""
    ease = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, _KEYS + 1))
    rest = float(np.clip(0.0, *joint.range))
    legs = [np.array([rest])]
    for limit in (joint.range[1], joint.range[0]):
        if abs(limit - rest) > 1e-3 * joint.span:
            there = rest + (limit - rest) * ease
            legs += [there[1:], there[-2::-1]]
    return np.concatenate(legs)


def _add_animation(
    builder: GlbBuilder, name: str, articulation: Articulation, nodes: Sequence[int], moving: Sequence[int]
) -> None:
    channels: list[dict[str, Any]] = []
    samplers: list[dict[str, Any]] = []
    for index in moving:
        joint = articulation.joints[index - 1]
        values = opening_values(joint)
        seconds = (np.arange(len(values)) * (SECONDS / _KEYS)).astype(np.float32)
        if joint.type == PRISMATIC:
            path, output = "translation", articulation.offset_of(index) + values[:, None] * joint.axis
        else:
            path = "rotation"
            half = values[:, None] / 2
            output = np.concatenate([np.sin(half) * joint.axis, np.cos(half)], axis=1)  # xyzw, as glTF has them
        samplers.append(
            {
                "input": builder.add_array(seconds, bounds=True),
                "output": builder.add_array(output.astype(np.float32)),
                "interpolation": "LINEAR",
            }
        )
        channels.append({"sampler": len(samplers) - 1, "target": {"node": nodes[index], "path": path}})
    builder.add("animations", {"name": name, "channels": channels, "samplers": samplers})
