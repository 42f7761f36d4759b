"""Broken and hostile glTF files: each ends in one line and exit code 2, and leaves nothing behind."""

import base64
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.gltf_writer import SQUARE, Writer, moving_square

from dimo_jax.apps.import_data import run
from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.scene import load_scene

ROOT = Path(__file__).resolve().parents[2]


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


def _require(extensions, *keys):
    """Gives an element of the JSON extensions that a reader must know."""

    def change(content):
        content["extensionsRequired"] = list(extensions)
        for key in keys:
            content = content[key]
        content["extensions"] = extensions

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


def _sparse(writer: Writer, indices: list[int]) -> bytes:
    accessor = writer.json["accessors"][writer.json["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    accessor["sparse"] = {
        "count": len(indices),
        "indices": {"bufferView": writer.view(np.array(indices, np.uint16).tobytes()), "componentType": 5123},
        "values": {"bufferView": writer.view(np.zeros((len(indices), 3), np.float32).tobytes())},
    }
    return writer.glb()


def _skinned(writer: Writer, joints: np.ndarray) -> bytes:
    attributes = writer.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = writer.accessor(joints)
    attributes["WEIGHTS_0"] = writer.accessor(np.tile(np.array([1, 0, 0, 0], np.float32), (4, 1)))
    writer.json["nodes"][0]["skin"] = writer.add("skins", {"joints": [writer.add("nodes", {})]})
    return writer.glb()


def _animated_weights(writer: Writer) -> bytes:
    writer.json["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": writer.accessor(SQUARE)}]
    writer.clip("Smile", 0, "weights", [0.0, 1.0], np.zeros(4))
    return writer.glb()


def _far_key(writer: Writer) -> bytes:
    writer.json["animations"] = []
    writer.clip("Walk", 0, "translation", [0.0, 1.0], np.array([[0, 0, 0], [1e30, 0, 0]]))
    return writer.glb()


def _moved_to(place: float):
    def damage(writer: Writer) -> bytes:
        writer.json["nodes"].append({"children": [0], "scale": [place] * 3})
        writer.json["scenes"][0]["nodes"] = [1]
        return writer.glb()

    return damage


def _bomb(writer: Writer) -> bytes:
    """A sound PNG of some kilobytes that holds 400 million pixels."""
    side = 20000
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    chunks = [header, b"IDAT" + rows, b"IEND"]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    return _with_image(writer, png)


def _uri(kind: str, uri: str):
    def damage(writer: Writer) -> bytes:
        writer.glb()
        if kind == "images":
            _with_image(writer, b"")
        writer.json[kind][0]["uri"] = uri
        return writer.glb()

    return damage


def _texture_out_of_range(writer: Writer) -> bytes:
    _with_image(writer, b"")
    writer.json["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"] = 3
    return writer.glb()


def _falling_times(writer: Writer) -> bytes:
    writer.clip("Back", 0, "translation", [1.0, 0.0], np.zeros((2, 3)))
    return writer.glb()


def _nan_positions(writer: Writer) -> bytes:
    writer.json["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = writer.accessor(SQUARE * np.float32("nan"))
    return writer.glb()


def _transformed(**transform):
    def damage(writer: Writer) -> bytes:
        image = io.BytesIO()
        Image.new("RGB", (4, 4)).save(image, "PNG")
        attributes = writer.json["meshes"][0]["primitives"][0]["attributes"]
        attributes["TEXCOORD_0"] = writer.accessor(np.ascontiguousarray(SQUARE[:, :2]))
        _with_image(writer, image.getvalue())
        info = writer.json["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
        info["extensions"] = {"KHR_texture_transform": transform}
        return writer.glb()

    return damage


def _material(**fields):
    def damage(writer: Writer) -> bytes:
        writer.json["materials"] = [fields]
        writer.json["meshes"][0]["primitives"][0]["material"] = 0
        return writer.glb()

    return damage


MALFORMED = {
    "empty": (lambda w: b"", "an empty file, expected a .glb or .gltf model"),
    "text": (lambda w: b"hello", "no readable JSON"),
    "json of something else": (lambda w: b"{}", "no 'asset'"),
    "deep json": (lambda w: b"[" * 200000, "no readable JSON"),
    "truncated": (lambda w: w.glb()[:-20], "truncated GLB"),
    "header only": (lambda w: w.glb()[:12], "truncated GLB"),
    "chunk too long": (lambda w: w.glb()[:12] + struct.pack("<I", 10**9) + w.glb()[16:], "truncated GLB"),
    "version 1": (_set({"version": "1.0"}, "asset"), "expected 2.0"),
    "unknown extension": (_set(["ACME_mesh_packing"], "extensionsRequired"), "needs the extension 'ACME_mesh_packing'"),
    "draco without its view": (
        _require({"KHR_draco_mesh_compression": {"attributes": {}}}, "meshes", 0, "primitives", 0),
        "compressed attributes of no or of several lengths",
    ),
    "draco of something else": (
        _require(
            {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}},
            *("meshes", 0, "primitives", 0),
        ),
        r"meshes\[0\].primitives\[0\] holds no Draco data",
    ),
    "meshopt without its fields": (
        _require({"EXT_meshopt_compression": {"buffer": 0, "byteLength": 8}}, "bufferViews", 0),
        r"bufferViews\[0\] has the meshopt mode None",
    ),
    "instances of no accessor": (
        _set({"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 99}}}, "nodes", 0, "extensions"),
        r"accessors\[99\]",
    ),
    "extensions of a wrong type": (_set({"EXT_mesh_gpu_instancing": 5}, "nodes", 0, "extensions"), "malformed glTF"),
    "buffer too short": (_set(10**6, "buffers", 0, "byteLength"), r"buffers\[0\] holds \d+ bytes, expected 1000000"),
    "view out of buffer": (_set(10**6, "bufferViews", 0, "byteOffset"), "out of its buffer"),
    "negative offset": (_set(-4, "bufferViews", 0, "byteOffset"), "offset -4"),
    "accessor out of view": (_set(10**6, "accessors", 0, "count"), "out of its buffer view"),
    "accessor of unknown type": (_set("VEC9", "accessors", 0, "type"), "'VEC9'"),
    "huge sparse accessor": (_zero_buffer_sparse, "count 1000000000000"),
    "positions of two numbers": (_set("VEC2", "accessors", 0, "type"), "is a VEC2, expected a VEC3"),
    "NaN positions": (_nan_positions, r"vertex 0 has the position nan nan nan, expected finite numbers .4 of 4"),
    "vertex out of range": (_set(3, "accessors", 0, "count"), "vertex index 3, expected one below 3"),
    "mesh out of range": (_set(7, "nodes", 0, "mesh"), r"meshes\[7\]"),
    "an index that is the whole file": (
        _set([{"name": "x" * 100}] * 100, "nodes", 0, "mesh"),
        r"refers to meshes\[\[\{'name': 'xxx[^\n]{900,1000} \.\.\.$",
    ),
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
    "turned beyond float64": (_set([1e308, 1e308, 0, 0], "nodes", 0, "rotation"), r"nodes\[0\].rotation .* 1e\+308"),
    "no triangles": (_set(0, "accessors", 1, "count"), "no mesh found, expected at least one with triangles"),
    "texture repeated without end": (_transformed(scale=[1e20, 1e20]), r"reach beyond 1e\+09"),
    "texture moved out of float64": (_transformed(scale=[1e308, 1], offset=[1e308, 0]), r"reach beyond 1e\+09"),
    "colour beyond float32": (
        _material(pbrMetallicRoughness={"baseColorFactor": [1e300, 0, 0, 1]}),
        "the base colour of material 0",
    ),
    "cutoff beyond float32": (_material(alphaMode="MASK", alphaCutoff=1e300), "the alpha cutoff of material 0"),
    "cutoff that is no number": (_material(alphaMode="MASK", alphaCutoff=float("nan")), "the alpha cutoff"),
    "not an image": (lambda w: _with_image(w, b"not a png"), r"images\[0\] cannot be decoded"),
    "large image": (_image_of_size(9000), r"images\[0\] is 9000 x 9000, expected 1 to"),
    "image of no size": (_image_of_size(0), r"images\[0\] cannot be decoded"),
    "decompression bomb": (_bomb, r"images\[0\] .*decompression bomb"),
    "texture missing": (_uri("images", "skin.png"), "refers to 'skin.png', which does not exist beside it"),
    "texture out of range": (_texture_out_of_range, r"textures\[3\]"),
    "buffer outside of the folder": (_uri("buffers", "../../secret.bin"), "lies outside its own folder"),
    "image from the network": (_uri("images", "http://example.org/a.png"), "expected a file of its own folder"),
    "base64 with errors": (_uri("buffers", "data:;base64,@@@@"), "not valid base64"),
    "sparse index out of range": (lambda w: _sparse(w, [1, 4]), "sparse refers to element 4 of 4"),
    "more sparse values than elements": (lambda w: _sparse(w, [0] * 5), "sparse has count 5"),
    "joint beyond the skin": (
        lambda w: _skinned(w, np.full((4, 4), 7, np.uint8)),
        "refers to joint 7 of 1 in its skin",
    ),
    "negative joint": (lambda w: _skinned(w, np.full((4, 4), -1, np.int8)), "joints of type int8, expected unsigned"),
    "skin without joints": (_set([{"joints": []}], "skins"), r"skins\[0\] has no joints"),
    "two parents": (
        _set([{"mesh": 0}, {"children": [0]}, {"children": [0]}], "nodes"),
        r"nodes\[0\] has two parents, 1 and 2",
    ),
    "a cycle of two nodes": (_set([{"mesh": 0}, {"children": [2]}, {"children": [1]}], "nodes"), "cyclic"),
    "other count of morph weights": (_animated_weights, "2 morph weights a key .* expected 1"),
    "falling key times": (_falling_times, "has key 1 before the one before it, expected key times that rise"),
    "beyond float64": (_moved_to(1e300), "the rest pose has coordinates beyond 1e[+]09"),
    "a key far away": (_far_key, "clip 'Walk' has coordinates beyond 1e[+]09"),
    "vertices at one point": (_moved_to(0.0), "nothing moves in any of its clips"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_end_in_one_line_and_leave_nothing(tmp_path, name):
    damage, expected = MALFORMED[name]
    path = tmp_path / "bad.glb"
    path.write_bytes(damage(moving_square()))
    with pytest.raises(UserError, match=expected) as caught:
        run(source=str(path), out=str(tmp_path / "data" / "out"), num_frames=2, size=8, num_workers=1)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_ends_with_code_2_and_one_line(tmp_path):
    path = tmp_path / "bad.glb"
    path.write_bytes(moving_square().glb()[:-20])
    command = [sys.executable, "launch.py", "--app=import_data", f"--source={path}", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {path}: truncated GLB")
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file(tmp_path, capsys):
    with pytest.raises(UserError, match=r"absent.glb: no such file or folder, expected data to read"):
        run(source=str(tmp_path / "absent.glb"), out=str(tmp_path / "out"))
    assert not capsys.readouterr().out  # which would call it a model first
    (tmp_path / "folder.glb").mkdir()
    with pytest.raises(UserError, match=r"folder.glb: found none of dataset.json"):
        run(source=str(tmp_path / "folder.glb"), out=str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"folder.glb: found a folder, expected a .glb or .gltf model"):
        load_scene(tmp_path / "folder.glb")
