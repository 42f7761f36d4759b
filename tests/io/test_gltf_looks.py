"""What of a glTF material decides how it looks: facing, emission, vertex colours; in pictures of small models."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.gltf_writer import moving_square

from dimo_jax.cameras.framing import Framing
from dimo_jax.cameras.turntable import Turntable
from dimo_jax.data.formats.rigged.passes import Timing, render_clip
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.meshes.renderer import Material, Mesh, render_mesh
from dimo_jax.meshes.textures import encode_srgb, make_texture
from dimo_jax.rigs.facing import describe_inside_out, find_mirrored

FRONT_AND_BACK = Turntable(size=16, azimuths_deg=(0.0, 180.0), test_azimuths_deg=(), elevation_deg=0.0)


def _pictures(tmp_path, writer, *, num_frames=2, **options):
    """A model's clip from +Z and -Z -> uint8 [2,T,16,16,4]; a square of half a unit is 8 pixels wide or so."""
    scene = load_scene(writer.write(tmp_path / "a.glb"), **options)
    timing = Timing(num_frames=num_frames)
    framing = Framing(np.zeros(3), 0.3)
    cameras = FRONT_AND_BACK.cameras()
    return render_clip(scene, scene.clips[0], timing=timing, cameras=cameras, framing=framing, samples=1)


def _still_square(**material):
    """A square that turns its front to +Z; its clip leaves it where it is."""
    writer = moving_square()
    writer.json["animations"].clear()
    writer.clip("Stay", 0, "translation", [0.0, 1.0], np.zeros((2, 3)))
    writer.json["meshes"][0]["primitives"][0]["material"] = writer.add("materials", material)
    return writer


def _seen(pictures):
    """Whether there is something in the middle, [2,T]."""
    return (pictures[:, :, 8, 8, 3] > 0).tolist()


def _middle(tmp_path, writer):
    """The colour in the middle as seen from the front."""
    return _pictures(tmp_path, writer)[0, 0, 8, 8]


@pytest.mark.parametrize(("double_sided", "expected"), [(None, False), (False, False), (True, True)])
def test_the_back_is_drawn_where_the_file_says_so(tmp_path, double_sided, expected):
    writer = _still_square(**({} if double_sided is None else {"doubleSided": double_sided}))
    assert _seen(_pictures(tmp_path, writer)) == [[True] * 2, [expected] * 2]
    assert _seen(_pictures(tmp_path, writer, double_sided=True)) == [[True] * 2, [True] * 2]


def test_the_default_material_has_one_side(tmp_path):
    writer = _still_square()
    del writer.json["meshes"][0]["primitives"][0]["material"]
    assert _seen(_pictures(tmp_path, writer)) == [[True] * 2, [False] * 2]


def test_an_outline_shell_leaves_its_body_in_sight(tmp_path):
    """The "inverted hull" of toon characters: a larger, black copy of the body whose winding is turned."""
    writer = _still_square(pbrMetallicRoughness={"baseColorFactor": [1, 0, 0, 1]})
    black = writer.add("materials", {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}})
    shell = writer.square(material=black)
    shell_triangles = writer.accessor(np.array([0, 2, 1, 0, 3, 2], np.uint16))
    writer.json["meshes"][shell]["primitives"][0]["indices"] = shell_triangles
    writer.add("nodes", {"name": "shell", "mesh": shell, "translation": [0, 0, 0.5]})
    writer.json["scenes"][0]["nodes"].append(1)
    pictures = _pictures(tmp_path, writer)
    assert pictures[0, 0, 8, 8, 0] > 100  # the red body, though the shell stands before it
    assert pictures[1, 0, 8, 8, 0] == 0  # from behind, where the body has no front, the shell has


@pytest.mark.parametrize("transform", [{"scale": [-1, 1, 1]}, {"scale": [1, -2, 1]}, {"matrix": None}])
def test_a_node_that_mirrors_keeps_its_front(tmp_path, transform):
    writer = _still_square()
    if "matrix" in transform:
        transform = {"matrix": np.diag([-1.0, 1, 1, 1]).ravel().tolist()}
    writer.json["animations"].clear()
    writer.add("nodes", {"name": "parent", "children": [0], **transform})
    writer.json["scenes"][0]["nodes"] = [1]
    writer.clip("Stay", 0, "translation", [0.0, 1.0], np.zeros((2, 3)))
    assert _seen(_pictures(tmp_path, writer)) == [[True] * 2, [False] * 2]


def test_two_mirrors_and_a_mirror_in_depth(tmp_path):
    writer = _still_square()
    writer.json["nodes"][0]["scale"] = [-1, -1, 1]
    assert _seen(_pictures(tmp_path, writer)) == [[True] * 2, [False] * 2]
    writer.json["nodes"][0]["scale"] = [1, 1, -1]  # turns the square about: its front looks to -Z
    assert _seen(_pictures(tmp_path, writer)) == [[False] * 2, [True] * 2]


def test_a_clip_that_mirrors_keeps_the_front_in_every_frame(tmp_path):
    """A figure that turns by a negative scale, as those of two dimensions do."""
    writer = _still_square()
    writer.json["animations"].clear()
    writer.clip("Flip", 0, "scale", [0.0, 1.0], np.array([[1, 1, 1], [-1, 1, 1]]), interpolation="STEP")
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    found = find_mirrored(scene, scene.clips[0], np.array([0.0, 1.0]))
    assert found.tolist() == [[False, False], [True, True]]
    assert _seen(_pictures(tmp_path, writer)) == [[True] * 2, [False] * 2]


@pytest.mark.parametrize(("bind", "mirrors"), [([1.0, 1, 1, 1], True), ([-1.0, 1, 1, 1], False)])
def test_a_skin_is_mirrored_by_joint_and_bind_together(tmp_path, bind, mirrors):
    writer = _still_square()
    attributes = writer.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = writer.accessor(np.zeros((4, 4), np.uint8))
    attributes["WEIGHTS_0"] = writer.accessor(np.tile(np.array([1, 0, 0, 0], np.float32), (4, 1)))
    joint = writer.add("nodes", {"name": "joint", "scale": [-1, 1, 1]})
    matrices = writer.accessor(np.diag(bind).astype(np.float32)[None])
    writer.json["nodes"][0]["skin"] = writer.add("skins", {"joints": [joint], "inverseBindMatrices": matrices})
    writer.json["scenes"][0]["nodes"].append(joint)
    scene = load_scene(writer.write(tmp_path / "a.glb"))
    found = find_mirrored(scene, scene.clips[0], np.zeros(1))
    assert (found is not None and bool(found.all())) == mirrors
    assert _seen(_pictures(tmp_path, writer)) == [[True] * 2, [False] * 2]


def test_normals_of_the_rim_still_count_triangles_that_are_not_drawn():
    """A smooth edge between a front and a back must not change its shade because the back is left out."""
    vertices = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0], [0.6, 0, -1.0]])
    scene = _mesh([[0, 1, 2], [0, 2, 3], [1, 4, 2]])
    both = render_mesh(vertices, scene, _camera())
    single = replace(scene, materials=(replace(scene.materials[0], double_sided=False),))
    np.testing.assert_array_equal(render_mesh(vertices, single, _camera())[8, 4:12], both[8, 4:12])


def _mesh(triangles, material=None, texcoords=None, **options):
    count = int(np.max(triangles)) + 1
    return Mesh(
        triangles=np.array(triangles, np.int32),
        triangle_materials=np.zeros(len(triangles), np.int32),
        materials=(material or Material(np.ones(4)),),
        texcoords=np.zeros((count, 2)) if texcoords is None else texcoords,
        colors=np.ones((count, 4)),
        smooth_groups=np.arange(count, dtype=np.int32),
        **options,
    )


def _camera():
    cameras = Turntable(size=16, azimuths_deg=(0.0,), test_azimuths_deg=(), elevation_deg=0.0).cameras()
    first = {name: getattr(cameras, name)[0] for name in ("world_to_camera", "focal", "center")}
    return replace(cameras, **first)


def test_emission_is_added_to_the_lit_colour(tmp_path):
    black = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}}
    glowing = _middle(tmp_path, _still_square(**black, emissiveFactor=[1, 0.45, 0.05]))
    np.testing.assert_array_equal(glowing, [255, 179, 63, 255])  # sRGB of the factor
    grey = {"pbrMetallicRoughness": {"baseColorFactor": [0.2, 0.2, 0.2, 1]}}
    dark = _middle(tmp_path, _still_square(**grey))
    bright = _middle(tmp_path, _still_square(**grey, emissiveFactor=[0, 0.3, 1]))
    assert dark[0] == bright[0]
    linear = ((dark[1] / 255 + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(bright[1], encode_srgb(np.array(linear + 0.3)), atol=1)
    assert bright[2] == 255  # more than white is white


def test_emissive_strength_and_unlit(tmp_path):
    black = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}, "emissiveFactor": [0.1, 0.2, 0.4]}
    strength = {"KHR_materials_emissive_strength": {"emissiveStrength": 2.0}}
    strong = _middle(tmp_path, _still_square(**black, extensions=strength))
    np.testing.assert_allclose(strong[:3], encode_srgb(np.array([0.2, 0.4, 0.8])), atol=1)
    unlit = _middle(tmp_path, _still_square(**black, extensions={"KHR_materials_unlit": {}, **strength}))
    np.testing.assert_array_equal(unlit, [0, 0, 0, 255])  # the extension has nothing but the base colour


def test_emission_of_glass_and_of_cutouts_has_their_alpha(tmp_path):
    base = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 0.25]}, "emissiveFactor": [0, 1, 0]}
    np.testing.assert_allclose(_middle(tmp_path, _still_square(**base, alphaMode="BLEND")), [0, 255, 0, 64], atol=1)
    np.testing.assert_array_equal(_middle(tmp_path, _still_square(**base, alphaMode="MASK")), [0, 0, 0, 0])


def test_emissive_textures_have_coordinates_and_a_transform_of_their_own(tmp_path):
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0], picture[1, 1] = (188, 0, 0), (0, 0, 188)  # upper left, lower right
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    black = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}, "emissiveFactor": [1, 1, 1]}
    for extensions, texcoord, expected in (
        ({}, 1, [188, 0, 0]),
        ({"KHR_texture_transform": {"offset": [0.5, 0.5]}}, 1, [0, 0, 188]),
        ({"KHR_texture_transform": {"texCoord": 0}}, 1, [0, 0, 188]),
    ):
        writer = _still_square(**black)
        image = writer.add("images", {"bufferView": writer.view(buffer.getvalue())})
        nearest = writer.add("samplers", {"magFilter": 9728, "minFilter": 9728})
        texture = writer.add("textures", {"source": image, "sampler": nearest})
        info = {"index": texture, "texCoord": texcoord, "extensions": extensions}
        writer.json["materials"][0]["emissiveTexture"] = info
        attributes = writer.json["meshes"][0]["primitives"][0]["attributes"]
        attributes["TEXCOORD_0"] = writer.accessor(np.full((4, 2), 0.75, np.float32))
        attributes["TEXCOORD_1"] = writer.accessor(np.full((4, 2), 0.25, np.float32))
        np.testing.assert_allclose(_middle(tmp_path, writer)[:3], expected, atol=1)


def test_emissive_textures_have_mipmaps_of_their_own_size():
    """One of 4 texels beside a colour texture of 64 looks as it does alone."""
    glow = np.zeros((4, 4, 4), np.uint8)
    glow[:, ::2] = 255
    glow[..., 3] = 255
    fine = make_texture(np.zeros((64, 64, 4), np.uint8), mipmaps=True)
    both = Material(np.ones(4), fine, emission=np.ones(3), emission_texture=make_texture(glow, mipmaps=True))
    alone = replace(both, base_color=np.array([0, 0, 0, 1.0]), texture=None)
    vertices = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    texcoords = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], float)
    pictures = [
        render_mesh(vertices, _mesh([[0, 1, 2], [0, 2, 3]], each, texcoords, emissive_texcoords=texcoords), _camera())
        for each in (both, alone)
    ]
    np.testing.assert_array_equal(*pictures)
    assert np.ptp(pictures[0][8, 2:14, 0]) > 100


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("marked", [True, False])
def test_vertex_colours_of_all_types_keep_their_range(tmp_path, dtype, marked):
    writer = moving_square()
    shades = np.array([[1.0, 0.5, 0.25]] * 4)
    most = np.iinfo(dtype).max if dtype != "float32" else 1
    values = (shades * most).astype(dtype)
    fields = {"normalized": True} if marked and most > 1 else {}
    attributes = writer.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["COLOR_0"] = writer.accessor(values, **fields)
    colors = load_scene(writer.write(tmp_path / "a.glb")).mesh.colors
    np.testing.assert_allclose(colors, np.c_[shades, np.ones(4)], atol=0.01)


def _cube(writer, flip):
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = np.array([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)], np.uint16)
    primitive = writer.json["meshes"][0]["primitives"][0]
    primitive["attributes"]["POSITION"] = writer.accessor(corners)
    primitive["indices"] = writer.accessor((faces[:, ::-1] if flip else faces).reshape(-1))


def test_a_model_that_is_inside_out_is_said(tmp_path):
    for flip, scale, expected in ((False, 1, 0), (True, 1, 1), (True, -1, 1), (False, -1, 0)):
        writer = _still_square()
        _cube(writer, flip)
        writer.json["nodes"][0]["scale"] = [scale, 1, 1]
        found = describe_inside_out(load_scene(writer.write(tmp_path / "a.glb")))
        assert len(found) == expected
        assert not expected or "--double_sided" in found[0]
        assert describe_inside_out(load_scene(tmp_path / "a.glb", double_sided=True)) == ()
    assert describe_inside_out(load_scene(_still_square().write(tmp_path / "b.glb"))) == ()  # flat: no inside
