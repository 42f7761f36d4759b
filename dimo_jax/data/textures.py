"""Textures of meshes: sRGB images, looked up in linear light with bilinear filtering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REPEAT, CLAMP, MIRROR = "repeat", "clamp", "mirror"


@dataclass(frozen=True)
class Texture:
    """An image and how coordinates outside of 0..1 fold into it."""

    pixels: np.ndarray  # [H,W,4] float32, linear RGB and alpha in 0..1
    wrap: tuple[str, str] = (REPEAT, REPEAT)  # along u and v


def decode_srgb(values: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 -> linear light in 0..1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encode_srgb(values: np.ndarray) -> np.ndarray:
    """Linear light in 0..1, clamped there -> sRGB rounded to 0..255, as floats (IEC 61966-2-1)."""
    values = np.clip(values, 0, 1)
    return np.rint(255 * np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055))


def make_texture(image: np.ndarray, *, wrap: tuple[str, str] = (REPEAT, REPEAT)) -> Texture:
    """A texture from a uint8 sRGB RGBA image [H,W,4] with straight alpha."""
    table = decode_srgb(np.arange(256) / 255).astype(np.float32)
    return Texture(np.concatenate([table[image[..., :3]], image[..., 3:].astype(np.float32) / 255], axis=-1), wrap)


def sample_texture(texture: Texture, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear lookup.

    Args:
      texture: the texture.
      u: [C] across; 0 is the left edge of the first column of texels, 1 the right edge of the last.
      v: [C] down; 0 is the upper edge of the first row.

    Returns:
      [4,C] float32, linear RGB and alpha.
    """
    height, width = texture.pixels.shape[:2]
    x, y = u * width - 0.5, v * height - 0.5
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    left, right = (_fold(x0 + step, width, texture.wrap[0]) for step in (0, 1))
    upper, lower = (_fold(y0 + step, height, texture.wrap[1]) * width for step in (0, 1))
    texels = texture.pixels.reshape(-1, 4)

    def read(index: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.take(texels, index, axis=0).T)  # by channel, for whole-row arithmetic below

    above, below = read(upper + left), read(lower + left)
    above += (read(upper + right) - above) * fx
    below += (read(lower + right) - below) * fx
    above += (below - above) * fy
    return above


def _fold(index: np.ndarray, size: int, wrap: str) -> np.ndarray:
    """Texel indices of any size into 0..size-1."""
    if wrap == CLAMP:
        return np.clip(index, 0, size - 1)
    if wrap == MIRROR:
        folded = np.mod(index, 2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    if index.min(initial=0) >= 0 and index.max(initial=0) < size:  # the usual case, and a division saved
        return index
    return np.mod(index, size)
