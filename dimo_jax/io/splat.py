"""Gaussians as a `.splat` file: 32 bytes each, the layout of antimatter15/splat, which most web viewers open.

Per Gaussian, little-endian: position 3 x float32; standard deviations 3 x float32; red, green, blue, opacity 4 x uint8;
quaternion wxyz 4 x uint8, each 128 + 128 q. Colour is that of degree 0: the format has no view dependence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dimo_jax.core.types import Gaussians
from dimo_jax.geometry.harmonics import DEGREE0
from dimo_jax.io.ply import Written, find_drawable
from dimo_jax.runtime.files import replace_file

_ROW = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quaternion", "u1", 4)])


def base_colors(gaussians: Gaussians) -> np.ndarray:
    """Colour of degree 0 and opacity: [N,4] float32, sRGB and alpha in 0..1. Arrays without batch axes."""
    rgb = np.clip(0.5 + DEGREE0 * np.asarray(gaussians.sh, np.float32)[:, 0], 0, 1)
    logits = np.asarray(gaussians.logit_opacities, np.float32)
    opacity = 0.5 + 0.5 * np.tanh(0.5 * logits)  # the logistic function, without overflow
    return np.concatenate([rgb, opacity[:, None]], axis=1).astype(np.float32)


def unit_quats(gaussians: Gaussians) -> np.ndarray:
    """Normalized quaternions [N,4] wxyz, float32; the identity where one is zero."""
    quats = np.asarray(gaussians.quats, np.float64)
    norms = np.linalg.norm(quats, axis=1, keepdims=True)
    return np.where(norms > 0, quats / np.maximum(norms, 1e-30), [1.0, 0, 0, 0]).astype(np.float32)


def write_splat(gaussians: Gaussians, path: Path | str) -> Written:
    """Writes Gaussians as `.splat`, atomically, the most visible first, as viewers that stream such files expect.

    Dead and invalid ones are left out and counted as in `ply.write_gaussians`.

    Args:
      gaussians: without batch axes (means [N,3]; sh [N,(degree+1)^2,3]).
      path: the file to write; by custom ends in `.splat`.
    """
    alive, valid = find_drawable(gaussians)
    keep = alive & valid
    colors, scales = base_colors(gaussians), np.exp(np.asarray(gaussians.log_scales, np.float32))
    rows = np.zeros(len(keep), _ROW)
    rows["position"], rows["scale"] = np.asarray(gaussians.means), scales
    with np.errstate(invalid="ignore"):  # of those that are left out
        rows["color"] = np.rint(255 * colors)
        rows["quaternion"] = np.clip(np.rint(128 + 128 * unit_quats(gaussians)), 0, 255)
    size = np.where(keep, scales.prod(axis=1) * colors[:, 3], -1.0)
    order = np.argsort(-size, kind="stable")[: int(keep.sum())]
    with replace_file(path) as temporary:
        temporary.write_bytes(rows[order].tobytes())
    return Written(int(keep.sum()), int((~alive).sum()), int((alive & ~valid).sum()))
