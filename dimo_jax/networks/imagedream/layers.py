"""Layers that ImageDream's UNet and its autoencoder share: convolutions over pictures, normalization of groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.networks.wan.layers import Dense, Norm


class Conv(flax.struct.PyTreeNode):
    """A convolution over rows and columns."""

    kernel: Array  # [rows,columns,in,out]
    bias: Array  # [out]

    def __call__(self, x: Array, *, stride: int = 1, pad: tuple[int, int] = (1, 1)) -> Array:
        """x [N,H,W,in] -> [N,H',W',out]; `pad` stands before and after rows and columns alike."""
        kernel = self.kernel.astype(x.dtype)
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + self.bias.astype(x.dtype)


class Residual(flax.struct.PyTreeNode):
    """Two convolutions beside a shortcut, the embedded time added between them where there is one."""

    norm1: Norm  # [in]
    conv1: Conv
    time: Dense | None  # embedded time -> [out]
    norm2: Norm  # [out]
    conv2: Conv
    shortcut: Dense | None


def group_norm(x: Array, norm: Norm, *, groups: int, eps: float) -> Array:
    """Normalization over a picture's places and the channels of each group, in float32: x [N,...,C] -> as x."""
    shape = (x.shape[0], -1, groups, x.shape[-1] // groups)
    y = x.astype(jnp.float32).reshape(shape)
    centered = y - jnp.mean(y, axis=(1, 3), keepdims=True)
    y = centered * jax.lax.rsqrt(jnp.mean(centered**2, axis=(1, 3), keepdims=True) + eps)
    return (y.reshape(x.shape) * norm.scale + norm.bias).astype(x.dtype)


def pass_residual(layer: Residual, x: Array, time: Array | None, *, groups: int, eps: float) -> Array:
    """x [N,H,W,in], time [N,D] -> [N,H,W,out]."""
    y = layer.conv1(jax.nn.silu(group_norm(x, layer.norm1, groups=groups, eps=eps)))
    if layer.time is not None and time is not None:
        y = y + layer.time(jax.nn.silu(time))[:, None, None].astype(x.dtype)
    y = layer.conv2(jax.nn.silu(group_norm(y, layer.norm2, groups=groups, eps=eps)))
    return y + (x if layer.shortcut is None else layer.shortcut(x))


def grow(conv: Conv, x: Array) -> Array:
    """Every place four times, then a convolution: x [N,H,W,C] -> [N,2H,2W,C]."""
    return conv(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))


class Builder:
    """Makes layers of named arrays as torch has them, kernels in `dtype`, norms in float32."""

    def __init__(self, arrays: Mapping[str, Any], dtype: Any) -> None:
        self.arrays, self.dtype = arrays, dtype

    def has(self, name: str) -> bool:
        """Whether there is such a layer."""
        return f"{name}.weight" in self.arrays

    def conv(self, name: str) -> Conv:
        """A convolution, its kernel [out,in,rows,columns] turned."""
        kernel = self.arrays[f"{name}.weight"]
        return Conv(kernel.transpose(2, 3, 1, 0).astype(self.dtype), self.arrays[f"{name}.bias"].astype(self.dtype))

    def dense(self, name: str, dtype: Any = None) -> Dense:
        """A dense layer, or a convolution of one place, [out,in] turned; with its bias where it has one."""
        kernel, bias = self.arrays[f"{name}.weight"], self.arrays.get(f"{name}.bias")
        kind = dtype or self.dtype
        kernel = kernel.reshape(kernel.shape[:2]).T.astype(kind)
        return Dense(kernel=kernel, bias=None if bias is None else bias.astype(kind))

    def norm(self, name: str) -> Norm:
        """What a normalization scales and shifts by."""
        return Norm(*(self.arrays[f"{name}.{part}"].astype(jnp.float32) for part in ("weight", "bias")))
