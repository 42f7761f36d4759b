"""Interpolation, hierarchy, skinning and morph targets against hand-worked poses, scipy and VTK."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation, Slerp
from support.gltf_writer import SQUARE, Writer, moving_square

from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.posing import pose_joints, pose_nodes, pose_scene, sample_channel
from dimo_jax.rigs.skeleton import Channel

MODELS = Path(__file__).resolve().parents[1] / "support" / "models"
SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"  # VTK drops animations of paths with ".."


def _channel(path, interpolation, times, values):
    return Channel(0, path, interpolation, np.array(times, float), np.array(values, float))


def test_step_holds_and_ends_clamp():
    channel = _channel("translation", "STEP", [1, 2, 4], [[1, 0, 0], [2, 0, 0], [3, 0, 0]])
    found = sample_channel(channel, np.array([0, 1, 1.99, 2, 3.9, 4, 9]))[:, 0]
    np.testing.assert_array_equal(found, [1, 1, 1, 2, 2, 3, 3])


def test_linear_and_a_single_key():
    channel = _channel("scale", "LINEAR", [1, 3], [[0, 0, 0], [4, 2, 0]])
    times = np.array([0, 1, 1.5, 3, 5])
    np.testing.assert_allclose(sample_channel(channel, times), np.outer([0, 0, 0.25, 1, 1], [4, 2, 0]))
    single = _channel("scale", "LINEAR", [1], [[1, 2, 3]])
    np.testing.assert_array_equal(sample_channel(single, times), np.tile([1, 2, 3], (5, 1)))


def test_rotations_slerp_along_the_shorter_arc():
    rotations = Rotation.random(6, rng=0)
    quats = rotations.as_quat()
    quats[::2] *= -1  # the same rotations, so the same path is expected
    times = np.arange(6.0)
    asked = np.linspace(0, 5, 41)
    found = Rotation.from_quat(sample_channel(_channel("rotation", "LINEAR", times, quats), asked))
    assert np.max((found * Slerp(times, rotations)(asked).inv()).magnitude()) < 1e-7


def test_nearly_equal_rotations_interpolate_finitely():
    quat = Rotation.from_rotvec([[1e-9, 0, 0], [0, 0, 0]]).as_quat()
    found = sample_channel(_channel("rotation", "LINEAR", [0, 1], quat), np.array([0.5]))
    np.testing.assert_allclose(found, [[2.5e-10, 0, 0, 1]], atol=1e-15)


def test_cubic_spline_matches_scipy_and_scales_tangents_by_the_key_distance():
    rng = np.random.default_rng(0)
    times = np.array([0.0, 0.5, 2.0])
    values = rng.normal(size=(3, 3, 3))  # in-tangent, value, out-tangent
    asked = np.linspace(0, 2, 21)
    found = sample_channel(_channel("translation", "CUBICSPLINE", times, values), asked)
    for i in range(2):
        spline = CubicHermiteSpline(times[i : i + 2], values[i : i + 2, 1], [values[i, 2], values[i + 1, 0]])
        inside = (asked >= times[i]) & (asked <= times[i + 1])
        np.testing.assert_allclose(found[inside], spline(asked[inside]), atol=1e-12)
    quats = sample_channel(_channel("rotation", "CUBICSPLINE", [0, 1], rng.normal(size=(2, 3, 4))), asked)
    np.testing.assert_allclose(np.linalg.norm(quats, axis=1), 1)


def test_parents_move_children_and_matrices_count(tmp_path):
    writer = Writer()
    writer.add("nodes", {"name": "child", "mesh": writer.square(), "translation": [1, 0, 0], "scale": [2, 1, 1]})
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    turn[:3, 3] = [0, 0, 5]
    writer.add("nodes", {"name": "parent", "children": [0], "matrix": turn.T.reshape(-1).tolist()})
    half = np.sqrt(0.5)
    writer.clip("Turn", 0, "rotation", [0.0, 1.0], np.array([[0, 0, 0, 1], [0, 0, half, half]]))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    local = Rotation.from_euler("z", 45, degrees=True).apply(SQUARE * [2, 1, 1]) + [1, 0, 0]
    expected = local @ turn[:3, :3].T + turn[:3, 3]
    np.testing.assert_allclose(pose_scene(scene, scene.clips[0], 0.5), expected, atol=1e-6)


def test_skinned_vertices_follow_joints_and_not_their_node(tmp_path):
    writer = Writer()
    joints = np.array([[0, 1, 0, 0]] * 4, np.uint8)
    weights = np.array([[255, 0, 0, 0], [0, 255, 0, 0], [51, 204, 0, 0], [0, 0, 0, 0]], np.uint8)
    extra = {"JOINTS_0": writer.accessor(joints), "WEIGHTS_0": writer.accessor(weights, normalized=True)}
    writer.add("nodes", {"mesh": writer.square(extra=extra), "skin": 0, "translation": [100, 100, 100]})
    writer.add("nodes", {"name": "root", "children": [2]})
    writer.add("nodes", {"name": "tip", "translation": [1, 0, 0]})
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    inverse_bind[1, 0, 3] = -1
    matrices = writer.accessor(inverse_bind.swapaxes(1, 2))
    writer.add("skins", {"joints": [1, 2], "inverseBindMatrices": matrices})
    writer.clip("Lift", 2, "translation", [0.0, 1.0], np.array([[1, 0, 0], [1, 10, 0]]))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    lift = np.array([0, 5, 4, 0])  # half of 10, by the second joint's weight; without weights, the first joint's
    expected = SQUARE + np.stack([0 * lift, lift, 0 * lift], axis=1)
    np.testing.assert_allclose(pose_scene(scene, scene.clips[0], 0.5), expected, atol=1e-6)
    found = pose_joints(scene, pose_nodes(scene, scene.clips[0], np.array([0.0, 0.5])))
    np.testing.assert_allclose(found, [[[0, 0, 0], [1, 0, 0]], [[0, 0, 0], [1, 5, 0]]], atol=1e-6)


def test_morph_targets_at_rest_and_animated(tmp_path):
    writer = Writer()
    offsets = np.arange(12, dtype=np.float32).reshape(4, 3)
    targets = [{"POSITION": writer.accessor(offsets)}, {"POSITION": writer.accessor(-offsets)}]
    mesh = writer.square(targets=targets)
    writer.json["meshes"][mesh]["weights"] = [0.5, 0.25]
    writer.add("nodes", {"mesh": mesh})
    writer.clip("Smile", 0, "weights", [0.0, 2.0], np.array([0, 0, 1, 0]))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(pose_scene(scene, None, 0), SQUARE + 0.25 * offsets)
    np.testing.assert_allclose(pose_scene(scene, scene.clips[0], 1.5), SQUARE + 0.75 * offsets)


def test_clips_may_begin_late(tmp_path):
    writer = moving_square()
    writer.clip("Late", 0, "translation", [2.0, 3.0], np.array([[0, 0, 0], [0, 4, 0]]))
    clip = load_scene(writer.write(tmp_path / "a.glb")).clips[1]
    assert (clip.start, clip.end) == (2, 3)


def test_deformed_vertices_equal_those_of_three_js():
    """A file of glTF-Transform: interleaved, sparse and quantized accessors, and all interpolations; see models/."""
    scene = load_scene(MODELS / "worm.glb")
    assert scene.part_names == ("worm", "quad")
    clips = {clip.name: clip for clip in scene.clips}
    paths = {(channel.path, channel.interpolation) for clip in scene.clips for channel in clip.channels}
    assert {kind for _, kind in paths} == {"STEP", "LINEAR", "CUBICSPLINE"}
    assert {("weights", "LINEAR"), ("weights", "CUBICSPLINE")} < paths
    truth = json.loads((MODELS / "worm.json").read_text())
    assert len(truth) == 12
    targets = scene.parts[0].morph_targets
    assert [(np.abs(target).max(axis=-1) > 0.05).sum() for target in targets] == [5, 4]  # a ring swells, the end twists
    moved = []
    for entry in truth:
        found = pose_scene(scene, clips[entry["clip"]], entry["time"])
        expected = np.concatenate([entry["vertices"][name] for name in scene.part_names])
        np.testing.assert_allclose(found, expected, atol=1e-4)
        moved.append(expected)
    assert np.ptp(moved, axis=0).max(axis=1).min() > 0.1  # every vertex moves, a thousand times what may differ


@pytest.mark.parametrize(
    ("path", "num_clips"),
    [(SHARED / "knight.glb", 4), (MODELS / "Fox.gltf", 3)],
    ids=["knight", "fox"],
)
def test_deformed_vertices_equal_those_of_vtk(path, num_clips):
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    vtk = pytest.importorskip("vtk", exc_type=ImportError)
    to_numpy = pytest.importorskip("vtk.util.numpy_support", exc_type=ImportError).vtk_to_numpy
    scene = load_scene(path)
    reader = vtk.vtkGLTFReader()
    reader.SetFileName(str(path))
    reader.ApplyDeformationsToGeometryOn()
    reader.UpdateInformation()
    for index in np.linspace(0, len(scene.clips) - 1, num_clips).astype(int):
        clip = scene.clips[index]
        assert reader.GetAnimationName(int(index)) == clip.name
        for other in range(len(scene.clips)):
            reader.DisableAnimation(other)
        reader.EnableAnimation(int(index))
        for time in (0.0, 0.31 * clip.end, 0.77 * clip.end, clip.end):
            reader.UpdateTimeStep(time)
            reader.Update()
            blocks = []
            blocks_left = reader.GetOutput().NewIterator()
            blocks_left.InitTraversal()
            while not blocks_left.IsDoneWithTraversal():
                blocks.append(to_numpy(blocks_left.GetCurrentDataObject().GetPoints().GetData()))
                blocks_left.GoToNextItem()
            found = pose_scene(scene, clip, time)
            for part in scene.parts:  # VTK walks the nodes in another order: every part takes the block nearest to it
                mine = found[part.start : part.start + len(part.positions)]
                errors = [np.abs(mine - block).max() if block.shape == mine.shape else np.inf for block in blocks]
                assert min(errors) < 1e-4, (clip.name, time, scene.nodes[part.node].name)
                blocks.pop(int(np.argmin(errors)))
            assert not blocks
