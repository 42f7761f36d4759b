"""Gaussians as .splat and as KHR_gaussian_splatting, read by programs that we did not write."""

import json
import struct

import numpy as np
import pytest
from support.made_motion import make_motion
from support.outside import read_attributes, validate

from dimo_jax.io.gltf.gaussians import EXTENSION, write_gaussian_glb
from dimo_jax.io.ply import Written, write_gaussians
from dimo_jax.io.splat import write_splat
from dimo_jax.meshes.textures import decode_srgb

KEEP = slice(0, -2)  # the last two cannot be drawn


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(quats):
    return quats / np.linalg.norm(quats, axis=-1, keepdims=True)


def test_gaussforge_reads_a_splat_file(tmp_path):
    gaussforge = pytest.importorskip("gaussforge", reason="gaussforge, an independent reader, is not installed")
    gsply = pytest.importorskip("gsply", reason="gsply, an independent PLY reader, is not installed")
    gaussians = make_motion().at(2)
    assert write_splat(gaussians, tmp_path / "a.splat") == Written(28, 1, 1)
    # Its reader's own arrays are refused where there is no view dependence, so it converts, and gsply reads that.
    converted = gaussforge.GaussForge().convert((tmp_path / "a.splat").read_bytes(), "splat", "ply")
    (tmp_path / "b.ply").write_bytes(converted["data"])
    found = gsply.plyread(str(tmp_path / "b.ply"))
    order = [int(np.argmin(np.linalg.norm(gaussians.means[KEEP] - place, axis=1))) for place in found.means]
    assert sorted(order) == list(range(28))
    np.testing.assert_array_equal(found.means, gaussians.means[order])
    np.testing.assert_allclose(found.scales, gaussians.log_scales[order], atol=1e-5)
    rotations, expected = unit(found.quats), unit(gaussians.quats[order])
    assert np.abs((rotations * expected).sum(-1)).min() > 1 - 1e-3  # eight bits
    np.testing.assert_allclose(sigmoid(found.opacities), sigmoid(gaussians.logit_opacities[order]), atol=1 / 255)
    color, truth = (np.clip(0.5 + 0.2820948 * sh, 0, 1) for sh in (found.sh0, gaussians.sh[order, 0]))
    np.testing.assert_allclose(color, truth, atol=1 / 255)
    size = np.exp(gaussians.log_scales[order].sum(-1)) * sigmoid(gaussians.logit_opacities[order])
    assert (np.diff(size) <= 1e-9).all()  # the most visible first


def test_ply_of_a_frame_is_read_by_gsply(tmp_path):
    gsply = pytest.importorskip("gsply", reason="gsply, an independent PLY reader, is not installed")
    motion = make_motion()
    for frame in (0, 4):
        write_gaussians(motion.at(frame), tmp_path / "a.ply")
        data = gsply.plyread(str(tmp_path / "a.ply"))
        np.testing.assert_array_equal(data.means, motion.means[frame, KEEP])
        np.testing.assert_array_equal(data.quats, motion.quats[frame, KEEP])


@pytest.mark.parametrize("degree", [0, 2])
def test_gaussian_glb_holds_what_the_extension_asks_for(tmp_path, degree):
    gaussians = make_motion(degree=degree).at(3)
    assert write_gaussian_glb(gaussians, tmp_path / "a.glb") == Written(28, 1, 1)
    document, found = read_attributes(tmp_path / "a.glb")
    primitive = document.meshes[0].primitives[0]
    assert primitive.mode == 0
    assert document.extensionsUsed == [EXTENSION, "KHR_materials_unlit"]
    assert primitive.extensions == {EXTENSION: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}}
    np.testing.assert_array_equal(found["POSITION"], gaussians.means[KEEP])
    np.testing.assert_allclose(found[f"{EXTENSION}:SCALE"], np.exp(gaussians.log_scales[KEEP]), rtol=1e-6)
    opacity = sigmoid(gaussians.logit_opacities[KEEP])
    np.testing.assert_allclose(found[f"{EXTENSION}:OPACITY"][:, 0], opacity, atol=1e-6)
    np.testing.assert_allclose(found[f"{EXTENSION}:ROTATION"], unit(gaussians.quats[KEEP])[:, [1, 2, 3, 0]], atol=1e-6)
    names = [f"{EXTENSION}:SH_DEGREE_{l}_COEF_{n}" for l in range(degree + 1) for n in range(2 * l + 1)]
    assert sorted(name for name in found if ":SH_" in name) == sorted(names)
    np.testing.assert_array_equal(np.stack([found[n] for n in names], axis=1), gaussians.sh[KEEP])
    linear = decode_srgb(np.clip(0.5 + 0.2820948 * gaussians.sh[KEEP, 0], 0, 1))
    np.testing.assert_allclose(found["COLOR_0"] / 65535, np.column_stack([linear, opacity]), atol=1e-5)


def test_validator_finds_nothing_but_names_that_it_does_not_know_yet(tmp_path):
    """The validator refuses attribute names of extensions (KhronosGroup/glTF-Validator issue 252), and nothing else."""
    write_gaussian_glb(make_motion(degree=1).at(0), tmp_path / "a.glb")
    messages = validate(tmp_path / "a.glb")
    assert {code for code, _ in messages} <= {"MESH_PRIMITIVE_INVALID_ATTRIBUTE"}
    assert all(f"/attributes/{EXTENSION}:" in pointer for _, pointer in messages)
    data = (tmp_path / "a.glb").read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    text = json.dumps(json.loads(data[20 : 20 + length])).replace(f"{EXTENSION}:", "_").encode()
    text += b" " * (-len(text) % 4)
    rest = struct.pack("<I4s", len(text), b"JSON") + text + data[20 + length :]
    (tmp_path / "b.glb").write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(rest)) + rest)
    assert validate(tmp_path / "b.glb") == []


def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path):
    gaussians = make_motion().at(0)
    dead = gaussians.replace(logit_opacities=np.full(30, -np.inf, np.float32))
    with pytest.raises(ValueError, match="none of 30 Gaussians"):
        write_gaussian_glb(dead, tmp_path / "a.glb")
    assert write_splat(dead, tmp_path / "a.splat") == Written(0, 30, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.splat"]
