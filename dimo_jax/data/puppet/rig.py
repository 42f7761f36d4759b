"""The embedded character as a rigged GLB: its primitives as one skinned mesh, its joints as nodes, motions as clips.

    python -m dimo_jax.data.puppet.rig puppet.glb

Every vertex follows one joint with weight 1, so the skin is the puppet's own surface at every key time. The joints at
the ends of hands, feet and head move nothing, as such joints do in real files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.data.puppet import body
from dimo_jax.data.puppet.catalog import MOTIONS
from dimo_jax.data.puppet.raycast import RoundCones, paint
from dimo_jax.io.gltf.skinned import add_influences
from dimo_jax.io.gltf.write import INDICES, TRIANGLES, VERTICES, GlbBuilder
from dimo_jax.rigs.forward import to_wxyz
from dimo_jax.rigs.sampling import keep_sign

NUM_MOTIONS, NUM_FRAMES, FRAME_RATE = 12, 41, 20.0
SIDES, RINGS = 16, 6  # of every primitive: corners around, and rings of each of its two caps


def write_puppet_rig(
    path: Path | str,
    *,
    num_motions: int = NUM_MOTIONS,
    num_frames: int = NUM_FRAMES,
    frame_rate: float = FRAME_RATE,
) -> Path:
    """Writes the puppet, atomically: world units, the rest pose that its motions begin with.

    Args:
      path: the file to write, ending in `.glb`.
      num_motions: clips, the first of the catalog.
      num_frames: keys of each, at equal steps from its first to its last instant; at least 2.
      frame_rate: keys a second.

    Raises:
      UserError: more motions than there are, or a path that does not end in `.glb`.
    """
    if not 1 <= num_motions <= len(MOTIONS):
        raise UserError(f"num_motions: found {num_motions}, expected 1 to {len(MOTIONS)}")
    if Path(path).suffix.lower() != ".glb":
        raise UserError(f"{path}: found the ending {Path(path).suffix!r}, expected '.glb'")
    builder = GlbBuilder()
    joints = _add_joints(builder)
    mesh = _add_mesh(builder)
    rest = _world_frames({}, 1)[0]
    inverse_bind = builder.add_array(np.linalg.inv(rest).astype(np.float32))
    skin = builder.add("skins", {"joints": joints, "skeleton": joints[0], "inverseBindMatrices": inverse_bind})
    node = builder.add("nodes", {"name": "puppet", "mesh": mesh, "skin": skin})
    builder.json |= {"scene": 0, "scenes": [{"nodes": [joints[0], node]}]}
    for motion in MOTIONS[:num_motions]:
        curves = motion.curves(np.linspace(0.0, 1.0, num_frames))
        _add_clip(builder, motion.name, joints, curves, np.arange(num_frames) / frame_rate)
    return builder.write(path)


def _world_frames(curves: dict[str, np.ndarray], num_frames: int) -> np.ndarray:
    """Joint-to-world matrices [T,Jn,4,4]."""
    local, places = body.turn_joints(curves, num_frames), body.pose(curves, num_frames).joints
    frames = np.tile(np.eye(4), (*places.shape[:2], 1, 1))
    frames[..., :3, 3] = places
    for index, joint in enumerate(body.JOINTS):
        above = frames[:, body.JOINT_NAMES.index(joint.parent), :3, :3] if joint.parent else np.eye(3)
        frames[:, index, :3, :3] = above @ local[:, index]
    return frames


def _add_joints(builder: GlbBuilder) -> list[int]:
    turns, root = to_wxyz(body.turn_joints({}, 1)[0]), body.pose({}, 1).joints[0, 0]
    for index, joint in enumerate(body.JOINTS):
        place = root if joint.parent is None else np.multiply(joint.offset, body.SIZE)
        children = [number for number, other in enumerate(body.JOINTS) if other.parent == joint.name]
        entry = {"name": joint.name, "translation": place.tolist(), "rotation": np.roll(turns[index], -1).tolist()}
        builder.add("nodes", entry | ({"children": children} if children else {}))
    return list(range(len(body.JOINTS)))


def _add_mesh(builder: GlbBuilder) -> int:
    cones, rest = body.round_cones(), body.pose({}, 1)
    local, faces = _tessellate(cones)
    colors = paint(cones, local) ** 2.2  # the puppet's colours are meant as sRGB
    world = rest.positions[0][:, None] + np.einsum("pab,prb->pra", rest.rotations[0], local)
    owners = np.array([body.JOINT_NAMES.index(part.joint) for part in body.PARTS])
    influences = np.zeros((world.shape[0] * world.shape[1], 4), np.int64)
    influences[:, 0] = np.repeat(owners, world.shape[1])
    weights = np.tile(np.array([1, 0, 0, 0], np.float32), (len(influences), 1))
    triangles = faces[None] + np.arange(len(world))[:, None, None] * world.shape[1]
    attributes = {
        "POSITION": builder.add_array(world.reshape(-1, 3).astype(np.float32), target=VERTICES, bounds=True),
        "COLOR_0": builder.add_array(
            np.c_[colors.reshape(-1, 3), np.ones(len(influences))].astype(np.float32), target=VERTICES
        ),
        **add_influences(builder, influences, weights),
    }
    material = builder.add("materials", {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 0.9}})
    indices = builder.add_array(triangles.reshape(-1).astype(np.uint32), target=INDICES)
    primitive = {"attributes": attributes, "indices": indices, "material": material, "mode": TRIANGLES}
    return builder.add("meshes", {"name": "puppet", "primitives": [primitive]})


def _tessellate(cones: RoundCones) -> tuple[np.ndarray, np.ndarray]:
    """Surface points [P,R,3] of the primitives in their frames, after scaling, and the triangles [F,3] of each."""
    low, high = cones.radii.T
    sine = (low - high) / np.where(cones.length > 0, cones.length, np.inf)
    touch = np.arcsin(sine)[:, None]  # the latitude of the circles where the cone touches its two spheres
    steps = np.linspace(0, 1, RINGS)
    latitude = np.concatenate([-np.pi / 2 + steps * (touch + np.pi / 2), touch + steps * (np.pi / 2 - touch)], axis=1)
    radius = np.repeat(cones.radii, RINGS, axis=1)
    height = radius * np.sin(latitude) + np.repeat(np.stack([0 * low, cones.length], axis=1), RINGS, axis=1)
    around = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
    ring = (radius * np.cos(latitude))[:, :, None]
    points = np.stack(np.broadcast_arrays(ring * np.sin(around), height[:, :, None], ring * np.cos(around)), axis=-1)
    points = points * cones.scale[:, None, None]
    a = (np.arange(2 * RINGS - 1)[:, None] * SIDES + np.arange(SIDES)).reshape(-1)
    b = (np.arange(2 * RINGS - 1)[:, None] * SIDES + (np.arange(SIDES) + 1) % SIDES).reshape(-1)
    faces = np.concatenate([np.stack([a, b, a + SIDES], axis=1), np.stack([b, b + SIDES, a + SIDES], axis=1)])
    return points.reshape(len(points), -1, 3), faces


def _add_clip(
    builder: GlbBuilder, name: str, joints: list[int], curves: dict[str, np.ndarray], seconds: np.ndarray
) -> None:
    """An animation: the root's path, and the turns of all joints that have any."""
    turning = [joint for joint in joints if any(body.JOINTS[joint].signs)]
    turns = keep_sign(to_wxyz(body.turn_joints(curves, len(seconds))))
    keys = builder.add_array(seconds.astype(np.float32), bounds=True)
    path = builder.add_array(body.pose(curves, len(seconds)).joints[:, 0].astype(np.float32))
    stored = np.roll(turns[:, turning], -1, axis=-1).swapaxes(0, 1).astype(np.float32)
    outputs = [path, *builder.add_arrays(stored)]
    targets = [(joints[0], "translation"), *((joint, "rotation") for joint in turning)]
    builder.add(
        "animations",
        {
            "name": name,
            "samplers": [{"input": keys, "output": output, "interpolation": "LINEAR"} for output in outputs],
            "channels": [
                {"sampler": index, "target": {"node": node, "path": where}}
                for index, (node, where) in enumerate(targets)
            ],
        },
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dimo_jax.data.puppet.rig FILE.glb")
    try:
        print(write_puppet_rig(sys.argv[1]))
    except UserError as error:
        sys.exit(f"error: {error}")
