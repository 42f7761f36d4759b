"""The puppet as a rigged GLB: its own surface in every frame, in our reader and in VTK, and valid glTF."""

import subprocess
import sys

import numpy as np
import pytest
from support.outside import Player, validate
from support.puppet_rig import puppet_file, puppet_scene

from dimo_jax.core.errors import UserError
from dimo_jax.data.puppet import body
from dimo_jax.data.puppet.catalog import MOTIONS
from dimo_jax.data.puppet.rig import write_puppet_rig
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.posing import pose_joints, pose_nodes, pose_vertices

FRAMES = np.arange(9)


def test_joints_and_surface_are_those_of_the_puppet():
    scene = puppet_scene()
    assert [clip.name for clip in scene.clips] == [motion.name for motion in MOTIONS[:4]]
    cones = body.round_cones()
    moved = 0.0
    for clip, motion in zip(scene.clips, MOTIONS):
        poses, truth = pose_nodes(scene, clip, FRAMES / 8), body.pose(motion.curves(FRAMES / 8), 9)
        found = pose_joints(scene, poses)
        np.testing.assert_allclose(found, truth.joints[:, scene.joints], atol=1e-5)
        vertices = pose_vertices(scene, poses, slice(None)).reshape(9, len(body.PARTS), -1, 3)
        for index in range(len(body.PARTS)):
            away = vertices[:, index] - truth.positions[:, None, index]
            there = away @ truth.rotations[:, index]
            for frame in FRAMES:  # on the surface: just inside shrunk to the middle, not inside when blown up
                assert body.inside(cones, index, 0.999 * there[frame] + 0.001 * there[frame].mean(0)).all()
                assert not body.inside(cones, index, 1.01 * there[frame] - 0.01 * there[frame].mean(0)).any()
        moved = max(moved, np.ptp(vertices, axis=0).max())
    assert moved > 0.1


def test_vtk_plays_it_and_the_validator_finds_nothing():
    scene, player = puppet_scene(), Player(puppet_file())
    assert player.names == [clip.name for clip in scene.clips]
    for seconds in (0.0, 0.4, 1.0):
        found = player.vertices(2, seconds)[0]
        expected = pose_vertices(scene, pose_nodes(scene, scene.clips[2], [seconds]), 0)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert validate(puppet_file()) == []


def test_bad_requests_are_one_line(tmp_path):
    with pytest.raises(UserError, match="num_motions: found 0, expected 1 to"):
        write_puppet_rig(tmp_path / "a.glb", num_motions=0)
    with pytest.raises(UserError, match=r"found the ending '.obj', expected '.glb'"):
        write_puppet_rig(tmp_path / "a.obj")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_file(tmp_path):
    path = tmp_path / "puppet.glb"
    done = subprocess.run(
        [sys.executable, "-m", "dimo_jax.data.puppet.rig", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(path)), done.stderr
    assert len(load_scene(path).clips) == 12
