"""Pictures of a glTF file as 8-bit sRGB, whatever they are stored as.

Colour profiles, gamma and orientation that a picture claims are left alone, as glTF 2.0 asks (section 3.8.3): its
numbers are sRGB.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dimo_jax.io.gltf.document import Document, load_uri, read_view

MAX_IMAGE_PIXELS = 8192 * 8192
KTX2_MAGIC = b"\xabKTX 20\xbb\r\n\x1a\n"
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def image_bytes(document: Document, index: Any) -> bytes:
    """An image as it is stored: a file of the model's folder, a data URI, or a buffer view."""
    entry = document.entry("images", index)
    return load_uri(document, entry["uri"]) if "uri" in entry else read_view(document, entry.get("bufferView"))[0]


def read_image(document: Document, index: Any) -> np.ndarray:
    """Decodes an image of the file, its size checked before a pixel is decoded.

    Returns:
      uint8 RGBA [H,W,4], straight alpha, sRGB colours; 16-bit numbers are scaled by 1/257.

    Raises:
      UserError: the image is missing, of another format than PNG, JPEG, WebP, AVIF or KTX2, damaged, or larger than
        `MAX_IMAGE_PIXELS`.
    """
    where, data = f"images[{index}]", image_bytes(document, index)
    if data.startswith(KTX2_MAGIC):
        return _read_ktx2(document, where, data)
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            with Image.open(io.BytesIO(data), formats=formats) as image:
                _check_size(document, where, *image.size)
                return to_rgba(image)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:120]
        raise document.fail(f"{where} cannot be decoded, expected PNG, JPEG, WebP, AVIF or KTX2 ({reason})") from error


def to_rgba(image: Image.Image) -> np.ndarray:
    """Pixels of a picture of any mode with the range of the mode kept: uint8 RGBA [H,W,4].

    Raises:
      ValueError: a mode whose range is not known.
    """
    if image.mode in _EIGHT_BITS:
        return np.asarray(image.convert("RGBA"))
    if image.mode not in _SIXTEEN_BITS:
        raise ValueError(f"pixels of mode {image.mode}")
    grey = np.asarray(image).astype(np.int64)  # Pillow's own conversion clips at 255
    if grey.min(initial=0) < 0 or grey.max(initial=0) > 65535:
        raise ValueError(f"values {grey.min()}..{grey.max()}, expected 16 bits")
    pixels = np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 4, axis=2)
    pixels[..., 3] = np.where(grey == image.info.get("transparency", -1), 0, 255)
    return pixels


def _check_size(document: Document, where: str, width: int, height: int) -> None:
    if not 0 < width * height <= MAX_IMAGE_PIXELS:
        raise document.fail(f"{where} is {width} x {height}, expected 1 to {MAX_IMAGE_PIXELS} pixels")


def _read_ktx2(document: Document, where: str, data: bytes) -> np.ndarray:
    """The largest level of a picture that is compressed with Basis Universal (KHR_texture_basisu)."""
    try:
        import opengl_basisu
    except ImportError as error:
        raise document.fail(
            f"{where} is a KTX2 picture (KHR_texture_basisu), which needs the package opengl_basisu: "
            "pip install 'dimo_jax[gltf]', or export with PNG or WebP textures"
        ) from error
    # The header's own numbers, before a library believes them: width and height lie 20 bytes in.
    if len(data) >= 28:
        _check_size(document, where, *(int.from_bytes(data[at : at + 4], "little") for at in (20, 24)))
    try:
        texture = opengl_basisu.open(data)
        return np.array(texture.transcode("rgba8", level=0).data).reshape(texture.height, texture.width, 4)
    except (ValueError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise document.fail(f"{where} is a KTX2 picture that cannot be decoded ({reason})") from error
