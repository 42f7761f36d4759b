"""Compression, instances and animation pointers, undone; and what is said of the extensions that are not read."""

import sys
from pathlib import Path

import numpy as np
import pytest
from support.gltf_writer import SQUARE, Writer, moving_square

from dimo_jax.cameras.turntable import Turntable
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.plan import Options, import_gltf
from dimo_jax.io.gltf.codecs import CodecError, decode_draco, decode_meshopt, read_draco_counts
from dimo_jax.io.gltf.document import open_document, span
from dimo_jax.io.gltf.plain import MAX_INSTANCES, make_plain
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.posing import pose_scene
from dimo_jax.rigs.scene import check_clips

MODELS = Path(__file__).resolve().parents[1] / "support" / "models"
PACKAGES = {"draco": "DracoPy", "meshopt": "meshoptimizer"}


def _need(codec):
    pytest.importorskip(PACKAGES[codec], reason=f"{PACKAGES[codec]}, of dimo_jax[gltf], is not installed")


@pytest.mark.parametrize("codec", PACKAGES)
def test_compressed_models_are_what_other_decoders_make_of_them(codec):
    _need(codec)
    packed, plain = (load_scene(MODELS / f"worm_{codec}{suffix}.glb") for suffix in ("", "_plain"))
    np.testing.assert_array_equal(packed.mesh.triangles, plain.mesh.triangles)
    np.testing.assert_array_equal(packed.mesh.colors, plain.mesh.colors)
    np.testing.assert_array_equal(packed.mesh.smooth_groups, plain.mesh.smooth_groups)
    assert packed.notes == ()
    for mine, other in zip(packed.clips, plain.clips, strict=True):
        for time in (0.0, 0.6, 1.1):
            np.testing.assert_array_equal(pose_scene(packed, mine, time), pose_scene(plain, other, time))


@pytest.mark.parametrize("codec", PACKAGES)
def test_compressed_models_have_the_vertices_of_the_model_that_was_compressed(codec):
    _need(codec)
    packed, original = load_scene(MODELS / f"worm_{codec}.glb"), load_scene(MODELS / "worm.glb")
    assert np.abs(packed.parts[0].morph_targets).max(axis=(1, 2)).min() > 0.1  # both do something
    for time in (0.0, 0.6, 1.1):  # compression may order vertices anew, so that the nearest are compared
        mine, other = (pose_scene(scene, scene.clips[0], time) for scene in (packed, original))
        distances = np.linalg.norm(mine[:, None] - other[None], axis=-1)
        assert distances.min(axis=0).max() < 3e-4
        assert distances.min(axis=1).max() < 3e-4


def test_meshopt_indices_and_wide_triangles():
    library = pytest.importorskip("meshoptimizer", reason="meshoptimizer, of dimo_jax[gltf], is not installed")
    indices = np.array([0, 1, 2, 2, 1, 3, 70000, 70001, 70002], np.uint32)
    data = bytes(library.encode_index_buffer(indices, 9, 70003))
    triangles = np.frombuffer(decode_meshopt(data, mode="TRIANGLES", filtering="NONE", count=9, stride=4), np.uint32)
    assert {tuple(np.roll(t, -t.argmin())) for t in triangles.reshape(3, 3)} == {
        *((0, 1, 2), (1, 3, 2), (70000, 70001, 70002))
    }
    with pytest.raises(CodecError, match="vertex index 70002, expected 16 bits"):
        decode_meshopt(data, mode="TRIANGLES", filtering="NONE", count=9, stride=2)
    data = bytes(library.encode_index_sequence(indices, 9, 70003))
    found = decode_meshopt(data, mode="INDICES", filtering="NONE", count=9, stride=4)
    np.testing.assert_array_equal(np.frombuffer(found, np.uint32), indices)


def test_meshopt_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "meshoptimizer", None)
    with pytest.raises(
        UserError, match=r"bufferViews\[\d+\] is compressed by meshopt, .* pip install 'dimo_jax\[gltf\]'"
    ):
        load_scene(MODELS / "worm_meshopt.glb")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mode": "POINTS"}, "mode 'POINTS' with filter 'NONE', which is not supported"),
        ({"filter": "COLOR"}, "mode 'ATTRIBUTES' with filter 'COLOR', which is not supported"),
        ({"count": 1 << 40}, "1099511627776 meshopt elements, expected 0.."),
        ({"count": -1}, "-1 meshopt elements"),
        ({"byteStride": 6}, "stride of 6 for ATTRIBUTES"),
        ({"byteStride": 1 << 20}, "stride of 1048576"),
        ({"byteOffset": 0}, "cannot be decoded by meshopt"),
        ({"byteLength": 3}, "cannot be decoded by meshopt"),
        ({"byteLength": 10**6}, "out of its buffer"),
        ({"buffer": 7}, r"buffers\[7\]"),
    ],
)
def test_broken_meshopt_ends_in_one_line(tmp_path, change, expected):
    _need("meshopt")
    document = open_document(MODELS / "worm_meshopt.glb")
    view = next(
        view
        for view in document.json["bufferViews"]
        if view.get("extensions", {}).get("EXT_meshopt_compression", {}).get("byteStride") == 4
    )
    view["extensions"]["EXT_meshopt_compression"] |= change
    with pytest.raises(UserError, match=expected):
        make_plain(document)


def _draco_bytes():
    document = open_document(MODELS / "worm_draco.glb")
    primitive = document.json["meshes"][0]["primitives"][0]
    return span(
        document, "", document.json["bufferViews"][primitive["extensions"]["KHR_draco_mesh_compression"]["bufferView"]]
    )


def test_draco_headers_are_compared_with_the_file_before_anything_is_decoded():
    data = _draco_bytes()
    assert read_draco_counts(data) == (60, 35)
    with_metadata = data[:9] + b"\x00\x80" + b"\x01\x00\x01\x01k\x02vv\x00" + b"\x00\x00" + data[11:]
    assert read_draco_counts(with_metadata) == (60, 35)  # of one attribute, and none of the file
    for faces, points in ((59, 35), (60, 34)):
        with pytest.raises(CodecError, match="holds 60 triangles and 35 vertices or more"):
            decode_draco(data, num_faces=faces, num_points=points)
    with pytest.raises(CodecError, match="expected 61 and 35"):
        decode_draco(data, num_faces=61, num_points=35)
    huge = data[:11] + b"\xff\xff\xff\xff\x0f" + data[12:]
    with pytest.raises(CodecError, match="holds 4294967295 triangles"):
        decode_draco(huge, num_faces=None, num_points=35)
    for damaged in (b"", data[:11], data[:40], b"DRACO\x02\x01" + data[7:], data[:7] + b"\x00" + data[8:]):
        with pytest.raises(CodecError):
            decode_draco(damaged, num_faces=60, num_points=35)
    with pytest.raises(CodecError, match="nested deeper than 16"):
        read_draco_counts(data[:9] + b"\x00\x80" + b"\x01" * 200)
    with pytest.raises(CodecError, match="ends in its header"):
        read_draco_counts(with_metadata[:18])


def _with_extension(extension, **primitive):
    writer = moving_square()
    entry = writer.json["meshes"][0]["primitives"][0]
    entry["extensions"] = extension
    entry |= primitive
    return writer


def test_draco_that_is_optional_is_decoded_or_refused(tmp_path):
    _need("draco")
    document = open_document(MODELS / "worm_draco.glb")
    del document.json["extensionsRequired"]
    assert "indices" in make_plain(document).json["meshes"][0]["primitives"][0]
    accessor = {"componentType": 5126, "count": 4, "type": "VEC3"}
    writer = _with_extension({})
    view = writer.view(SQUARE.tobytes())
    extension = {"KHR_draco_mesh_compression": {"bufferView": view, "attributes": {"POSITION": 0}}}
    writer.json["meshes"][0]["primitives"][0]["extensions"] = extension
    writer.json["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = writer.add("accessors", accessor)
    with pytest.raises(UserError, match=r"meshes\[0\].primitives\[0\] holds no Draco data"):
        load_scene(writer.write(tmp_path / "a.glb"))


def test_optional_compression_beside_plain_data_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "meshoptimizer", None)
    writer = _with_extension({"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}})
    packed = {"buffer": 0, "byteLength": 4, "mode": "ATTRIBUTES", "byteStride": 12, "count": 4}
    writer.json["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": packed}
    writer.json["extensionsUsed"] = ["KHR_draco_mesh_compression", "EXT_meshopt_compression"]
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    np.testing.assert_array_equal(scene.parts[0].positions, SQUARE)
    writer.json["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    with pytest.raises(UserError, match="holds no Draco data"):
        load_scene(writer.write(tmp_path / "b.glb"))


def test_positions_without_data_are_refused(tmp_path):
    writer = _with_extension({"ACME_zip": {"bufferView": 0}})
    accessor = writer.add("accessors", {"componentType": 5126, "count": 4, "type": "VEC3"})
    writer.json["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = accessor
    with pytest.raises(UserError, match=r"no data behind its POSITION; the extensions ACME_zip may hold it"):
        load_scene(writer.write(tmp_path / "a.glb"))


def _instances(writer, **attributes):
    given = {}
    for name, values in attributes.items():
        values = np.asarray(values)
        given[name] = writer.accessor(values, **({"normalized": True} if values.dtype.kind == "i" else {}))
    return {"EXT_mesh_gpu_instancing": {"attributes": given}}


def test_instances_are_drawn_where_they_stand(tmp_path):
    writer = moving_square()
    half = round(32767 * np.sqrt(0.5))
    writer.json["nodes"][0] |= {"translation": [0, 0, 5], "scale": [2, 1, 1]}
    writer.json["nodes"][0]["extensions"] = _instances(
        writer,
        TRANSLATION=np.array([[0, 0, 0], [3, 0, 0]], np.float32),
        ROTATION=np.array([[0, 0, 0, 32767], [0, 0, half, half]], np.int16),
        SCALE=np.array([[1, 1, 1], [1, 2, 1]], np.float32),
    )
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    assert (scene.num_vertices, scene.part_names, scene.notes) == (8, ("square",), ())
    turned = np.stack([-2 * SQUARE[:, 1], SQUARE[:, 0], SQUARE[:, 2]], axis=1)  # scaled, then turned by 90 degrees
    for time, x in ((0.0, 0.0), (1.0, 1.0)):  # the clip moves the node, and its instances with it
        expected = np.concatenate([SQUARE, turned + [3, 0, 0]]) * [2, 1, 1] + [x, 0, 0]
        np.testing.assert_allclose(pose_scene(scene, scene.clips[0], time), expected, atol=1e-4)


def test_instances_keep_their_morphs_and_fronts_and_can_be_hidden(tmp_path):
    writer = moving_square()
    primitive = writer.json["meshes"][0]["primitives"][0]
    primitive["targets"] = [{"POSITION": writer.accessor(np.full((4, 3), 10, np.float32))}]
    writer.clip("Swell", 0, "weights", [0.0, 1.0], np.array([0, 1], np.float32))
    writer.json["nodes"][0]["extensions"] = _instances(writer, SCALE=np.array([[1, 1, 1], [-1, 1, 1]], np.float32))
    writer.add("nodes", {"name": "other", "mesh": writer.square()})
    writer.json["scenes"][0]["nodes"].append(1)
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    last = pose_scene(scene, scene.clips[1], 1.0)[4:]
    np.testing.assert_allclose(last, np.concatenate([SQUARE + 10, (SQUARE + 10) * [-1, 1, 1]]), atol=1e-5)
    assert load_scene(tmp_path / "a.glb", hide=("square",)).part_names == ("other",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (dict(counts=(2, 3)), "instances of different counts"),
        (dict(skin=True), "both a skin and instances"),
        (dict(many=True), f"expected {MAX_INSTANCES} at most"),
    ],
)
def test_broken_instances_end_in_one_line(tmp_path, change, expected):
    writer = moving_square()
    first, second = change.get("counts", (2, 2))
    if change.get("many"):
        index = writer.add("accessors", {"componentType": 5126, "count": MAX_INSTANCES + 1, "type": "VEC3"})
        extension = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": index}}}
    else:
        extension = _instances(
            writer, TRANSLATION=np.zeros((first, 3), np.float32), SCALE=np.ones((second, 3), np.float32)
        )
    writer.json["nodes"][0]["extensions"] = extension
    if change.get("skin"):
        writer.json["nodes"][0]["skin"] = writer.add("skins", {"joints": [0]})
    with pytest.raises(UserError, match=expected):
        load_scene(writer.write(tmp_path / "a.glb"))


def _pointer(writer: Writer, name, pointer, times, values):
    index = writer.clip(name, 0, "pointer", times, values)
    target = {"path": "pointer", "extensions": {"KHR_animation_pointer": {"pointer": pointer}}}
    writer.json["animations"][index]["channels"][0]["target"] = target


def test_pointers_to_a_node_are_plain_channels(tmp_path):
    writer = moving_square()
    half = np.sqrt(0.5)
    _pointer(writer, "Turn", "/nodes/0/rotation", [0.0, 1.0], np.array([[0, 0, 0, 1], [0, 0, half, half]]))
    _pointer(writer, "Lift", "/nodes/0/translation", [0.0, 1.0], np.array([[0, 0, 0], [0, 2, 0]]))
    _pointer(writer, "Fade", "/materials/0/pbrMetallicRoughness/baseColorFactor", [0.0, 1.0], np.ones((2, 4)))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    assert [clip.name for clip in scene.clips] == ["Walk", "Turn", "Lift"]
    turned = np.stack([-SQUARE[:, 1], SQUARE[:, 0], SQUARE[:, 2]], axis=1)
    np.testing.assert_allclose(pose_scene(scene, scene.clips[1], 1.0), turned, atol=1e-6)
    np.testing.assert_allclose(pose_scene(scene, scene.clips[2], 1.0), SQUARE + [0, 2, 0], atol=1e-6)
    (note,) = scene.notes
    assert "'Fade'" in note
    assert "/materials/0/pbrMetallicRoughness/baseColorFactor" in note
    del writer.json["animations"][:3]
    with pytest.raises(UserError, match=r"no animation found, .*; clip 'Fade' .*: /materials/0/.* \(KHR_anim"):
        load_scene(writer.write(tmp_path / "b.glb"))


def test_pointers_beyond_the_nodes_are_refused(tmp_path):
    writer = moving_square()
    _pointer(writer, "Turn", "/nodes/7/rotation", [0.0], np.array([[0, 0, 0, 1]]))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    with pytest.raises(UserError, match=r"nodes\[7\]"):
        check_clips(scene.clips)


def test_nodes_that_the_file_hides_are_not_drawn_and_said(tmp_path):
    writer = moving_square()
    writer.add("nodes", {"name": "ghost", "children": [2], "extensions": {"KHR_node_visibility": {"visible": False}}})
    writer.add("nodes", {"name": "sheet", "mesh": writer.square()})
    writer.json["scenes"][0]["nodes"].append(1)
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    assert scene.part_names == ("square",)
    assert scene.notes == ("left out, as the file says that they cannot be seen: sheet",)


def test_what_is_left_out_has_a_line_at_import(tmp_path):
    writer = moving_square()
    shiny = {"KHR_materials_clearcoat": {"clearcoatFactor": 1}, "KHR_materials_transmission": {"transmissionFactor": 1}}
    primitive = writer.json["meshes"][0]["primitives"][0]
    primitive["material"] = writer.add("materials", {"extensions": shiny})
    primitive["extensions"] = {"KHR_materials_variants": {"mappings": []}}
    writer.json["extensions"] = {"KHR_lights_punctual": {"lights": []}}
    writer.json["nodes"][0]["extensions"] = {"ACME_fur": {"length": 1}}
    writer.json["nodes"][0]["extras"] = {"extensions": {"ACME_notes": {}}}
    points = {"attributes": primitive["attributes"], "mode": 0}
    writer.json["meshes"][0]["primitives"].append(points)
    writer.add("scenes", {"nodes": []})
    writer.json["extensionsUsed"] = ["ACME_unused", "ACME_fur"]
    lines: list[str] = []
    small = Turntable(size=8, samples=1, azimuths_deg=(0.0,), test_azimuths_deg=())
    import_gltf(writer.write(tmp_path / "a.glb"), Options(turntable=small, num_surface_points=8), report=lines.append)
    assert lines[2:] == [
        "drawn in its default colours: the file's other ones (KHR_materials_variants) are left out",
        "drawn without light that goes through: KHR_materials_transmission",
        "drawn without shine: KHR_materials_clearcoat",
        "not read, and what they bring is left out: the extensions ACME_fur",
        "left out, points or lines without a surface: square",
        "drawn: scene 0 of the 2 of the file",
    ]
