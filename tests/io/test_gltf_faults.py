"""NaN in a model: passed over where nothing needs it, else named by mesh and vertex, and repaired on request."""

import numpy as np
import pytest
from support.gltf_writer import SQUARE, TWO_TRIANGLES, Writer, moving_square

from dimo_jax.cameras.turntable import Turntable
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.passes import Timing
from dimo_jax.data.formats.rigged.plan import Options, plan_import
from dimo_jax.io.gltf.scene import load_scene, select_clips
from dimo_jax.rigs.posing import pose_scene

NAN, INF = float("nan"), float("inf")
STILL = [[1, 0, 0, 0]] * 4
OPTIONS = Options(timing=Timing(num_frames=2), turntable=Turntable(size=16, samples=1), num_surface_points=8)


def skinned(weights, *, joints=None, positions=SQUARE, spare=False):
    """The square on two joints, the second of which moves by 1 along x; with `spare`, a vertex that nothing uses."""
    writer = Writer()
    weights = np.asarray(weights, np.float32)
    joints = np.tile([0, 1, 0, 0], (len(weights), 1)) if joints is None else np.asarray(joints)
    if spare:
        weights, joints = np.r_[weights, [[NAN, 9, -1, INF]]].astype(np.float32), np.r_[joints, [[250] * 4]]
        positions = np.r_[positions, [[NAN, 0, INF]]].astype(np.float32)
    attributes = {
        "POSITION": writer.accessor(np.asarray(positions, np.float32)),
        "JOINTS_0": writer.accessor(joints.astype(np.uint8)),
        "WEIGHTS_0": writer.accessor(weights),
    }
    primitive = {"attributes": attributes, "indices": writer.accessor(TWO_TRIANGLES)}
    writer.add("meshes", {"name": "Body", "primitives": [primitive]})
    for entry in ({"name": "body", "mesh": 0, "skin": 0}, {"name": "hip"}, {"name": "arm"}):
        writer.add("nodes", entry)
    writer.add("skins", {"joints": [1, 2]})
    writer.clip("Reach", 2, "translation", [0.0, 1.0], np.array([[0, 0, 0], [1, 0, 0]]))
    return writer


def shifts(path, **options):
    """How far each vertex goes along x in the clip."""
    scene = load_scene(path, **options)
    return pose_scene(scene, scene.clips[0], 1.0)[:, 0] - pose_scene(scene, scene.clips[0], 0.0)[:, 0]


@pytest.mark.parametrize(
    ("row", "repaired", "says"),
    [
        ([NAN, 0.5, 0, 0], 1.0, "nan 0.5 0 0"),
        ([0.25, NAN, 0.75, 0], 0.0, "0.25 nan 0.75 0"),
        ([INF, 1, 0, 0], 1.0, "inf 1 0 0"),
        ([-1, 1, 0, 0], 1.0, "-1 1 0 0"),
        ([NAN, NAN, NAN, NAN], 1.0, "nan nan nan nan"),  # as the nearest vertices with weights
    ],
)
def test_weights_at_fault_are_named_and_repaired_on_request(row, repaired, says, tmp_path):
    path = skinned([[0, 1, 0, 0], row, [0, 1, 0, 0], [1, 0, 0, 0]]).write(tmp_path / "a.glb")
    with pytest.raises(UserError) as error:
        load_scene(path)
    message = str(error.value)
    assert f"meshes[0].primitives[0] of 'Body': vertex 1 has the weights {says}, expected finite weights" in message
    assert "--repair" in message
    np.testing.assert_allclose(shifts(path, repair=True), [1, repaired, 1, 0])
    (note,) = load_scene(path, repair=True).notes
    assert note.startswith("repaired: meshes[0].primitives[0] of 'Body': weights of 1 of 4 vertices: ")


def test_without_any_sound_weight_all_follow_their_first_joints(tmp_path):
    path = skinned([[NAN] * 4] * 4, joints=[[1, 0, 0, 0]] * 4).write(tmp_path / "a.glb")
    with pytest.raises(UserError, match="4 of 4 vertices are so"):
        load_scene(path)
    np.testing.assert_allclose(shifts(path, repair=True), 1)


def test_weights_that_do_not_sum_to_one_are_scaled_and_that_is_said(tmp_path):
    path = skinned([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0.5, 0, 0], [0, 0, 0, 0]]).write(tmp_path / "a.glb")
    np.testing.assert_allclose(shifts(path), [0, 0.5, 1, 0])
    assert [note.partition("'Body': ")[2] for note in load_scene(path).notes] == [
        "1 of 4 vertices have no weight at all and follow their first joint",
        "1 of 4 vertices have weights that do not sum to 1 and are scaled",
    ]


def test_rounding_below_zero_is_no_fault(tmp_path):
    path = skinned([[1, -1e-6, 0, 0]] * 4).write(tmp_path / "a.glb")
    np.testing.assert_allclose(shifts(path), 0)


def test_what_no_triangle_uses_may_be_anything(tmp_path):
    path = skinned(STILL, spare=True).write(tmp_path / "a.glb")
    scene = load_scene(path)
    assert not scene.notes
    assert np.isfinite(pose_scene(scene, None, 0.0)).all()
    joints = skinned(STILL, joints=[[0, 250, 9, 7]] * 4).write(tmp_path / "b.glb")  # the slots without weight
    np.testing.assert_allclose(shifts(joints), 0)


def _normals(writer, primitive):
    primitive["attributes"]["NORMAL"] = writer.accessor(np.full((4, 3), NAN, np.float32))


def _unused_attributes(writer, primitive):
    primitive["attributes"]["TEXCOORD_1"] = writer.accessor(np.full((4, 2), NAN, np.float32))
    primitive["attributes"]["TEXCOORD_0"] = writer.accessor(np.full((4, 2), NAN, np.float32))  # without a texture
    primitive["attributes"]["TANGENT"] = writer.accessor(np.full((4, 4), NAN, np.float32))
    primitive["attributes"]["COLOR_1"] = writer.accessor(np.full((4, 4), INF, np.float32))


def _normals_of_morph_targets(writer, primitive):
    offsets = writer.accessor(np.zeros((4, 3), np.float32))
    primitive["targets"] = [{"POSITION": offsets, "NORMAL": writer.accessor(np.full((4, 3), NAN, np.float32))}]


def _hidden_node(writer, primitive):
    attributes = {"POSITION": writer.accessor(SQUARE * np.float32(NAN))}
    mesh = writer.add("meshes", {"primitives": [{"attributes": attributes, "indices": primitive["indices"]}]})
    hidden = writer.add("nodes", {"name": "sword", "mesh": mesh, "translation": [NAN, 0, 0], "weights": [NAN]})
    writer.json["scenes"][0]["nodes"].append(hidden)
    writer.json["animations"][0]["channels"].append({"sampler": 1, "target": {"node": hidden, "path": "translation"}})
    nan = writer.accessor(np.full((2, 3), NAN, np.float32))
    sampler = writer.json["animations"][0]["samplers"][0]
    writer.json["animations"][0]["samplers"].append({**sampler, "output": nan})


def _skin_of_nothing(writer, primitive):
    matrices = writer.accessor(np.full((1, 4, 4), NAN, np.float32))
    writer.add("skins", {"joints": [0], "inverseBindMatrices": matrices})


def _clip(writer, primitive):
    writer.clip("Broken", 0, "translation", [0.0, 1.0], np.array([[NAN, 0, 0], [1, 0, 0]]))
    writer.clip("Falling", 0, "translation", [1.0, 0.0], np.zeros((2, 3)))


@pytest.mark.parametrize(
    "spoil",
    [_normals, _unused_attributes, _normals_of_morph_targets, _hidden_node, _skin_of_nothing, _clip],
    ids=lambda function: function.__name__,
)
@pytest.mark.filterwarnings("error")
def test_data_that_is_not_needed_is_no_reason_to_refuse_a_file(spoil, tmp_path):
    sound = pose_scene(load_scene(moving_square().write(tmp_path / "a.glb")), None, 0.0)
    writer = moving_square()
    spoil(writer, writer.json["meshes"][0]["primitives"][0])
    path = writer.write(tmp_path / "b.glb")
    options = OPTIONS.__class__(**{**vars(OPTIONS), "clips": "Walk", "hide": "sword" if spoil is _hidden_node else ""})
    scene = load_scene(path, hide=options.hide)
    np.testing.assert_array_equal(pose_scene(scene, None, 0.0), sound)
    found, surface, _ = plan_import(scene, options)
    assert [clip.name for clip in found.clips] == ["Walk"]
    assert np.isfinite(surface).all()


def test_a_broken_clip_is_named_to_who_wants_it(tmp_path):
    writer = moving_square()
    _clip(writer, None)
    path = writer.write(tmp_path / "a.glb")
    for clips, says in (("Broken", "nan 0 0 at key 0, expected finite numbers"), ("Falling", "key 1 before the one")):
        scene = load_scene(path)
        with pytest.raises(UserError, match=rf"a.glb: animations\[\d\] '{clips}'.* {says}.*--clips without '{clips}'"):
            plan_import(scene, OPTIONS.__class__(**{**vars(OPTIONS), "clips": clips}))
        with pytest.raises(UserError, match=says):
            pose_scene(scene, select_clips(scene, clips)[0], 0.0)
    with pytest.raises(UserError, match="--clips without 'Broken'"):
        plan_import(load_scene(path), OPTIONS)
    repaired = load_scene(path, repair=True)
    np.testing.assert_allclose(select_clips(repaired, "Broken")[0].channels[0].values, [[1, 0, 0]])
    assert [note for note in repaired.notes if "'Broken'.channels[0]: 1 of 2 keys left out" in note]


def _position(writer, primitive):
    positions = SQUARE.copy()
    positions[3] = [0, INF, 0]  # of the second triangle alone
    primitive["attributes"]["POSITION"] = writer.accessor(positions)


def _color(writer, primitive):
    primitive["attributes"]["COLOR_0"] = writer.accessor(np.array([[NAN, 0, 0]] + [[0, 0, 0]] * 3, np.float32))


def _morph(writer, primitive):
    primitive["targets"] = [{"POSITION": writer.accessor(np.array([[0, 0, 0]] * 3 + [[NAN] * 3], np.float32))}]


def _node(writer, primitive):
    writer.json["nodes"][0]["scale"] = [1, NAN, 1]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_position, r"meshes\[0\].primitives\[0\]: vertex 3 has the position 0 inf 0, expected finite numbers"),
        (_color, r"meshes\[0\].primitives\[0\]: vertex 0 has the COLOR_0 nan 0 0, expected finite numbers"),
        (_morph, r"meshes\[0\].primitives\[0\].targets\[0\]: vertex 3 has the offset nan nan nan, expected"),
        (_node, r"nodes\[0\].scale of 'square' is 1 nan 1, expected 3 finite numbers"),
    ],
)
def test_what_is_drawn_is_named_and_repaired_on_request(spoil, says, tmp_path):
    writer = moving_square()
    spoil(writer, writer.json["meshes"][0]["primitives"][0])
    path = writer.write(tmp_path / "a.glb")
    with pytest.raises(UserError, match=rf"a.glb: {says}.*--repair"):
        load_scene(path)
    scene = load_scene(path, repair=True)
    assert scene.notes[0].startswith("repaired: ")
    assert np.isfinite(pose_scene(scene, scene.clips[0], 1.0)).all()
    assert np.isfinite(scene.mesh.colors).all()
    assert len(scene.mesh.triangles) == (1 if spoil is _position else 2)


def test_an_inverse_bind_matrix_counts_where_a_vertex_follows_it(tmp_path):
    matrices = np.stack([np.eye(4), np.full((4, 4), NAN)]).astype(np.float32)
    writer = skinned(STILL)
    writer.json["skins"][0]["inverseBindMatrices"] = writer.accessor(matrices)
    np.testing.assert_allclose(shifts(writer.write(tmp_path / "a.glb")), 0)
    writer = skinned([[0, 1, 0, 0]] * 4)
    writer.json["skins"][0]["inverseBindMatrices"] = writer.accessor(matrices)
    with pytest.raises(
        UserError, match="vertex 0 follows joint 1 of its skin, whose inverse bind matrix is not finite"
    ):
        load_scene(writer.write(tmp_path / "b.glb"))
