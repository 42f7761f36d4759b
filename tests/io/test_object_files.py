import struct

import numpy as np
import pytest
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io.objects import load_object
from tests.support.gltf_writer import Writer

OBJ = """# a comment
mtllib thing.mtl
o body
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl wood
f 1/1 2/2 3/3 4/4
o door
v 0 0 1 1 0 0
v 1 0 1 1 0 0
v 1 1 1 1 0 0
usemtl paint
f -3 -2 -1
"""


def write_obj(folder):
    (folder / "thing.obj").write_text(OBJ)
    (folder / "thing.mtl").write_text(
        "newmtl wood\nKd 1 0 0\nmap_Kd -s 1 1 1 wood.png\nnewmtl paint\nKd 0 0 1\nd 0.5\n"
    )
    Image.new("RGB", (4, 4), (0, 255, 0)).save(folder / "wood.png")
    return folder / "thing.obj"


def test_obj_has_nodes_materials_textures_and_colours(tmp_path):
    thing = load_object(write_obj(tmp_path))
    assert thing.node_names == ("body", "door")
    assert thing.triangle_nodes.tolist() == [0, 0, 1]
    assert thing.material_names == ("wood", "paint")
    wood, paint = thing.mesh.materials
    np.testing.assert_allclose(wood.texture.pixels[0, 0], [0, 1, 0, 1])
    np.testing.assert_allclose(paint.base_color, [0, 0, 1, 0.5])
    np.testing.assert_allclose(thing.mesh.texcoords[thing.triangles[0]], [[0, 1], [1, 1], [1, 0]])
    np.testing.assert_allclose(thing.mesh.colors[thing.triangles[2]][:, :3], [[1, 0, 0]] * 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [("v 0 0\nf 1 1 1\n", "line 1 is malformed"), ("v 0 0 0\nf 1 2 3\n", r"line 2 is malformed \(index 2 of 1\)"),
     ("v 0 0 0\n", "has no faces"), ("mtllib ../x.mtl\nv 0 0 0\nf 1 1 1\n", "lies outside"),
     ("v 0 0 nan\nf 1 1 1\n", "NaN")],
)  # fmt: skip
def test_bad_obj_is_one_line(tmp_path, text, message):
    (tmp_path / "a.obj").write_text(text)
    with pytest.raises(UserError, match=message):
        load_object(tmp_path / "a.obj")


def header(kind, faces):
    lines = ["ply", f"format {kind} 1.0", "element vertex 4", *(f"property float {each}" for each in "xyz")]
    lines += [*(f"property uchar {each}" for each in ("red", "green", "blue"))]
    lines += [f"element face {faces}", "property list uchar int vertex_indices", "end_header\n"]
    return "\n".join(lines).encode()


PLACES = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


@pytest.mark.parametrize("order", ["<", ">", ""])
@pytest.mark.parametrize("faces", [[(0, 1, 2), (0, 2, 3)], [(0, 1, 2, 3)]])
def test_ply_of_every_kind(tmp_path, order, faces):
    kind = {"<": "binary_little_endian", ">": "binary_big_endian", "": "ascii"}[order]
    data = header(kind, len(faces))
    if order:
        data += b"".join(struct.pack(order + "3f3B", *place, 255, 0, 0) for place in PLACES)
        data += b"".join(struct.pack(f"{order}B{len(face)}i", len(face), *face) for face in faces)
    else:
        data += "".join(f"{x} {y} {z} 255 0 0\n" for x, y, z in PLACES).encode()
        data += "".join(f"{len(face)} {' '.join(map(str, face))}\n" for face in faces).encode()
    (tmp_path / "a.ply").write_bytes(data)
    thing = load_object(tmp_path / "a.ply")
    assert thing.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    np.testing.assert_allclose(thing.vertices, PLACES)
    np.testing.assert_allclose(thing.mesh.colors, [[1, 0, 0, 1]] * 4)
    if order:
        (tmp_path / "b.ply").write_bytes(data[:-3])
        with pytest.raises(UserError, match="malformed PLY"):
            load_object(tmp_path / "b.ply")


def test_glb_without_animation_is_placed_by_its_nodes(tmp_path):
    writer = Writer()
    mesh = writer.square()
    writer.add("nodes", {"name": "body", "mesh": mesh})
    writer.add("nodes", {"name": "part", "mesh": mesh, "scale": [1, 1, -1], "translation": [0, 0, 5]})
    writer.add("scenes", {"nodes": [0, 1]})
    thing = load_object(writer.write(tmp_path / "a.glb"))
    assert thing.node_names == ("body", "part")
    part = thing.corners[thing.triangle_nodes == 1]
    assert (part[..., 2] == 5).all()
    normal = np.cross(part[0, 1] - part[0, 0], part[0, 2] - part[0, 0])
    assert normal[2] < 0  # mirrored, so the file's +z shows the other way


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.stl").write_text("solid")
    with pytest.raises(UserError, match=r"ends in '\.stl', expected"):
        load_object(tmp_path / "a.stl")
    with pytest.raises(UserError, match="no such file"):
        load_object(tmp_path / "b.glb")
