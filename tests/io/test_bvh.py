"""BVH files, read back by an independent library."""

import numpy as np
import pytest
from support.puppet_rig import puppet_scene

from dimo_jax.core.errors import UserError
from dimo_jax.io.bvh import write_bvh
from dimo_jax.rigs.forward import make_rig, place_nodes
from dimo_jax.rigs.markers import find_joints
from dimo_jax.rigs.sampling import sample_clip

FRAMES = 5


def _setting():
    scene = puppet_scene()
    rig = make_rig(scene)
    return rig, find_joints(scene), sample_clip(rig, scene.clips[2], np.linspace(0, 1, FRAMES))


def test_an_independent_reader_finds_the_joints_where_they_are(tmp_path):
    bvhio = pytest.importorskip("bvhio", reason="bvhio, an independent reader of BVH, is not installed")
    rig, joints, pose = _setting()
    path = write_bvh(tmp_path / "a.bvh", rig, joints, pose, frame_rate=8)
    root = bvhio.readAsHierarchy(str(path))
    matrices = np.asarray(place_nodes(rig, pose))
    assert np.ptp(matrices[:, list(joints.solved), :3, 3], axis=0).max() > 0.05
    for frame in range(FRAMES):
        root.loadPose(frame)
        found = {joint.Name: np.array(joint.PositionWorld) for joint, *_ in root.layout()}
        for node in joints.solved:
            np.testing.assert_allclose(found[rig.names[node]], matrices[frame, node, :3, 3], atol=1e-4)


def test_the_text_says_what_bvh_asks_for(tmp_path):
    rig, joints, pose = _setting()
    lines = write_bvh(tmp_path / "a.bvh", rig, joints, pose, frame_rate=8).read_text().splitlines()
    assert lines[:4] == ["HIERARCHY", "ROOT root", "{", "  OFFSET 0 0 0"]
    motion = lines.index("MOTION")
    assert lines[motion + 1 : motion + 3] == [f"Frames: {FRAMES}", "Frame Time: 0.125000000"]
    channels = sum(int(line.split()[1]) for line in lines[:motion] if "CHANNELS" in line)
    assert channels == 3 * len(joints.solved) + 3
    assert all(len(line.split()) == channels for line in lines[motion + 3 :])
    assert len(lines) == motion + 3 + FRAMES
    assert sum("{" in line for line in lines) == sum("}" in line for line in lines)


def test_bad_requests_are_one_line(tmp_path):
    rig, joints, pose = _setting()
    with pytest.raises(UserError, match=r"found the ending '.txt', expected '.bvh'"):
        write_bvh(tmp_path / "a.txt", rig, joints, pose, frame_rate=8)
    twins = rig.replace(names=tuple("bone" if "knee" in name else name for name in rig.names))
    with pytest.raises(UserError, match="are both called 'bone'"):
        write_bvh(tmp_path / "a.bvh", twins, joints, pose, frame_rate=8)
    assert list(tmp_path.iterdir()) == []
