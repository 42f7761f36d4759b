"""Clips added to a file: what was there stays as it was, byte by byte, and programs that we did not write play them."""

import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from support.gltf_writer import Writer, moving_square
from support.outside import Player, play_in_blender, play_in_three, validate
from support.puppet_rig import puppet_file, puppet_scene
from support.spoilt_weights import spoil_weights

from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.append import NewClip, append_clips
from dimo_jax.io.gltf.document import open_document
from dimo_jax.io.gltf.repair import describe_repairs, repair_weights
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.forward import make_rig
from dimo_jax.rigs.posing import pose_scene
from dimo_jax.rigs.sampling import sample_clip
from dimo_jax.rigs.skinned import make_surface, pose_surface

MODELS = Path(__file__).resolve().parents[1] / "support" / "models"
SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"
FILES = [MODELS / "worm.glb", MODELS / "Fox.gltf", MODELS / "worm_meshopt.glb", SHARED / "rigs/q_Wolf.glb"]
FILES += [SHARED / "rigs/khr_RiggedFigure.glb", SHARED / "rigs/q_Character.glb", SHARED / "knight.glb"]
OTHERS = ("m2m_bird-animations", "m2m_bird-eagle", "m2m_fox-animations", "q_Anglerfish", "q_George", "q_Leela")
OTHERS += ("q_Lever", "q_Shark", "q_Snake", "q_Spider", "q_Trex")
ALL = [*FILES, *(SHARED / "rigs" / f"{name}.glb" for name in OTHERS)]
SECONDS = np.array([0.0, 0.25, 0.5, 1.0])


TRS = ("translation", "rotation", "scale")


def _make_clips(scene, rig, *names):
    """The file's first clip, or its rest, with the nodes turned a little more."""
    clip = scene.clips[0] if scene.clips else None
    pose = sample_clip(rig, clip, SECONDS * (clip.end if clip else 1))
    turns = np.array(pose.rotations)
    turns[..., 1] += 0.2 * SECONDS[:, None]
    turns = turns / np.linalg.norm(turns, axis=-1, keepdims=True)
    later = pose.replace(rotations=turns)
    return [NewClip(name, SECONDS, later) for name in names]


def _compare_nodes(old, new):
    """Equal, but that a matrix, which glTF lets no clip move, may have become what it is made of."""
    if "matrix" in old and "matrix" not in new:
        made = Rotation.from_quat(new["rotation"]).as_matrix() * np.asarray(new["scale"])
        matrix = np.asarray(old["matrix"]).reshape(4, 4).T
        np.testing.assert_allclose(made, matrix[:3, :3], atol=1e-6)
        np.testing.assert_allclose(new["translation"], matrix[:3, 3], atol=1e-6)
        old, new = ({k: v for k, v in each.items() if k not in ("matrix", *TRS)} for each in (old, new))
    assert new == old


def _compare_json(old, new):
    """Asserts that all of `old` is in `new` with its place; what is more is at the ends of arrays."""
    assert set(old) <= set(new)
    for key, value in old.items():
        if key == "buffers":
            for before, after in zip(value, new[key]):
                assert {k: v for k, v in before.items() if k != "byteLength"} == {
                    k: v for k, v in after.items() if k != "byteLength"
                }
        elif key in ("accessors", "bufferViews", "animations"):
            assert new[key][: len(value)] == value
        elif key == "nodes":
            for before, after in zip(value, new[key], strict=True):
                _compare_nodes(before, after)
        else:
            assert new[key] == value, key
    assert list(old) == [key for key in new if key in old]


def _split(path):
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


@pytest.mark.parametrize("source", FILES, ids=lambda path: path.stem)
def test_what_the_file_holds_stays_and_the_new_clip_plays(source, tmp_path):
    if not source.exists():
        pytest.skip(f"{source.name} is not beside the repository")
    scene = load_scene(source)
    rig = make_rig(scene)
    clip = _make_clips(scene, rig, "Made")[0]
    path = tmp_path / f"out{source.suffix}"
    assert append_clips(source, path, rig, [clip]) == ("Made",)
    if source.suffix == ".glb":
        (old, old_binary), (new, new_binary) = _split(source), _split(path)
        assert new_binary[: old["buffers"][0]["byteLength"]] == old_binary[: old["buffers"][0]["byteLength"]]
    else:
        old, new = (json.loads(each.read_text()) for each in (source, path))
    _compare_json(old, new)
    again = load_scene(path)
    assert [each.name for each in again.clips] == [*(each.name for each in scene.clips), "Made"]
    expected = np.asarray(pose_surface(rig, make_surface(scene, rig), clip.pose))
    size = np.linalg.norm(np.ptp(expected[0], axis=0))
    moved = np.abs(expected - pose_scene(scene, None, 0)).max() / size
    assert moved > 0.05
    for frame, seconds in enumerate(SECONDS):
        assert np.abs(pose_scene(again, again.clips[-1], seconds) - expected[frame]).max() < 1e-5 * size
        old_clip = scene.clips[0]
        np.testing.assert_allclose(pose_scene(again, again.clips[0], seconds), pose_scene(scene, old_clip, seconds))


@pytest.fixture(params=ALL, ids=lambda path: path.stem)
def written(request, tmp_path):
    """A source, and the file with two clips more: both paths."""
    source = request.param
    if not source.exists():
        pytest.skip(f"{source.name} is not beside the repository")
    scene = load_scene(source, animated=False)
    rig = make_rig(scene)
    path = tmp_path / f"out{source.suffix}"
    append_clips(source, path, rig, _make_clips(scene, rig, "Made", "Made too"))
    return source, path


def test_the_validator_finds_nothing_new(written):
    source, path = written
    assert sorted(validate(path)) == sorted(validate(source))


TIMES = (0.0, 0.25, 0.4, 1.0)  # keys, and one between two of them


def _place(path, times):
    """The scene of a file, and its vertices [P,3] at times of its last clip."""
    scene = load_scene(path)
    return scene, [pose_scene(scene, scene.clips[-1], time) for time in times]


def _need_plain(path):
    if "EXT_meshopt_compression" in open_document(path).json.get("extensionsUsed", []):
        pytest.skip("other readers decode meshopt with packages that are not here")


def test_three_js_plays_it(written):
    _, path = written
    _need_plain(path)
    scene, expected = _place(path, TIMES)
    played = play_in_three(path, [(len(scene.clips) - 1, time) for time in TIMES])
    assert played["clips"] == [clip.name for clip in scene.clips]
    assert played["clips"][-2:] == ["Made", "Made too"]
    for entry, name in zip(open_document(path).json["nodes"], played["nodes"]):
        kept = re.sub(r"[\[\].:/]", "", re.sub(r"\s", "_", entry.get("name", "")))  # what three.js keeps of a name
        assert name.startswith(kept)  # and numbers it where it is taken
    limit = 1e-5 * np.linalg.norm(np.ptp(expected[0], axis=0))
    for vertices, frame in zip(expected, played["frames"]):
        counts = dict.fromkeys(range(len(scene.nodes)), 0)
        for part in scene.parts:
            found = frame[part.node, counts[part.node]]
            counts[part.node] += 1
            assert np.abs(found - vertices[part.start : part.start + len(found)]).max() < limit


def test_blender_plays_it(written, tmp_path):
    """From a file that has no other clip: those of which Blender has played one leave bones where they put them."""
    source, path = written
    _need_plain(path)
    bare, alone = (tmp_path / f"{name}{source.suffix}" for name in ("bare", "alone"))
    _write_without_clips(source, bare)
    scene = load_scene(source, animated=False)
    append_clips(bare, alone, make_rig(scene), _make_clips(scene, make_rig(scene), "Made"))
    scene, expected = _place(alone, SECONDS)
    played = play_in_blender(alone, "Made", SECONDS, tmp_path)
    named = {entry["name"] for entry in open_document(source).json["nodes"] if entry.get("name")}
    assert named <= set(played["names"])
    used = np.unique(scene.mesh.triangles)
    limit = 1e-4 * np.linalg.norm(np.ptp(expected[0], axis=0))  # it thinks in float32
    for vertices, found in zip(expected, played["frames"]):
        assert cKDTree(found).query(vertices[used])[0].max() < limit
        assert cKDTree(vertices[used]).query(found)[0].max() < limit
    assert {"Made", "Made too"} <= set(play_in_blender(path, "Made", [], tmp_path)["clips"])


def _write_without_clips(source, path):
    if source.suffix == ".gltf":
        content = json.loads(source.read_text())
        del content["animations"]
        path.write_text(json.dumps(content))
        return
    data = source.read_bytes()
    content, _ = _split(source)
    content.pop("animations", None)
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + struct.unpack_from("<I", data, 12)[0] :]
    header = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    path.write_bytes(header + text + rest)


def test_vtk_and_trimesh_read_it(tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="trimesh, an independent glTF reader, is not installed")
    scene = puppet_scene()
    rig = make_rig(scene)
    clip = _make_clips(scene, rig, "Made")[0]
    path = tmp_path / "out.glb"
    append_clips(puppet_file(), path, rig, [clip])
    expected = np.asarray(pose_surface(rig, make_surface(scene, rig), clip.pose))
    player = Player(path)
    assert player.names == [*(each.name for each in scene.clips), "Made"]
    for frame, seconds in enumerate(SECONDS):
        np.testing.assert_allclose(player.vertices(len(scene.clips), seconds)[0], expected[frame], atol=1e-5)
    ours, theirs = (sum(len(each.vertices) for each in trimesh.load(str(file)).geometry.values()) for file in
                    (path, puppet_file()))  # fmt: skip
    assert ours == theirs > 0


def test_names_in_use_get_a_number_and_the_source_may_be_the_result(tmp_path):
    path = moving_square("Walk").write(tmp_path / "a.glb")
    scene = load_scene(path)
    rig = make_rig(scene)
    for expected in ("Walk_2", "Walk_3"):
        assert append_clips(path, path, rig, _make_clips(scene, rig, "Walk")) == (expected,)
    assert [clip.name for clip in load_scene(path).clips] == ["Walk", "Walk_2", "Walk_3"]


def test_files_beside_a_gltf_stay_files(tmp_path):
    writer = moving_square()
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "the data.bin").write_bytes(bytes(writer.binary))
    writer.json["buffers"] = [{"byteLength": len(writer.binary), "uri": "the%20data.bin"}]
    source = folder / "a.gltf"
    source.write_text(json.dumps(writer.json))
    scene = load_scene(source)
    rig = make_rig(scene)
    path = tmp_path / "out" / "b.gltf"
    append_clips(source, path, rig, _make_clips(scene, rig, "Made"))
    assert sorted(os.listdir(path.parent)) == ["b.gltf", "b_clips_1.bin", "the data.bin"]
    assert (path.parent / "the data.bin").read_bytes() == bytes(writer.binary)
    assert [clip.name for clip in load_scene(path).clips] == ["Walk", "Made"]
    (path.parent / "the data.bin").write_bytes(b"another")
    with pytest.raises(UserError, match="another file than that of"):
        append_clips(source, path.parent / "c.gltf", rig, _make_clips(scene, rig, "Made"))
    assert sorted(os.listdir(path.parent)) == ["b.gltf", "b_clips_1.bin", "the data.bin"]


def test_a_node_with_a_matrix_is_written_so_that_it_may_move(tmp_path):
    writer = Writer()
    matrix = np.array([[0, -2.0, 0, 1], [2, 0, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]])
    writer.add("nodes", {"mesh": writer.square(), "matrix": matrix.T.reshape(-1).tolist()})
    path = writer.write(tmp_path / "a.glb")
    scene, findings = load_scene(path, animated=False), validate(path)
    rig = make_rig(scene)
    pose = sample_clip(rig, None, SECONDS)
    pose = pose.replace(translations=np.asarray(pose.translations) + SECONDS[:, None, None])
    append_clips(path, path, rig, [NewClip("Go", SECONDS, pose)])
    again = load_scene(path)
    assert "matrix" not in open_document(path).json["nodes"][0]
    np.testing.assert_allclose(pose_scene(again, None, 0), pose_scene(scene, None, 0), atol=1e-6)
    np.testing.assert_allclose(pose_scene(again, again.clips[0], 1), pose_scene(scene, None, 0) + 1, atol=1e-6)
    assert validate(path) == findings


def test_what_cannot_be_written_is_one_line_and_no_file(tmp_path):
    path = moving_square().write(tmp_path / "a.glb")
    scene = load_scene(path)
    rig = make_rig(scene)
    clip = _make_clips(scene, rig, "Made")[0]
    bad = np.array(clip.pose.rotations)
    bad[2] = np.nan
    cases = [
        ("b.gltf", clip, "found the ending '.gltf', expected '.glb'"),
        ("b.glb", NewClip("Made", SECONDS[::-1], clip.pose), "expected some that rise from 0 or later"),
        ("b.glb", NewClip("Made", SECONDS, clip.pose.replace(rotations=bad)), "NaN or infinite at frame 2"),
        ("b.glb", NewClip("Made", SECONDS[:2], clip.pose), "has translations of shape"),
        ("b.glb", NewClip("Made", 1e5 + 1e-4 * SECONDS, clip.pose), "expected some that rise"),  # not in float32
        ("b.glb", NewClip("Made", SECONDS, sample_clip(rig, None, SECONDS)), "clip 'Made' moves nothing"),
    ]
    before = path.read_bytes()
    for name, each, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            append_clips(path, tmp_path / name, rig, [each])
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["a.glb"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["puppet.glb", "Fox.gltf"])
def test_weights_that_are_repaired_are_so_in_what_is_written_and_no_other_byte_changes(name, tmp_path):
    sound = puppet_file() if name == "puppet.glb" else MODELS / name
    source, path = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    places = spoil_weights(sound, (0, 3, 5), source)
    with pytest.raises(UserError, match="vertex 0 has the weights nan"):
        load_scene(source)
    scene = load_scene(source, repair=True)
    rig, repairs = make_rig(scene), repair_weights(open_document(source))
    (line,) = describe_repairs(repairs, scene)
    assert re.fullmatch(r"repaired: meshes\[0\]\.primitives\[0\].*: weights of 3 of \d+ vertices, in what .*", line)
    append_clips(source, path, rig, _make_clips(scene, rig, "Made"), repairs=repairs)
    again = load_scene(path)
    true = pose_scene(scene, scene.clips[0], 0.5)
    np.testing.assert_allclose(pose_scene(again, again.clips[0], 0.5), true, atol=1e-6 * np.ptp(true))
    old, new = (np.frombuffer(open_document(each).buffers[0], np.uint8) for each in (source, path))
    changed = np.flatnonzero(old != new[: len(old)])
    assert len(changed)
    assert set(changed.tolist()) <= set(places)
    if source.suffix == ".glb":
        (before, _), (after, _) = _split(source), _split(path)
        assert validate(path) == validate(sound)
    else:
        before, after = (json.loads(each.read_text()) for each in (source, path))
        assert (before["buffers"][0].pop("uri"), after["buffers"][0].pop("uri")) == ("Fox.bin", "out_repaired_0_1.bin")
        files = ["Fox.bin", "Fox.gltf", "out.gltf", "out_clips_1.bin", "out_repaired_0_1.bin"]
        assert sorted(os.listdir(tmp_path)) == files
    _compare_json(before, after)


def test_numbers_that_json_does_not_have_are_one_line_and_no_file(tmp_path):
    writer = moving_square()
    writer.add("nodes", {"name": "lost", "translation": [float("nan"), 0, 0]})
    path = writer.write(tmp_path / "a.glb")
    scene = load_scene(path, repair=True)
    rig = make_rig(scene)
    with pytest.raises(UserError, match=r"a\.glb: its JSON has NaN or infinite numbers, expected finite ones"):
        append_clips(
            path, tmp_path / "b.glb", rig, [NewClip("Made", SECONDS, sample_clip(rig, scene.clips[0], SECONDS))]
        )
    assert os.listdir(tmp_path) == ["a.glb"]
