"""Inverse kinematics on the puppet's rig and on small made ones: what points show is found again."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.gltf_writer import Writer, moving_square
from support.puppet_rig import puppet_scene

from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.forward import make_rig, place_nodes
from dimo_jax.rigs.inverse import solve_pose
from dimo_jax.rigs.markers import check_names, find_joints, place_markers
from dimo_jax.rigs.sampling import sample_clip
from dimo_jax.rigs.skinned import deform_surface, make_surface, pose_surface

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"
FRAMES = 8


def _setting(clip=1):
    scene = puppet_scene()
    rig, joints = make_rig(scene), find_joints(scene)
    pose = sample_clip(rig, scene.clips[clip], np.linspace(0, 1, FRAMES))
    matrices = place_nodes(rig, pose)
    return scene, rig, joints, pose, matrices, place_markers(joints, matrices)


def _vertex_error(scene, rig, pose, truth):
    surface = make_surface(scene, rig)
    expected = np.asarray(deform_surface(surface, truth, pose.morphs))
    diagonal = np.linalg.norm(np.ptp(np.asarray(pose_surface(rig, surface, rig.rest)), axis=0))
    return np.linalg.norm(np.asarray(pose_surface(rig, surface, pose)) - expected, axis=-1).mean() / diagonal


def test_joints_without_weight_are_left_out_and_leaves_get_tips():
    joints = find_joints(puppet_scene())
    names = joints.names[: joints.num_heads]
    assert not {"head_top", "left_hand", "right_toe"} & set(names)
    assert {"root", "left_clavicle"} - set(names) == {"left_clavicle"}  # moves no primitive of its own
    solved = {puppet_scene().nodes[node].name for node in joints.solved}
    assert "left_clavicle" in solved  # lies between two that do
    assert set(joints.names[joints.num_heads :]) == {
        "neck (tip)", *(f"{side}_{leaf} (tip)" for side in ("left", "right") for leaf in ("wrist", "ankle"))
    }  # fmt: skip


def test_perfect_points_give_the_pose_back():
    scene, rig, joints, _, matrices, points = _setting()
    assert np.ptp(points, axis=0).max() > 0.1
    solution = solve_pose(rig, joints, points)
    assert solution.misses.max() < 1e-5
    assert _vertex_error(scene, rig, solution.pose, matrices) < 0.0012
    still = jax.tree.map(lambda leaf: leaf[None], rig.rest)
    assert _vertex_error(scene, rig, still, matrices) > 0.02  # what the pose left as it is would give


def test_bones_keep_their_lengths_exactly_without_stretch():
    scene, rig, joints, _, matrices, points = _setting()
    rng = np.random.default_rng(0)
    solution = solve_pose(rig, joints, points + 0.003 * rng.normal(size=points.shape), stretch=0.0)
    moved = [node for node, parent in zip(joints.solved, joints.parents) if parent >= 0]
    rest = np.asarray(rig.rest.translations)[moved]
    found = np.asarray(solution.pose.translations)[:, moved]
    np.testing.assert_array_equal(found, np.broadcast_to(rest, found.shape))
    assert solution.stretches.max() == 0
    assert _vertex_error(scene, rig, solution.pose, matrices) < 0.015
    soft = solve_pose(rig, joints, points + 0.003 * rng.normal(size=points.shape))
    assert soft.stretches.max() > 3e-3


def test_points_that_were_not_seen_do_not_count():
    scene, rig, joints, _, matrices, points = _setting()
    wrong, confidences = points.copy(), np.ones(points.shape[:2])
    hidden = [joints.names.index(f"left_{name}") for name in ("elbow", "knee")]
    wrong[:, hidden[0]], confidences[:, hidden[1]] = np.nan, 0
    wrong[:, hidden[1]] += 5
    solution = solve_pose(rig, joints, wrong, confidences)
    assert np.isnan(solution.misses[:, hidden[0]]).all()
    others = [index for index in range(len(joints.nodes)) if index not in hidden]
    assert solution.misses[:, others].max() < 2e-4
    assert _vertex_error(scene, rig, solution.pose, matrices) < 0.0045
    for leaf in jax.tree.leaves(solution.pose):
        assert np.isfinite(leaf).all()


def test_smoothing_takes_noise_out_of_the_motion():
    _, rig, joints, *_ = _setting()
    still = np.asarray(place_nodes(rig, rig.rest))
    noise = 0.01 * np.random.default_rng(0).normal(size=(24, len(joints.nodes), 3))
    noisy = place_markers(joints, still) + noise

    def jitter(smooth):
        pose = solve_pose(rig, joints, noisy, smooth=smooth).pose
        found = np.asarray(place_nodes(rig, pose))[:, list(joints.solved)][..., :3, 3]
        return np.square(np.diff(found, 2, axis=0)).mean()

    assert jitter(0.03) < 0.6 * jitter(0.0)


def test_orientations_settle_the_twist_that_points_do_not_show():
    _, rig, joints, _, _, points = _setting()
    neck = joints.solved.index(rig.names.index("neck"))
    twist = Rotation.from_rotvec([0, 0.8, 0])
    rest = np.asarray(place_nodes(rig, rig.rest))[list(joints.solved)]
    facings = np.full((FRAMES, len(joints.solved), 4), np.nan)
    facings[:, neck] = np.roll(twist.as_quat(), 1)
    still = place_markers(joints, place_nodes(rig, rig.rest))
    solution = solve_pose(rig, joints, np.broadcast_to(still, points.shape), facings=facings)
    found = np.asarray(place_nodes(rig, solution.pose))[:, joints.solved[neck], :3, :3]
    expected = twist.as_matrix() @ rest[neck, :3, :3]
    blind = np.asarray(place_nodes(rig, rig.rest))[joints.solved[neck], :3, :3]
    assert np.linalg.norm(blind - expected) > 0.5
    assert np.linalg.norm(found - expected, axis=(1, 2)).max() < 0.15


def test_other_points_than_the_joints_own_and_a_base_pose():
    scene, rig, joints, pose, matrices, _ = _setting()
    rng = np.random.default_rng(0)
    nodes = tuple(np.repeat(joints.solved, 3))
    offsets = 0.1 * rng.normal(size=(len(nodes), 3))
    targets = place_markers(joints, matrices, nodes, offsets)
    solution = solve_pose(rig, joints, targets, nodes=nodes, offsets=offsets, base=pose, num_iterations=5)
    assert _vertex_error(scene, rig, solution.pose, matrices) < 1e-6  # begins at the truth, and stays
    solution = solve_pose(rig, joints, targets, nodes=nodes, offsets=offsets, num_iterations=40)
    assert _vertex_error(scene, rig, solution.pose, matrices) < 1e-5


def _arm(tmp_path, scale, *, bound=True, num_bound=2, names=("upper", "lower")):
    """Two bones below a scaled, turned and mirrored armature, one vertex strip bound to them, or to the first alone."""
    writer = Writer()
    joints = np.zeros((4, 4), np.uint8)
    joints[2:, 0] = num_bound - 1
    weights = np.zeros((4, 4), np.float32)
    weights[:, 0] = float(bound)
    extra = {"JOINTS_0": writer.accessor(joints), "WEIGHTS_0": writer.accessor(weights)}
    writer.add("nodes", {"name": "skin", "mesh": writer.square(extra=extra), "skin": 0})
    writer.add("nodes", {"name": names[0], "children": [2], "translation": [0, 1, 0]})
    writer.add("nodes", {"name": names[1], "translation": [0, 2, 0], "rotation": [0, 0, 0.6, 0.8]})
    writer.add("nodes", {"name": "armature", "children": [1], "scale": scale, "rotation": [0.5, 0.5, 0.5, 0.5]})
    writer.add("skins", {"joints": [1, 2]})
    writer.clip("Bend", 2, "rotation", [0.0, 1.0], np.array([[0, 0, 0.6, 0.8], [0.6, 0, 0, 0.8]]))
    writer.clip("Go", 1, "translation", [0.0, 1.0], np.array([[0, 1, 0], [3, 1, 0]]))
    return writer.write(tmp_path / "arm.glb")


@pytest.mark.parametrize("scale", [[100, 100, 100], [-2, 2, 2], [0.01, 0.01, 0.01]])
def test_what_stands_above_the_skeleton_does_not_matter(tmp_path, scale):
    scene = load_scene(_arm(tmp_path, scale))
    rig, joints = make_rig(scene), find_joints(scene)
    for clip in scene.clips:
        matrices = place_nodes(rig, sample_clip(rig, clip, np.linspace(0, 1, FRAMES)))
        points = place_markers(joints, matrices)
        solution = solve_pose(rig, joints, points)
        size = np.linalg.norm(np.ptp(points.reshape(-1, 3), axis=0))
        found = place_markers(joints, place_nodes(rig, solution.pose))
        assert np.abs(found - points).max() < 2e-6 * size
        assert solution.misses.max() < 2e-6 * size


@pytest.mark.parametrize(("num_bound", "frames"), [(2, 1), (1, 1), (1, 3)])
def test_one_frame_and_one_joint_are_enough(tmp_path, num_bound, frames):
    scene = load_scene(_arm(tmp_path, [1, 1, 1], num_bound=num_bound))
    rig, joints = make_rig(scene), find_joints(scene)
    assert len(joints.solved) == num_bound
    pose = sample_clip(rig, scene.clips[1], np.linspace(0.5, 1, frames))
    half_turn = np.array([[0, 0, 1.0, 0]])
    pose = pose.replace(rotations=np.asarray(pose.rotations).copy())
    pose.rotations[:, joints.solved[0]] = half_turn
    points = place_markers(joints, place_nodes(rig, pose))
    assert np.abs(points - place_markers(joints, place_nodes(rig, rig.rest))).max() > 1
    solution = solve_pose(rig, joints, points)
    assert solution.pose.translations.shape == (frames, rig.num_nodes, 3)
    assert solution.misses.shape == points.shape[:2]
    np.testing.assert_allclose(place_markers(joints, place_nodes(rig, solution.pose)), points, atol=1e-5)


def test_models_that_cannot_be_posed_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no skin found, expected a mesh that joints deform"):
        find_joints(load_scene(moving_square().write(tmp_path / "a.glb")))
    with pytest.raises(UserError, match="no joint carries weight, expected skin weights above 0"):
        find_joints(load_scene(_arm(tmp_path, [1, 1, 1], bound=False)))
    scene = load_scene(_arm(tmp_path, [1, 1, 1], names=("bone", "bone")))
    with pytest.raises(UserError, match=r"nodes\[1\] and nodes\[2\] are both called 'bone'"):
        check_names(scene, find_joints(scene).solved)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "limit"),
    [("rigs/q_Spider.glb", 0.05), ("rigs/q_Snake.glb", 0.2), ("rigs/q_Wolf.glb", 0.1), ("knight.glb", 0.7)],
)
def test_real_rigs_are_as_near_as_was_measured(name, limit):
    """Three times the errors of these clips, in percent of the diagonal; docs/rigs.md has those of all."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    scene = load_scene(path)
    rig, joints = make_rig(scene), find_joints(scene)
    clip = scene.clips[len(scene.clips) // 2]
    matrices = place_nodes(rig, sample_clip(rig, clip, np.linspace(clip.start, clip.end, FRAMES)))
    solution = solve_pose(rig, joints, place_markers(joints, matrices))
    assert 100 * _vertex_error(scene, rig, solution.pose, matrices) < limit
