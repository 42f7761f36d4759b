"""Motion of a skeleton as BVH (Biovision hierarchy), which animation programs read that read no glTF.

The format has rotations and no rest rotation: every joint's frame stands as the world does at rest. Rotations are
degrees, applied Z, X, Y in the moving frame. Bones keep their length; a joint that may leave its place is the root, or
hangs with offset zero below one that stands still, and only these have positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dimo_jax.core.errors import UserError
from dimo_jax.rigs.forward import Pose, Rig, place_nodes
from dimo_jax.rigs.markers import Joints
from dimo_jax.runtime.files import replace_file

_TURNS = "Zrotation Xrotation Yrotation"
_MOVES = "Xposition Yposition Zposition"
WORLD = "world"  # the root that carries several


def write_bvh(path: Path | str, rig: Rig, joints: Joints, pose: Pose, *, frame_rate: float) -> Path:
    """Writes the solved joints of a rig, atomically, in the file's units.

    Args:
      path: the file to write, ending in `.bvh`.
      rig: the model's nodes; its rest pose is that of the file.
      joints: see `find_joints`.
      pose: with a leading axis T; T is 1 or more.
      frame_rate: frames a second.

    Raises:
      UserError: a path that does not end in `.bvh`, or two joints of one name.
    """
    path = Path(path)
    if path.suffix.lower() != ".bvh":
        raise UserError(f"{path}: found the ending {path.suffix!r}, expected '.bvh'")
    names = _name_joints(path, rig, joints)
    solved = np.array(joints.solved)
    rest, moved = (np.asarray(place_nodes(rig, each), np.float64)[..., solved, :, :] for each in (rig.rest, pose))
    order, lines = _write_hierarchy(joints, names, rest)
    values = _write_motion(joints, order, rest, moved)
    lines += ["MOTION", f"Frames: {len(values)}", f"Frame Time: {1 / frame_rate:.9f}"]
    lines += [_numbers(row) for row in values]
    with replace_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    return path


def _name_joints(path: Path, rig: Rig, joints: Joints) -> list[str]:
    """A name of each solved joint, without spaces."""
    names = ["_".join(rig.names[node].split()) or f"node_{node}" for node in joints.solved]
    for name in names:
        if names.count(name) > 1:
            first, second = [node for node, other in zip(joints.solved, names) if other == name][:2]
            raise UserError(
                f"{path}: nodes[{first}] and nodes[{second}] of the model are both called {name!r}, expected one name "
                "for each joint"
            )
    return names


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.8g}" for value in values)


def _write_hierarchy(joints: Joints, names: list[str], rest: np.ndarray) -> tuple[list[int], list[str]]:
    """The joints in the order of their channels, and the lines that say what hangs below what."""
    order: list[int] = []
    tops = [index for index, parent in enumerate(joints.parents) if parent < 0]
    tips = dict(zip(joints.nodes[joints.num_heads :], joints.offsets[joints.num_heads :]))

    def describe(joint: int, depth: int) -> list[str]:
        order.append(joint)
        top = joints.parents[joint] < 0
        place = np.zeros(3) if top else rest[joint, :3, 3] - rest[joints.parents[joint], :3, 3]
        lines = [f"{'JOINT' if depth else 'ROOT'} {names[joint]}", "{", f"  OFFSET {_numbers(place)}"]
        lines.append(f"  CHANNELS 6 {_MOVES} {_TURNS}" if top else f"  CHANNELS 3 {_TURNS}")
        children = [index for index, parent in enumerate(joints.parents) if parent == joint]
        for child in children:
            lines += [f"  {line}" for line in describe(child, depth + 1)]
        if not children:
            tip = rest[joint, :3, :3] @ tips.get(joints.solved[joint], np.zeros(3))
            lines += ["  End Site", "  {", f"    OFFSET {_numbers(tip)}", "  }"]
        return [*lines, "}"]

    if len(tops) == 1:
        return order, ["HIERARCHY", *describe(tops[0], 0)]
    below = [f"  {line}" for top in tops for line in describe(top, 1)]
    return order, ["HIERARCHY", f"ROOT {WORLD}", "{", "  OFFSET 0 0 0", f"  CHANNELS 6 {_MOVES} {_TURNS}", *below, "}"]


def _write_motion(joints: Joints, order: list[int], rest: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Channel values [T,C] of the joints' matrices at rest [J,4,4] and in motion [T,J,4,4]."""
    turned = _turn(moved) @ _turn(rest).swapaxes(-1, -2)
    columns = [np.zeros((len(moved), 6))] if joints.parents.count(-1) > 1 else []
    for joint in order:
        parent = joints.parents[joint]
        local = turned[:, joint] if parent < 0 else turned[:, parent].swapaxes(-1, -2) @ turned[:, joint]
        angles = Rotation.from_matrix(local).as_euler("ZXY", degrees=True)
        columns += [moved[:, joint, :3, 3]] if parent < 0 else []
        columns.append(np.unwrap(angles, axis=0, period=360))
    return np.concatenate(columns, axis=1)


def _turn(matrices: np.ndarray) -> np.ndarray:
    """The nearest rotations [...,3,3] to the linear parts of matrices [...,4,4]; a mirror is taken out first."""
    linear = matrices[..., :3, :3]
    u, _, vt = np.linalg.svd(linear * np.where(np.linalg.det(linear) < 0, -1.0, 1.0)[..., None, None])
    return u @ vt
