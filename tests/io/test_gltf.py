"""The glTF reader on files written by hand."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from support.gltf_writer import SQUARE, Writer, moving_square

from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.document import open_document, read_accessor
from dimo_jax.io.gltf.scene import load_scene, select_clips


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


@pytest.mark.parametrize(("mode", "expected"), [(5, [[0, 1, 2], [1, 3, 2]]), (6, [[0, 1, 2], [0, 2, 3]])])
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
    for uri in ("../secret.bin", "%2e%2e/secret.bin", "..\\secret.bin", "link.bin"):
        with pytest.raises(UserError, match="lies outside its own folder"):
            load(uri)
    for uri in ("file:///etc/passwd", "http://example.org/a.bin", str(tmp_path / "secret.bin")):
        with pytest.raises(UserError, match="expected a file of its own folder"):
            load(uri)
    with pytest.raises(UserError, match="does not exist beside it"):
        load("absent.bin")


def test_specular_glossiness_unlit_and_filters(tmp_path):
    writer = moving_square()
    primitive = writer.json["meshes"][0]["primitives"][0]
    checkers = np.array([[0, 255], [255, 0]], np.uint8)[:, :, None].repeat(3, axis=2)
    image = writer.add("images", {"bufferView": writer.view(_png(checkers)), "mimeType": "image/png"})
    pixel_art = writer.add("samplers", {"magFilter": 9728, "minFilter": 9728})
    texture = writer.add("textures", {"source": image, "sampler": pixel_art})
    older = {"diffuseFactor": [0.1, 0.2, 0.3, 0.4], "diffuseTexture": {"index": texture}}
    extensions = {"KHR_materials_pbrSpecularGlossiness": older, "KHR_materials_unlit": {}}
    primitive["material"] = writer.add("materials", {"extensions": extensions})
    primitive["attributes"]["TEXCOORD_0"] = writer.accessor(np.ones((4, 2), np.float32))
    mesh = load_scene(writer.write(tmp_path / "a.glb")).mesh
    (material,) = mesh.materials
    np.testing.assert_allclose(material.base_color, [0.1, 0.2, 0.3, 0.4])
    assert (material.unlit, material.texture.nearest, material.texture.smaller) == (True, True, ())
    np.testing.assert_array_equal(mesh.texcoords, np.ones((4, 2)))
    del writer.json["textures"][0]["sampler"]  # what a file leaves open is smooth
    (material,) = load_scene(writer.write(tmp_path / "b.glb")).mesh.materials
    assert not material.texture.nearest
    np.testing.assert_allclose(material.texture.smaller[0], [[[0.5, 0.5, 0.5, 1]]])


def test_clips_of_one_name_are_told_apart(tmp_path):
    writer = moving_square("Walk")
    for name in ("Walk_2", "Walk", "Walk"):
        writer.clip(name, 0, "scale", [0.0], np.ones((1, 3)))
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    assert [clip.name for clip in scene.clips] == ["Walk", "Walk_2", "Walk_3", "Walk_4"]


def test_nodes_without_a_name_have_that_of_their_mesh(tmp_path):
    writer = moving_square()
    del writer.json["nodes"][0]["name"]
    assert load_scene(writer.write(tmp_path / "a.glb")).part_names == ("node_0",)
    writer.json["meshes"][0]["name"] = "Sword"
    assert load_scene(writer.write(tmp_path / "b.glb")).part_names == ("Sword",)
