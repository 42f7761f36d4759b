"""A small rigged creature: eight joints, of which one carries no weight and two coincide, and one clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from support.gltf_writer import Writer

# name, parent, translation at rest, and where its box of vertices lies in its own frame (None: no weight)
JOINTS = (
    ("root", -1, (0.0, 1.0, 0.0), None),
    ("hips", 0, (0.0, 0.0, 0.0), (0.0, 0.2, 0.0)),
    ("chest", 1, (0.0, 0.5, 0.0), (0.0, 0.2, 0.1)),
    ("twist", 2, (0.0, 0.0, 0.0), (0.1, 0.2, 0.0)),
    ("arm_l", 2, (0.3, 0.2, 0.0), (0.2, 0.0, 0.0)),
    ("hand_l", 4, (0.4, 0.0, 0.0), (0.2, 0.0, 0.05)),
    ("arm_r", 2, (-0.3, 0.2, 0.0), (-0.2, 0.0, 0.0)),
    ("leg", 1, (0.1, -0.5, 0.0), (0.0, -0.3, 0.1)),
)
_BOX = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float) * 0.08
_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]])


def write_small_rig(path: Path, *, clip: bool = True, skin: bool = True) -> Path:
    """Writes the creature; `clip`: two seconds in which it turns, bends both arms and its leg, and moves."""
    writer = Writer()
    heads: list[np.ndarray] = []
    for name, parent, translation, _ in JOINTS:
        heads.append(np.array(translation) + (heads[parent] if parent >= 0 else 0))
        writer.add("nodes", {"name": name, "translation": list(translation)})
    for index in range(len(JOINTS)):
        children = [child for child, joint in enumerate(JOINTS) if joint[1] == index]
        if children:
            writer.json["nodes"][index]["children"] = children
    positions, joints, faces = [], [], []
    for index, (*_, box) in enumerate(JOINTS):
        if box is not None:
            faces.append(_FACES + 8 * len(positions))
            positions.append(_BOX + np.array(box) + heads[index])
            joints.append(np.tile([index, 0, 0, 0], (8, 1)))
    attributes = {"POSITION": writer.accessor(np.concatenate(positions).astype(np.float32))}
    mesh_node: dict[str, object] = {"name": "body"}
    if skin:
        inverse_bind = np.tile(np.eye(4, dtype=np.float32), (len(JOINTS), 1, 1))
        inverse_bind[:, 3, :3] = -np.array(heads)  # stored by columns
        writer.add("skins", {"joints": list(range(len(JOINTS))), "inverseBindMatrices": writer.accessor(inverse_bind)})
        attributes["JOINTS_0"] = writer.accessor(np.concatenate(joints).astype(np.uint8))
        weights = np.tile(np.array([1, 0, 0, 0], np.float32), (8 * len(joints), 1))
        attributes["WEIGHTS_0"] = writer.accessor(weights)
        mesh_node["skin"] = 0
    indices = writer.accessor(np.concatenate(faces).reshape(-1).astype(np.uint16))
    mesh_node["mesh"] = writer.add("meshes", {"primitives": [{"attributes": attributes, "indices": indices}]})
    body = writer.add("nodes", mesh_node)
    writer.add("scenes", {"nodes": [0, body]})
    if clip:
        _add_clip(writer)
    return writer.write(path)


def _add_clip(writer: Writer) -> None:
    times = np.linspace(0, 2, 9)
    swing = np.sin(np.pi * times)
    turns = {
        "hips": np.outer(0.6 * swing, [0, 1, 0]),
        "chest": np.outer(0.3 * swing, [1, 0, 0]),
        "arm_l": np.outer(0.8 * swing, [0, 0, 1]),
        "hand_l": np.outer(0.5 * np.sin(2 * np.pi * times), [0, 1, 0]),
        "arm_r": np.outer(0.9 * swing, [0, 1, 0]),
        "leg": np.outer(0.5 * swing, [1, 0, 0]),
    }
    keys = writer.accessor(times.astype(np.float32))
    samplers, channels = [], []
    names = [joint[0] for joint in JOINTS]
    for name, turn in turns.items():
        output = writer.accessor(Rotation.from_rotvec(turn).as_quat().astype(np.float32))
        channels.append({"sampler": len(samplers), "target": {"node": names.index(name), "path": "rotation"}})
        samplers.append({"input": keys, "output": output})
    path = np.stack([0.2 * swing, 1 + 0.1 * np.abs(swing), 0 * swing], axis=-1)
    channels.append({"sampler": len(samplers), "target": {"node": 0, "path": "translation"}})
    samplers.append({"input": keys, "output": writer.accessor(path.astype(np.float32))})
    writer.add("animations", {"name": "Swing", "samplers": samplers, "channels": channels})
