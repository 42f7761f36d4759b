"""A source mesh bound to key points: the fit, where the source stands, and the file that VTK plays."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.gltf_writer import moving_square
from support.made_motion import make_motion, turn_about
from support.outside import Player, read_attributes, validate
from support.textured_model import textured_model

from dimo_jax.cameras.turntable import Turntable
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.alignment import align_source
from dimo_jax.data.formats.rigged.passes import Timing, pose_clip
from dimo_jax.data.formats.rigged.plan import Options, import_gltf
from dimo_jax.geometry import rotations
from dimo_jax.io.gltf.document import open_document
from dimo_jax.io.gltf.mesh import pose_binding, write_mesh_glb
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.posing import pose_scene
from dimo_jax.skinning import binding
from dimo_jax.skinning.binding import Binding, fit_binding, minimize_on_simplex

MODELS = Path(__file__).resolve().parents[1] / "support" / "models"


def test_fit_finds_the_binding_that_made_the_truth(monkeypatch):
    rng = np.random.default_rng(1)
    rest_points, axes = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    angles = 0.5 * rng.normal(size=(40, 12))
    turns = rotations.to_matrix(turn_about(np.broadcast_to(axes, (40, 12, 3)), angles))
    tracks = rest_points + 0.3 * rng.normal(size=(40, 12, 3))
    # The key points' own frames are turned against the mesh, which the fit has to find out.
    binds = np.concatenate(
        [rotations.to_matrix(turn_about(axes[::-1], np.full(12, 0.7))), np.zeros((12, 3, 1))], axis=-1
    )
    binds[:, :, 3] = -np.einsum("kab,kb->ka", binds[:, :, :3], rest_points)
    owners = rng.integers(0, 12, 300)
    rest = rest_points[owners] + 0.4 * rng.normal(size=(300, 3))
    neighbors = np.stack([owners, (owners + 1) % 12], axis=1)
    share = rng.uniform(0.6, 1, 300)
    known = Binding(binds, neighbors, np.stack([share, 1 - share], axis=1))
    truth = np.stack([known.pose(rest, *each) for each in zip(tracks, turns)])

    def error(**options):
        fitted = fit_binding(rest, truth[:30], tracks[:30], turns[:30], **options)
        assert (fitted.weights >= 0).all()
        np.testing.assert_allclose(fitted.weights.sum(1), 1)
        posed = np.stack([fitted.pose(rest, *each) for each in zip(tracks[30:], turns[30:])])
        return np.linalg.norm(posed - truth[30:], axis=-1).mean()  # frames that the fit never saw

    least = error(ridge=0.0)
    assert least < 0.06
    assert least < 0.25 * error(ridge=1e6)  # weights that stay where they start
    assert error(num_influences=1, ridge=0.0) > 2 * least
    monkeypatch.setattr(binding, "NUM_ROUNDS", 40)
    assert error(ridge=0.0) < 1e-3


def test_simplex_program_agrees_with_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    roots, linear = rng.normal(size=(6, 8, 4)), rng.normal(size=(6, 4))
    products = np.einsum("nka,nkb->nab", roots, roots)
    found = minimize_on_simplex(products, linear)
    for E, h, w in zip(products, linear, found):
        total = {"type": "eq", "fun": lambda x: x.sum() - 1}
        best = optimize.minimize(
            lambda x, E=E, h=h: x @ E @ x / 2 - h @ x, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints=total
        )
        assert w @ E @ w / 2 - h @ w <= best.fun + 1e-3


@pytest.mark.parametrize(("loop", "root_motion"), [(False, "keep"), (True, "remove")])
def test_source_is_found_in_the_datasets_world(tmp_path, loop, root_motion):
    path = textured_model(tmp_path / "a.glb")
    timing = Timing(num_frames=5, loop=loop, root_motion=root_motion)
    data = import_gltf(path, Options(timing=timing, turntable=Turntable(size=16, samples=1), num_surface_points=8))
    scene = load_scene(path)
    aligned = align_source(scene, dict(zip(data.names, data.joints)))
    for index, clip in enumerate(scene.clips):
        vertices, joints, _ = pose_clip(scene, clip, timing=timing)
        np.testing.assert_allclose(aligned.vertices[index], vertices, atol=1e-5)
        np.testing.assert_allclose(aligned.to_source(data.joints[index]), joints, atol=1e-5)
    with pytest.raises(UserError, match="no clip for the motion 'Dance'"):
        align_source(scene, {"Dance": data.joints[0]})
    with pytest.raises(UserError, match="2 joints, expected 3"):
        align_source(scene, {"Bend": np.zeros((5, 3, 3))})
    other = data.joints[0] + np.float32(0.3) * np.random.default_rng(0).normal(size=data.joints[0].shape)
    with pytest.raises(UserError, match="of their extent away"):
        align_source(scene, {"Bend": other})


def test_normals_that_are_none_are_no_reason_to_refuse_a_source(tmp_path):
    scene = load_scene(textured_model(tmp_path / "a.glb", first_normal=[np.nan] * 3))
    motion = make_motion(num=3, num_key_points=6, num_neighbors=4)
    bound = Binding(np.tile(np.eye(3, 4), (6, 1, 1)), np.tile(np.arange(4), (8, 1)), np.full((8, 4), 0.25))
    write_mesh_glb(scene, bound, [motion], tmp_path / "b.glb")
    _, found = read_attributes(tmp_path / "b.glb")
    np.testing.assert_allclose(np.linalg.norm(found["NORMAL"], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("strip", [False, True])
def test_vtk_plays_the_bound_mesh_and_its_materials_survive(tmp_path, strip):
    scene = load_scene(textured_model(tmp_path / "a.glb", strip=strip))
    rest = pose_scene(scene, None, 0.0)
    motion = make_motion(num=3, num_key_points=6, num_neighbors=4)
    rng = np.random.default_rng(0)
    binds = np.concatenate([rotations.to_matrix(motion.turns[2]), rng.normal(size=(6, 3, 1))], axis=-1)
    weights = rng.uniform(0.1, 1, (8, 4))
    bound = Binding(
        binds, np.stack([rng.permutation(6)[:4] for _ in range(8)]), weights / weights.sum(1, keepdims=True)
    )
    write_mesh_glb(scene, bound, [motion, motion], tmp_path / "b.glb", num_influences=4)
    assert validate(tmp_path / "b.glb") == []
    document, found = read_attributes(tmp_path / "b.glb")
    np.testing.assert_allclose(found["POSITION"], rest[:4], atol=1e-6)  # the square with the skin comes first
    np.testing.assert_allclose(found["NORMAL"], np.tile([0, 0, 1], (4, 1)), atol=1e-6)
    material, image = document.materials[0], document.bufferViews[document.images[0].bufferView]
    assert (material.name, material.doubleSided) == ("cloth", True)
    assert material.pbrMetallicRoughness.baseColorFactor == [0.5, 1, 1, 1]
    assert document.samplers[document.textures[0].sampler].wrapS == 33071
    pixels = document.binary_blob()[image.byteOffset : image.byteOffset + image.byteLength]
    assert np.asarray(Image.open(io.BytesIO(pixels))).ravel().tolist() == list(range(48))
    # The mirrored square's triangles are turned over, because its node no longer tells.
    shield = load_scene(tmp_path / "b.glb")
    corners = rest[shield.mesh.triangles[-2:]]
    assert (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0).all()
    expected = pose_binding(bound, rest, motion)
    player = Player(tmp_path / "b.glb")
    assert len(player.names) == 2
    for frame in (0, 2, 4):
        blocks = player.vertices(1, frame / 10)
        for mine in (expected[frame, :4], expected[frame, 4:]):
            assert min(np.abs(block - mine).max() for block in blocks) < 2e-5
    still = pose_scene(load_scene(tmp_path / "b.glb"), None, 0.0)
    np.testing.assert_allclose(still, rest, atol=1e-5)  # without an animation the file shows the rest pose


def _copy_of(path, target):
    """A source written with a binding of two key points to its rest pose, and read again."""
    scene = load_scene(path)
    motion = make_motion(num=3, num_key_points=2, num_neighbors=1)
    binds = np.concatenate([np.tile(np.eye(3), (2, 1, 1)), np.zeros((2, 3, 1))], axis=-1)
    owners = np.arange(scene.num_vertices)[:, None] % 2
    write_mesh_glb(scene, Binding(binds, owners, np.ones(owners.shape)), [motion], target)
    return scene, load_scene(target)


@pytest.mark.parametrize(("codec", "package"), [("draco", "DracoPy"), ("meshopt", "meshoptimizer")])
def test_sources_that_are_compressed_are_written_plainly(tmp_path, codec, package):
    pytest.importorskip(package, reason=f"{package}, of dimo_jax[gltf], is not installed")
    scene, copied = _copy_of(MODELS / f"worm_{codec}.glb", tmp_path / "b.glb")
    np.testing.assert_array_equal(copied.mesh.triangles, scene.mesh.triangles)
    np.testing.assert_allclose(pose_scene(copied, None, 0.0), pose_scene(scene, None, 0.0), atol=1e-5)
    np.testing.assert_allclose(copied.mesh.colors, scene.mesh.colors, atol=1e-6)
    assert "extensionsUsed" not in open_document(tmp_path / "b.glb").json


def test_sources_with_instances_are_written_with_all_of_them(tmp_path):
    writer = moving_square()
    places = writer.accessor(np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0]], np.float32))
    turned = writer.accessor(np.array([[1, 1, 1], [-1, 1, 1], [2, 2, 2]], np.float32))
    instances = {"attributes": {"TRANSLATION": places, "SCALE": turned}}
    writer.json["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": instances}
    scene, copied = _copy_of(writer.write(tmp_path / "a.glb"), tmp_path / "b.glb")
    rest = pose_scene(scene, None, 0.0)
    assert len(rest) == 12
    np.testing.assert_allclose(pose_scene(copied, None, 0.0), rest, atol=1e-5)
    corners = rest[copied.mesh.triangles]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
    assert (facing > 0).all()  # that of the mirrored instance, too


def test_looks_of_a_source_are_written(tmp_path):
    writer = moving_square()
    image = writer.add("images", {"bufferView": writer.view((MODELS / "quadrants_etc1s.ktx2").read_bytes())})
    texture = writer.add("textures", {"extensions": {"KHR_texture_basisu": {"source": image}}})
    material = {
        "emissiveFactor": [0.5, 0, 0],
        "emissiveTexture": {"index": texture},
        "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 2}},
    }
    primitive = writer.json["meshes"][0]["primitives"][0]
    primitive["material"] = writer.add("materials", material)
    primitive["attributes"]["COLOR_0"] = writer.accessor(np.full((4, 4), 51, np.uint8))  # not marked as normalized
    pytest.importorskip("opengl_basisu", reason="opengl_basisu, of dimo_jax[gltf], is not installed")
    scene, copied = _copy_of(writer.write(tmp_path / "a.glb"), tmp_path / "b.glb")
    mine, other = (each.mesh.materials[0] for each in (copied, scene))
    np.testing.assert_array_equal(mine.emission, other.emission)
    np.testing.assert_array_equal(mine.emission_texture.pixels, other.emission_texture.pixels)
    assert mine.double_sided is False
    np.testing.assert_allclose(copied.mesh.colors, 0.2, atol=1e-6)
