"""Textures of every kind of file and pixel keep their range."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.gltf_writer import moving_square

from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.document import open_document
from dimo_jax.io.gltf.images import read_image, to_rgba
from dimo_jax.io.gltf.scene import load_scene

MODELS = Path(__file__).resolve().parents[1] / "support" / "models"
RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
EIGHT = np.arange(256, dtype=np.uint8).reshape(16, 16)
RED_GREEN = np.stack([EIGHT, EIGHT[::-1], np.full_like(EIGHT, 40)], axis=-1)


def _encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _read(tmp_path, data):
    writer = moving_square()
    writer.add("images", {"bufferView": writer.view(data)})
    return read_image(open_document(writer.write(tmp_path / "a.glb")), 0)


def _grey(values):
    return np.concatenate([np.repeat(values[..., None], 3, axis=2), np.full((*values.shape, 1), 255, np.uint8)], axis=2)


def test_16_bit_grey_is_scaled(tmp_path):
    found = _read(tmp_path, _encode(Image.fromarray(RAMP), "PNG"))
    np.testing.assert_array_equal(found, _grey(np.rint(RAMP / 257).astype(np.uint8)))


def test_16_bit_grey_with_a_transparent_value(tmp_path):
    found = _read(tmp_path, _encode(Image.fromarray(RAMP), "PNG", transparency=int(RAMP[3, 3])))
    np.testing.assert_array_equal(np.argwhere(found[..., 3] == 0), [[3, 3]])


def test_16_bit_colours_are_scaled(tmp_path):
    """Pillow writes none, so that the PNG is made by hand."""
    for channels, kind in ((2, 4), (3, 2), (4, 6)):
        values = np.stack([RAMP] * (channels - 1) + [np.full_like(RAMP, 32896)], axis=-1)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        chunks = [b"IHDR" + struct.pack(">IIBBBBB", 16, 16, 16, kind, 0, 0, 0), b"IDAT" + zlib.compress(rows), b"IEND"]
        png = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
        )
        found = _read(tmp_path, png)
        np.testing.assert_allclose(found[..., 0], RAMP / 257, atol=1)
        np.testing.assert_allclose(found[..., 3 if channels != 3 else 2], 128, atol=1)


def test_wide_integers_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"values 0\.\.70000, expected 16 bits"):
        to_rgba(Image.fromarray(np.array([[0, 70000]], np.int32)))
    with pytest.raises(ValueError, match="pixels of mode F"):
        to_rgba(Image.fromarray(np.ones((2, 2), np.float32)))


def test_one_bit_and_grey_with_alpha(tmp_path):
    bits = EIGHT % 2 == 1
    np.testing.assert_array_equal(
        _read(tmp_path, _encode(Image.fromarray(bits), "PNG")), _grey(bits.astype(np.uint8) * 255)
    )
    pairs = np.stack([EIGHT, EIGHT.T], axis=-1)
    found = _read(tmp_path, _encode(Image.fromarray(pairs), "PNG"))
    np.testing.assert_array_equal(found[..., [0, 1, 2, 3]], pairs[..., [0, 0, 0, 1]])


def test_palettes_with_transparency(tmp_path):
    image = Image.fromarray(EIGHT % 4, mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    found = _read(tmp_path, _encode(image, "PNG", transparency=bytes([255, 128, 0, 255])))
    expected = np.array([[255, 0, 0, 255], [0, 255, 0, 128], [0, 0, 255, 0], [9, 9, 9, 255]], np.uint8)
    np.testing.assert_array_equal(found, expected[EIGHT % 4])


def test_gamma_and_profiles_of_a_picture_are_left_alone(tmp_path):
    """glTF 2.0, 3.8.3: colour space information of the picture is ignored."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    found = _read(tmp_path, _encode(Image.fromarray(RED_GREEN), "PNG", icc_profile=profile))
    np.testing.assert_array_equal(found[..., :3], RED_GREEN)


@pytest.mark.parametrize("kind", ["CMYK", "L", "RGB"])
def test_jpegs(tmp_path, kind):
    wide = np.full((16, 16, 3), (200, 90, 30), np.uint8)
    found = _read(tmp_path, _encode(Image.fromarray(wide).convert(kind), "JPEG", quality=100))
    expected = [200, 90, 30] if kind != "L" else [116] * 3  # 0.299 R + 0.587 G + 0.114 B
    np.testing.assert_allclose(found[..., :3].reshape(-1, 3), np.tile(expected, (256, 1)), atol=3)
    assert (found[..., 3] == 255).all()


@pytest.mark.parametrize(("kind", "extension"), [("WEBP", "EXT_texture_webp"), ("AVIF", "EXT_texture_avif")])
def test_pictures_of_extensions(tmp_path, kind, extension):
    pixels = np.full((16, 16, 4), (200, 90, 30, 255), np.uint8)
    writer = moving_square()
    image = writer.add("images", {"bufferView": writer.view(_encode(Image.fromarray(pixels), kind, quality=100))})
    _check_texture(tmp_path, writer, {"extensions": {extension: {"source": image}}}, [200, 90, 30])


@pytest.mark.parametrize("codec", ["etc1s", "uastc"])
def test_ktx2(tmp_path, codec):
    pytest.importorskip("opengl_basisu", reason="opengl_basisu, of dimo_jax[gltf], is not installed")
    data = (MODELS / f"quadrants_{codec}.ktx2").read_bytes()
    found = _read(tmp_path, data)
    expected = np.array([[[255, 0, 0, 255], [0, 255, 0, 255]], [[0, 0, 255, 255], [255, 255, 255, 128]]])
    np.testing.assert_allclose(found[4::8, 4::8].astype(int), expected, atol=6)
    writer = moving_square()
    image = writer.add("images", {"bufferView": writer.view(data), "mimeType": "image/ktx2"})
    _check_texture(tmp_path, writer, {"extensions": {"KHR_texture_basisu": {"source": image}}}, [255, 0, 0])


def _check_texture(tmp_path, writer, texture, expected):
    """The colour of the upper left of a texture that a material uses."""
    surface = {"baseColorTexture": {"index": writer.add("textures", texture)}}
    writer.json["meshes"][0]["primitives"][0]["material"] = writer.add("materials", {"pbrMetallicRoughness": surface})
    (material,) = load_scene(writer.write(tmp_path / "b.glb")).mesh.materials
    linear = ((np.array(expected) / 255 + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(material.texture.pixels[2, 2, :3], linear, atol=0.03)


def test_ktx2_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opengl_basisu", None)
    with pytest.raises(UserError, match=r"images\[0\] is a KTX2 picture .* pip install 'dimo_jax\[gltf\]'"):
        _read(tmp_path, (MODELS / "quadrants_etc1s.ktx2").read_bytes())


def test_broken_and_huge_ktx2(tmp_path):
    pytest.importorskip("opengl_basisu", reason="opengl_basisu, of dimo_jax[gltf], is not installed")
    data = (MODELS / "quadrants_uastc.ktx2").read_bytes()
    with pytest.raises(UserError, match=r"images\[0\] is a KTX2 picture that cannot be decoded"):
        _read(tmp_path, data[:100])
    huge = data[:20] + (1 << 20).to_bytes(4, "little") * 2 + data[28:]
    with pytest.raises(UserError, match=r"images\[0\] is 1048576 x 1048576, expected 1 to"):
        _read(tmp_path, huge)


def test_textures_of_unknown_extensions_are_named(tmp_path):
    writer = moving_square()
    surface = {
        "baseColorTexture": {"index": writer.add("textures", {"extensions": {"MSFT_texture_dds": {"source": 0}}})}
    }
    writer.json["meshes"][0]["primitives"][0]["material"] = writer.add("materials", {"pbrMetallicRoughness": surface})
    with pytest.raises(UserError, match=r"textures\[0\] has no picture that can be read, found MSFT_texture_dds"):
        load_scene(writer.write(tmp_path / "a.glb"))
