"""The glTF reader on files written by hand: what it reads, and that whatever is wrong ends in one line."""

import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
from gltf_writer import SQUARE, Writer, moving_square
from PIL import Image

from dimo_jax.data.gltf import load_scene, select_clips
from dimo_jax.data.gltf_document import open_document, read_accessor
from dimo_jax.errors import UserError


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_scene_of_both_containers(tmp_path, suffix):
    scene = load_scene(moving_square().write(tmp_path / f"square{suffix}"))
    np.testing.assert_array_equal(scene.parts[0].positions, SQUARE)
    np.testing.assert_array_equal(scene.mesh.triangles, [[0, 1, 2], [0, 2, 3]])
    assert [(clip.name, clip.start, clip.end) for clip in scene.clips] == [("Walk", 0.0, 1.0)]


def test_interleaved_accessors(tmp_path):
    rows = np.zeros(5, dtype=[("position", "<f4", 3), ("uv", "<u2", 2), ("pad", "<u4")])
    rows["position"] = np.arange(15).reshape(5, 3)
    rows["uv"] = np.arange(10).reshape(5, 2) * 6553
    writer = Writer()
    view = writer.view(rows.tobytes(), byteStride=rows.itemsize)
    writer.add("accessors", {"bufferView": view, "componentType": 5126, "count": 5, "type": "VEC3"})
    uv = {"bufferView": view, "byteOffset": 12, "componentType": 5123, "count": 5, "type": "VEC2", "normalized": True}
    writer.add("accessors", uv)
    document = open_document(writer.write(tmp_path / "a.glb"))
    np.testing.assert_array_equal(read_accessor(document, 0), rows["position"])
    np.testing.assert_allclose(read_accessor(document, 1), rows["uv"] / 65535, atol=1e-7)


@pytest.mark.parametrize("with_base", [True, False])
def test_sparse_accessors(tmp_path, with_base):
    writer = Writer()
    base = np.arange(12, dtype=np.float32).reshape(4, 3)
    indices = writer.view(np.array([1, 3], np.uint16).tobytes())
    values = writer.view(np.full((2, 3), 9, np.float32).tobytes())
    entry = {"componentType": 5126, "count": 4, "type": "VEC3"}
    if with_base:
        entry["bufferView"] = writer.view(base.tobytes())
    entry["sparse"] = {
        "count": 2,
        "indices": {"bufferView": indices, "componentType": 5123},
        "values": {"bufferView": values},
    }
    index = writer.add("accessors", entry)
    expected = base if with_base else np.zeros_like(base)
    expected[[1, 3]] = 9
    np.testing.assert_array_equal(read_accessor(open_document(writer.write(tmp_path / "a.glb")), index), expected)


@pytest.mark.parametrize(
    ("dtype", "scale"), [("int8", 127), ("uint8", 255), ("int16", 32767), ("uint16", 65535), ("uint32", None)]
)
def test_component_types(tmp_path, dtype, scale):
    info = np.iinfo(dtype)
    values = np.array([info.min, info.max, info.max // 2, 1], dtype)
    writer = Writer()
    plain = writer.accessor(values)
    document_path = writer.write(tmp_path / "plain.glb")
    np.testing.assert_array_equal(read_accessor(open_document(document_path), plain), values)
    if scale:
        writer.json["accessors"][plain]["normalized"] = True
        found = read_accessor(open_document(writer.write(tmp_path / "normalized.glb")), plain)
        np.testing.assert_allclose(found, np.maximum(values / scale, -1), atol=1e-6)


def test_matrices_are_transposed_to_rows(tmp_path):
    writer = Writer()
    matrices = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    index = writer.accessor(matrices.swapaxes(1, 2))
    np.testing.assert_array_equal(read_accessor(open_document(writer.write(tmp_path / "a.glb")), index), matrices)


@pytest.mark.parametrize(("mode", "expected"), [(5, [[0, 1, 2], [1, 2, 3]]), (6, [[0, 1, 2], [0, 2, 3]])])
def test_strips_and_fans(tmp_path, mode, expected):
    writer = moving_square()
    primitive = writer.json["meshes"][0]["primitives"][0]
    primitive["mode"] = mode
    del primitive["indices"]
    np.testing.assert_array_equal(load_scene(writer.write(tmp_path / "a.glb")).mesh.triangles, expected)


def test_materials_textures_and_vertex_colors(tmp_path):
    writer = moving_square()
    primitive = writer.json["meshes"][0]["primitives"][0]
    pixels = np.array([[[255, 0, 0, 255], [0, 255, 0, 128]]], np.uint8)
    image = writer.add("images", {"bufferView": writer.view(_png(pixels)), "mimeType": "image/png"})
    sampler = writer.add("samplers", {"wrapS": 33071, "wrapT": 33648})
    texture = writer.add("textures", {"source": image, "sampler": sampler})
    transform = {"KHR_texture_transform": {"offset": [0.5, 0.25], "scale": [2, 3], "rotation": np.pi / 2}}
    surface = {
        "baseColorFactor": [0.5, 1, 1, 0.75],
        "baseColorTexture": {"index": texture, "extensions": transform},
    }
    primitive["material"] = writer.add("materials", {"pbrMetallicRoughness": surface, "alphaMode": "MASK"})
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    primitive["attributes"]["TEXCOORD_0"] = writer.accessor(uv)
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    primitive["attributes"]["COLOR_0"] = writer.accessor(colors, normalized=True)
    mesh = load_scene(writer.write(tmp_path / "a.glb")).mesh
    assert mesh.materials[0].cutoff == 0.5
    np.testing.assert_allclose(mesh.materials[0].base_color, [0.5, 1, 1, 0.75])
    np.testing.assert_allclose(mesh.materials[0].texture.pixels[0], pixels[0] / 255, atol=1e-6)  # 0 and 1 stay
    assert mesh.materials[0].texture.wrap == ("clamp", "mirror")
    np.testing.assert_allclose(mesh.colors, np.c_[colors / 255, np.ones(4)], atol=1e-6)
    # The extension scales, then turns the picture by 90 degrees: (u, v) -> (v, -u), then shifts.
    np.testing.assert_allclose(mesh.texcoords, np.c_[3 * uv[:, 1] + 0.5, -2 * uv[:, 0] + 0.25], atol=1e-6)


def test_hidden_nodes_take_their_children_with_them(tmp_path):
    writer = moving_square()
    writer.add("nodes", {"name": "Hand", "children": [2]})
    writer.add("nodes", {"name": "Sword_Big", "mesh": writer.square()})
    writer.json["scenes"][0]["nodes"].append(1)
    path = writer.write(tmp_path / "a.glb")
    assert load_scene(path).part_names == ("square", "Sword_Big")
    for pattern in ("sword*", "HAND"):
        scene = load_scene(path, hide=(pattern,))
        assert (scene.part_names, scene.hidden) == (("square",), ("Sword_Big",))
    with pytest.raises(UserError, match=r"hide='Axe' matches no node; nodes with a mesh: Sword_Big, square"):
        load_scene(path, hide=("Axe",))
    with pytest.raises(UserError, match="leaves nothing to draw"):
        load_scene(path, hide=("*",))


def test_nodes_outside_of_the_scene_are_not_drawn(tmp_path):
    writer = moving_square()
    writer.add("nodes", {"name": "spare", "mesh": writer.square()})
    assert load_scene(writer.write(tmp_path / "a.glb")).part_names == ("square",)


def test_clips_are_selected_by_pattern(tmp_path):
    writer = moving_square("Walk_A")
    writer.clip("Run", 0, "scale", [0.0], np.ones((1, 3)))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    assert [clip.name for clip in select_clips(scene, ("run", "walk*"))] == ["Walk_A", "Run"]
    with pytest.raises(UserError, match="clips='Jump' matches no clip, expected some of: Walk_A, Run"):
        select_clips(scene, ("Jump",))


def test_files_of_the_own_folder_are_read_and_no_others(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    writer = moving_square()
    writer.write(folder / "a.gltf")
    content = writer.json
    (folder / "a buffer.bin").write_bytes(bytes(writer.binary))
    (tmp_path / "secret.bin").write_bytes(bytes(writer.binary))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")

    def load(uri):
        content["buffers"][0]["uri"] = uri
        (folder / "a.gltf").write_text(json.dumps(content))
        return load_scene(folder / "a.gltf")

    assert load("a%20buffer.bin").num_vertices == 4
    for uri in ("../secret.bin", "%2e%2e/secret.bin", str(tmp_path / "secret.bin"), "link.bin"):
        with pytest.raises(UserError, match="lies outside its own folder"):
            load(uri)
    for uri in ("file:///etc/passwd", "http://example.org/a.bin", "..\\secret.bin"):
        with pytest.raises(UserError, match="expected a file of its own folder"):
            load(uri)
    with pytest.raises(UserError, match="does not exist beside it"):
        load("absent.bin")


def _mutate_json(change):
    def damage(writer: Writer) -> bytes:
        change(writer.json)
        return writer.glb()

    return damage


def _set(value, *keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return _mutate_json(change)


def _image_of_size(size: int):
    header = b"IHDR" + struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return lambda writer: _with_image(writer, png + struct.pack(">I", 0) + b"IDAT")


def _with_image(writer: Writer, data: bytes) -> bytes:
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    writer.json["images"] = [{"uri": uri}]
    writer.json["textures"] = [{"source": 0}]
    writer.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    writer.json["meshes"][0]["primitives"][0]["material"] = 0
    return writer.glb()


def _zero_buffer_sparse(writer: Writer) -> bytes:
    position = writer.json["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
    accessor = writer.json["accessors"][position]
    del accessor["bufferView"]
    accessor["count"] = 10**12
    return writer.glb()


def _nan_positions(writer: Writer) -> bytes:
    writer.json["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = writer.accessor(SQUARE * np.float32("nan"))
    return writer.glb()


MALFORMED = {
    "empty": (lambda w: b"", "no readable JSON"),
    "text": (lambda w: b"hello", "no readable JSON"),
    "json of something else": (lambda w: b"{}", "no 'asset'"),
    "deep json": (lambda w: b"[" * 200000, "no readable JSON"),
    "truncated": (lambda w: w.glb()[:-20], "truncated GLB"),
    "header only": (lambda w: w.glb()[:12], "truncated GLB"),
    "chunk too long": (lambda w: w.glb()[:12] + struct.pack("<I", 10**9) + w.glb()[16:], "truncated GLB"),
    "version 1": (_set({"version": "1.0"}, "asset"), "expected 2.0"),
    "draco": (_set(["KHR_draco_mesh_compression"], "extensionsRequired"), "KHR_draco_mesh_compression"),
    "buffer too short": (_set(10**6, "buffers", 0, "byteLength"), r"buffers\[0\] holds \d+ bytes, expected 1000000"),
    "view out of buffer": (_set(10**6, "bufferViews", 0, "byteOffset"), "out of its buffer"),
    "negative offset": (_set(-4, "bufferViews", 0, "byteOffset"), "offset -4"),
    "accessor out of view": (_set(10**6, "accessors", 0, "count"), "out of its buffer view"),
    "accessor of unknown type": (_set("VEC9", "accessors", 0, "type"), "'VEC9'"),
    "huge sparse accessor": (_zero_buffer_sparse, "count 1000000000000"),
    "positions of two numbers": (_set("VEC2", "accessors", 0, "type"), "is a VEC2, expected a VEC3"),
    "NaN positions": (_nan_positions, "NaN or infinite"),
    "vertex out of range": (_set(3, "accessors", 0, "count"), "vertex index 3, expected one below 3"),
    "mesh out of range": (_set(7, "nodes", 0, "mesh"), r"meshes\[7\]"),
    "mesh of a wrong type": (_set("0", "nodes", 0, "mesh"), r"meshes\['0'\]"),
    "skin out of range": (_set(0, "nodes", 0, "skin"), r"skins\[0\]"),
    "node below itself": (_set([0], "nodes", 0, "children"), "cyclic"),
    "NaN matrix": (_set([float("nan")] * 16, "nodes", 0, "matrix"), r"nodes\[0\].matrix .* 16 finite numbers"),
    "short matrix": (_set([1, 0], "nodes", 0, "matrix"), "expected 16 finite numbers"),
    "rotation of zero": (_set([0, 0, 0, 0], "nodes", 0, "rotation"), "unit quaternion"),
    "no meshes": (_set([{"name": "empty"}], "nodes"), "no mesh found"),
    "no animations": (_set([], "animations"), "no animation found, expected at least one clip"),
    "nodes of a wrong type": (_set(5, "nodes"), "'nodes' is not an array of objects"),
    "primitives missing": (_set({}, "meshes", 0), "malformed glTF"),
    "unknown interpolation": (_set("MAGIC", "animations", 0, "samplers", 0, "interpolation"), "'MAGIC'"),
    "keys without values": (_set(0, "animations", 0, "samplers", 0, "output"), "for 2 keys of translation"),
    "sampler out of range": (_set(5, "animations", 0, "channels", 0, "sampler"), "sampler 5 of 1"),
    "not an image": (lambda w: _with_image(w, b"not a png"), r"images\[0\] cannot be decoded"),
    "large image": (_image_of_size(9000), r"images\[0\] is 9000 x 9000, expected at most"),
    "decompression bomb": (_image_of_size(60000), r"images\[0\] .*decompression bomb"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_end_in_one_line(tmp_path, name):
    damage, expected = MALFORMED[name]
    path = tmp_path / "bad.glb"
    path.write_bytes(damage(moving_square()))
    with pytest.raises(UserError, match=expected) as caught:
        load_scene(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_two_parents_and_a_cycle_of_two(tmp_path):
    writer = moving_square()
    writer.json["nodes"] += [{"children": [2]}, {"children": [1]}]
    with pytest.raises(UserError, match="cyclic"):
        load_scene(writer.write(tmp_path / "cycle.glb"))
    writer = moving_square()
    writer.json["nodes"] += [{"children": [0]}, {"children": [0]}]
    with pytest.raises(UserError, match=r"nodes\[0\] has two parents, 1 and 2"):
        load_scene(writer.write(tmp_path / "parents.glb"))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"absent.glb: no such file, expected a .glb or .gltf model"):
        load_scene(tmp_path / "absent.glb")
