"""Forward kinematics and skinning in JAX: against three.js, VTK, the float64 reference, and by hand."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.gltf_writer import SQUARE, Writer, moving_square
from support.outside import Player, play_in_three

from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.forward import Pose, forward_kinematics, make_rig, place_nodes
from dimo_jax.rigs.posing import pose_nodes, pose_scene, pose_vertices
from dimo_jax.rigs.sampling import frame_times, sample_clip
from dimo_jax.rigs.skinned import deform_surface, make_surface, pose_surface

MODELS = Path(__file__).resolve().parents[1] / "support" / "models"
SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"  # VTK drops animations of paths with ".."
RIGS = [
    "khr_RiggedFigure",
    "m2m_bird-animations",
    "m2m_bird-eagle",
    "m2m_fox-animations",
    "q_Anglerfish",
    "q_Character",
]
RIGS += ["q_George", "q_Leela", "q_Lever", "q_Shark", "q_Snake", "q_Spider", "q_Trex", "q_Wolf"]
FILES = [*(SHARED / "rigs" / f"{name}.glb" for name in RIGS), SHARED / "knight.glb", SHARED / "fox.gltf"]


def test_deformed_vertices_equal_those_of_three_js():
    """A file with all interpolations, morph targets and two skins; the truth is from three.js, see models/."""
    scene = load_scene(MODELS / "worm.glb")
    rig = make_rig(scene)
    surface = make_surface(scene, rig)
    clips = {clip.name: clip for clip in scene.clips}
    truth = json.loads((MODELS / "worm.json").read_text())
    assert len(truth) == 12
    for entry in truth:
        found = pose_surface(rig, surface, sample_clip(rig, clips[entry["clip"]], np.array([entry["time"]])))[0]
        expected = np.concatenate([entry["vertices"][name] for name in scene.part_names])
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.linalg.norm(np.ptp(expected, axis=0)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_deformed_vertices_equal_those_of_vtk(path):
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    scene = load_scene(path, animated=False)
    rig = make_rig(scene)
    surface = make_surface(scene, rig)
    clip = scene.clips[-1] if scene.clips else None
    times = np.array([0.0, 0.31, 0.77]) * (clip.end if clip else 0.0)
    found = np.asarray(pose_surface(rig, surface, sample_clip(rig, clip, times)))
    expected = pose_vertices(scene, pose_nodes(scene, clip, times), slice(None))
    limit = 1e-5 * np.linalg.norm(np.ptp(expected[0], axis=0))
    assert np.abs(found - expected).max() < limit
    for time, vertices in zip(times, found):
        if clip is None:
            break
        blocks = Player(path).vertices(len(scene.clips) - 1, time)  # anew: VTK mixes up primitives that it reads twice
        for part in scene.parts:
            mine = vertices[part.start : part.start + len(part.positions)]
            errors = [np.abs(mine - block).max() if block.shape == mine.shape else np.inf for block in blocks]
            assert min(errors) < limit, (time, scene.nodes[part.node].name)
            blocks.pop(int(np.argmin(errors)))


@pytest.mark.parametrize("path", [MODELS / "worm.glb", MODELS / "Fox.gltf", *FILES], ids=lambda path: path.stem)
def test_deformed_vertices_equal_those_of_three_js_at_rest_and_in_clips(path):
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    scene = load_scene(path, animated=False)
    rig = make_rig(scene)
    surface = make_surface(scene, rig)
    moments = [(-1, 0.0)]
    for clip in {0, len(scene.clips) - 1} if scene.clips else ():
        moments += [(clip, share * scene.clips[clip].end) for share in (0.0, 0.31, 0.77, 1.0)]
    played = play_in_three(path, moments)
    assert played["clips"] == [clip.name for clip in scene.clips]
    rest = np.asarray(pose_surface(rig, surface, rig.rest))
    limit = 1e-5 * np.linalg.norm(np.ptp(rest, axis=0))
    for (clip, time), frame in zip(moments, played["frames"]):
        pose = sample_clip(rig, scene.clips[clip] if clip >= 0 else None, np.array([time]))
        vertices = np.asarray(pose_surface(rig, surface, pose))[0]
        counts = dict.fromkeys(range(rig.num_nodes), 0)
        for part in scene.parts:
            expected = frame[part.node, counts[part.node]]
            counts[part.node] += 1
            found = vertices[part.start : part.start + len(part.positions)]
            assert np.abs(found - expected).max() < limit, (clip, time, scene.nodes[part.node].name)


def _chain(tmp_path, matrix):
    """A square on a node that a clip turns, below a node with a matrix, below one that is moved and scaled."""
    writer = Writer()
    writer.add("nodes", {"name": "tip", "mesh": writer.square(), "translation": [1, 0, 0]})
    writer.add("nodes", {"name": "middle", "children": [0], "matrix": matrix.T.reshape(-1).tolist()})
    writer.add("nodes", {"name": "root", "children": [1], "translation": [0, 5, 0], "scale": [100, 100, 100]})
    half = np.sqrt(0.5)
    writer.clip("Turn", 0, "rotation", [0.0, 1.0], np.array([[0, 0, 0, 1], [0, 0, half, half]]))
    return load_scene(writer.write(tmp_path / "a.glb"))


@pytest.mark.parametrize("kind", ["turned", "half_turn", "mirrored", "sheared", "flat"])
def test_matrices_of_nodes_are_taken_apart_whatever_they_hold(tmp_path, kind):
    matrix = np.eye(4)
    angles = [180, 0, 0] if kind == "half_turn" else [30, 50, -70]
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * [1.0, 2.0, 0.5]
    matrix[:3, 3] = [1, -2, 3]
    if kind == "mirrored":
        matrix[:3, 1] *= -1
    elif kind == "sheared":
        matrix[:3, :3] = matrix[:3, :3] @ [[1, 0.5, 0], [0, 1, 0.2], [0, 0, 1]]
    elif kind == "flat":
        matrix[:3, 2] = 0
    scene = _chain(tmp_path, matrix)
    rig = make_rig(scene)
    assert rig.matrix_nodes == (1,)
    for clip in (None, scene.clips[0]):
        found = pose_surface(rig, make_surface(scene, rig), sample_clip(rig, clip, np.array([0.5])))[0]
        expected = pose_scene(scene, clip, 0.5)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.linalg.norm(np.ptp(expected, axis=0)))


def test_kinematics_broadcast_and_differentiate(tmp_path):
    scene = _chain(tmp_path, np.eye(4))
    rig = make_rig(scene)
    rng = np.random.default_rng(0)
    turns = rng.normal(size=(4, 5, 3, 4)).astype(np.float32)
    moves = rng.normal(size=(5, 3, 3)).astype(np.float32)
    found = forward_kinematics(rig, moves, turns, rig.rest.scales)
    assert found.shape == (4, 5, 3, 4, 4)
    one = forward_kinematics(rig, moves[3], turns[2, 3], rig.rest.scales)
    np.testing.assert_allclose(found[2, 3], one, rtol=1e-6, atol=1e-4)

    def height(turn):
        return forward_kinematics(rig, moves[0], turns[0, 0].at[1].set(turn), rig.rest.scales)[0, 1, 3]

    turns, step = jnp.asarray(turns), 1e-2
    gradient = jax.grad(height)(turns[0, 0, 1])
    shift = jnp.eye(4) * step
    expected = [(height(turns[0, 0, 1] + d) - height(turns[0, 0, 1] - d)) / (2 * step) for d in shift]
    np.testing.assert_allclose(gradient, expected, rtol=2e-2, atol=0.2)  # of values of hundreds, in float32
    assert np.abs(gradient).max() > 1


def _morphing_square(tmp_path):
    """A square with two morph targets, of which a clip moves the first, on a turned node."""
    writer = Writer()
    offsets = np.random.default_rng(3).normal(size=(2, 4, 3)).astype(np.float32)
    mesh = writer.square(targets=[{"POSITION": writer.accessor(each)} for each in offsets])
    writer.json["meshes"][mesh]["weights"] = [0.0, 0.5]
    writer.add("nodes", {"mesh": mesh, "rotation": [0.6, 0, 0, 0.8]})
    writer.clip("Smile", 0, "weights", [0.0, 2.0], np.array([0, 0, 1, 0]))
    return load_scene(writer.write(tmp_path / "a.glb")), offsets


def test_morph_targets_move_vertices(tmp_path):
    scene, offsets = _morphing_square(tmp_path)
    rig = make_rig(scene)
    surface = make_surface(scene, rig)
    turn = Rotation.from_quat([0.6, 0, 0, 0.8])
    rest, smile = (pose_surface(rig, surface, sample_clip(rig, clip, [1.5]))[0] for clip in (None, scene.clips[0]))
    np.testing.assert_allclose(rest, turn.apply(SQUARE + 0.5 * offsets[1]), atol=1e-6)
    np.testing.assert_allclose(smile, turn.apply(SQUARE + 0.75 * offsets[0]), atol=1e-6)


def test_vertices_differentiate_in_joints_and_morphs(tmp_path):
    scene, _ = _morphing_square(tmp_path)
    rig = make_rig(scene)
    surface = make_surface(scene, rig)

    def size(pose):
        return jnp.sum(jnp.square(pose_surface(rig, surface, pose)))

    gradient = jax.grad(size)(rig.rest)
    direction = jax.tree.map(lambda leaf: np.random.default_rng(1).normal(size=leaf.shape), rig.rest)
    slope = sum(np.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
    ahead, behind = (
        size(jax.tree.map(lambda leaf, step, s=sign: leaf + s * 1e-2 * step.astype(np.float32), rig.rest, direction))
        for sign in (1, -1)
    )
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-2, rtol=1e-2)
    assert np.abs(gradient.morphs).min() > 0.1


def test_clips_stack_into_one_batch():
    scene = load_scene(MODELS / "worm.glb")
    rig = make_rig(scene)
    poses = [sample_clip(rig, clip, np.linspace(clip.start, clip.end, 4)) for clip in scene.clips]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *poses)
    assert isinstance(batch, Pose)
    found = place_nodes(rig, batch)
    assert found.shape == (len(poses), 4, rig.num_nodes, 4, 4)
    for index, clip in enumerate(scene.clips):
        expected = pose_nodes(scene, clip, np.linspace(clip.start, clip.end, 4)).matrices
        np.testing.assert_allclose(found[index], expected, atol=1e-5)
        vertices = deform_surface(make_surface(scene, rig), found, batch.morphs)
        later = clip.start + (clip.end - clip.start) * 2 / 3
        np.testing.assert_allclose(vertices[index, 2], pose_scene(scene, clip, later), atol=1e-4)


def test_frames_reach_from_the_first_key_to_the_last(tmp_path):
    writer = moving_square()
    writer.clip("Late", 0, "translation", [2.0, 3.05], np.array([[0, 0, 0], [0, 4, 0]]))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(frame_times(scene.clips[0], 4), [0, 0.25, 0.5, 0.75, 1])
    times = frame_times(scene.clips[1], 10)
    assert (times[0], times[-1], len(times)) == (2, pytest.approx(3.05), 12)
    rig = make_rig(scene)
    found = pose_surface(rig, make_surface(scene, rig), sample_clip(rig, scene.clips[0], np.array([0.5])))
    np.testing.assert_allclose(found[0], SQUARE + [0.5, 0, 0])


def test_a_file_without_clips_is_read_on_request_only(tmp_path):
    writer = Writer()
    writer.add("nodes", {"name": "square", "mesh": writer.square()})
    path = writer.write(tmp_path / "a.glb")
    with pytest.raises(UserError, match="no animation found"):
        load_scene(path)
    scene = load_scene(path, animated=False)
    rig = make_rig(scene)
    np.testing.assert_array_equal(pose_surface(rig, make_surface(scene, rig), rig.rest), SQUARE)
