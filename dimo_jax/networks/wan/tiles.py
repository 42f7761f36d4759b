"""Large pictures through the video autoencoder tile by tile: tiles overlap, and fade into each other where they do.

The device holds one tile at a time, the machine's memory the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dimo_jax.third_party.wan.vae import VaeConfig

from .vae import VaeParams, decode, encode


def encode_tiled(
    params: VaeParams, video: np.ndarray, *, config: VaeConfig, tile: int = 256, stride: int = 192
) -> np.ndarray:
    """`vae.encode` of tiles of `tile` x `tile` pixels whose corners lie `stride` apart; both are multiples of 8.

    Not quite what the whole would give: attention and borders see their own tile alone. As in diffusers.
    """
    space = config.space_factor

    def pass_tile(piece: np.ndarray) -> np.ndarray:
        return np.asarray(encode(params, piece, config=config))

    return _pass_tiles(pass_tile, video, tile=tile, stride=stride, to=(tile // space, stride // space))


def decode_tiled(
    params: VaeParams, latents: np.ndarray, *, config: VaeConfig, tile: int = 256, stride: int = 192
) -> np.ndarray:
    """`vae.decode` of tiles that are `tile` x `tile` pixels in the video, see `encode_tiled`."""
    space = config.space_factor

    def pass_tile(piece: np.ndarray) -> np.ndarray:
        return np.asarray(decode(params, piece, clip=False))

    video = _pass_tiles(pass_tile, latents, tile=tile // space, stride=stride // space, to=(tile, stride))
    return np.clip(video, -1, 1)


def _pass_tiles(
    pass_tile: Callable[[np.ndarray], np.ndarray], x: np.ndarray, *, tile: int, stride: int, to: tuple[int, int]
) -> np.ndarray:
    """x [B,T,H,W,C] in tiles; `to` is a tile's side and stride in what comes out."""
    height, width = x.shape[2:4]
    overlap, rows = to[0] - to[1], list[np.ndarray]()
    above: list[np.ndarray] = []
    for top in range(0, height, stride):
        row: list[np.ndarray] = []
        for index, left in enumerate(range(0, width, stride)):
            piece = pass_tile(x[:, :, top : top + tile, left : left + tile])
            if above:
                piece = _fade(above[index], piece, overlap, axis=2)
            if row:
                piece = _fade(row[-1], piece, overlap, axis=3)
            row.append(piece)
        rows.append(np.concatenate([piece[:, :, : to[1], : to[1]] for piece in row], axis=3))
        above = row
    return np.concatenate(rows, axis=2)


def _fade(before: np.ndarray, after: np.ndarray, overlap: int, *, axis: int) -> np.ndarray:
    """`after`, of which the first `overlap` rows or columns fade from the last ones of `before`."""
    count = min(before.shape[axis], after.shape[axis], overlap)
    share = (np.arange(count) / max(count, 1)).reshape([-1 if each == axis else 1 for each in range(after.ndim)])
    start, rest = np.split(after, [count], axis=axis)
    end = np.split(before, [before.shape[axis] - count], axis=axis)[1]
    return np.concatenate([end * (1 - share) + start * share, rest], axis=axis)
