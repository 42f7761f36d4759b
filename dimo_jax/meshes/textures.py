"""Textures of meshes: sRGB images, looked up in linear light, bilinearly or at the nearest texel, with mipmaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REPEAT, CLAMP, MIRROR = "repeat", "clamp", "mirror"


@dataclass(frozen=True)
class Texture:
    """An image and how coordinates outside of 0..1 fold into it."""

    pixels: np.ndarray  # [H,W,4] float32, linear RGB and alpha in 0..1
    wrap: tuple[str, str] = (REPEAT, REPEAT)  # along u and v
    nearest: bool = False  # enlarged without interpolation, as pixel art is meant to be
    smaller: tuple[np.ndarray, ...] = ()  # mipmaps: each half as wide and high as the one before, `pixels` first

    def level(self, index: int) -> np.ndarray:
        """`pixels`, or a mipmap; the smallest for any index beyond."""
        return (self.pixels, *self.smaller)[min(index, len(self.smaller))]


def decode_srgb(values: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 -> linear light in 0..1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encode_srgb(values: np.ndarray) -> np.ndarray:
    """Linear light in 0..1, clamped there -> sRGB rounded to 0..255, as floats (IEC 61966-2-1)."""
    values = np.clip(values, 0, 1)
    return np.rint(255 * np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055))


def make_texture(
    image: np.ndarray,
    *,
    wrap: tuple[str, str] = (REPEAT, REPEAT),
    nearest: bool = False,
    mipmaps: bool = False,
) -> Texture:
    """A texture from a uint8 sRGB RGBA image [H,W,4] with straight alpha.

    Mipmaps end where a side is odd, so that each texel is the mean of exactly four.
    """
    table = decode_srgb(np.arange(256) / 255).astype(np.float32)
    pixels = np.concatenate([table[image[..., :3]], image[..., 3:].astype(np.float32) / 255], axis=-1)
    smaller: list[np.ndarray] = []
    last = pixels
    while mipmaps and last.shape[0] % 2 == last.shape[1] % 2 == 0:
        last = (last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]) / 4
        smaller.append(last)
    return Texture(pixels, wrap, nearest, tuple(smaller))


def sample_texture(texture: Texture, u: np.ndarray, v: np.ndarray, *, level: int = 0) -> np.ndarray:
    """Lookup: bilinear, or the nearest texel where the texture asks for that.

    Args:
      texture: the texture.
      u: [C] across; 0 is the left edge of the first column of texels, 1 the right edge of the last.
      v: [C] down; 0 is the upper edge of the first row.
      level: which mipmap, see `Texture.level`.

    Returns:
      [4,C] float32, linear RGB and alpha.
    """
    pixels = texture.level(level)
    height, width = pixels.shape[:2]
    if texture.nearest and level == 0:
        column = _fold(np.floor(u * width).astype(np.int64), width, texture.wrap[0])
        row = _fold(np.floor(v * height).astype(np.int64), height, texture.wrap[1])
        return np.ascontiguousarray(pixels[row, column].T)
    x, y = u * width - 0.5, v * height - 0.5
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    left, right = (_fold(x0 + step, width, texture.wrap[0]) for step in (0, 1))
    upper, lower = (_fold(y0 + step, height, texture.wrap[1]) * width for step in (0, 1))
    texels = pixels.reshape(-1, 4)

    def read(index: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.take(texels, index, axis=0).T)  # by channel, for whole-row arithmetic below

    above, below = read(upper + left), read(lower + left)
    above += (read(upper + right) - above) * fx
    below += (read(lower + right) - below) * fx
    above += (below - above) * fy
    return above


def sample_mipmaps(texture: Texture, u: np.ndarray, v: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """`sample_texture` where each of the C places has its own mipmap, `levels` [C] -> [4,C]."""
    levels = np.minimum(levels, len(texture.smaller))
    used = np.flatnonzero(np.bincount(levels))
    if len(used) == 1:
        return sample_texture(texture, u, v, level=int(used[0]))
    values = np.empty((4, len(u)), np.float32)
    for level in used:
        mine = np.flatnonzero(levels == level)
        values[:, mine] = sample_texture(texture, u[mine], v[mine], level=int(level))
    return values


def choose_levels(texels: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """The mipmap whose texels are nearest in size to the samples of the picture.

    Args:
      texels: [F,3,2] corners of triangles on the full texture, in texels.
      samples: [F,3,2] the same corners in the picture, in samples.

    Returns:
      [F] level, 0 or more: each has a quarter of the texels of the one before.
    """
    ratio = _areas(texels) / np.maximum(_areas(samples), 1e-9)
    return np.rint(0.5 * np.log2(np.clip(ratio, 1, 4.0**16))).astype(np.int64)


def _areas(points: np.ndarray) -> np.ndarray:
    """Twice the areas of triangles [F,3,2]."""
    e1, e2 = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    return np.abs(e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0])


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
