"""The controllable part-motion module (ATOP Sec. 4.2.3): what ATOP adds to every transformer of the image model.

Tokens are scaled and shifted by the part's mask, Z' = gamma Z + beta, and every frame looks at the first one,
Attn(Q_i, K_1, V_1) (Eq. 4). Only these arrays are trained. The paper leaves open, and here it is so:

- it stands after the attention to text and picture, whose look it carries from the first frame to the others, and
  before the dense layers; it normalizes tokens by itself, and its result is added to them;
- f and g see the share of a token's cell that the mask covers; gamma starts as 1, beta as 0;
- frames look at all places of the first one, in their own view. Else one key would be all there is to see;
- a frame's number, by frequencies and a dense layer, is added to Z'. Without it all later frames would be alike.
"""

from __future__ import annotations

import math

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.networks.imagedream.transformer import EPS
from dimo_jax.networks.imagedream.unet import list_transformers
from dimo_jax.networks.wan.layers import Attend, Dense, Norm, attend_to, layer_norm
from dimo_jax.networks.wan.transformer import encode_frequencies
from dimo_jax.third_party.imagedream.unet import UNetConfig

MASK_HIDDEN = 64  # of the two-layer MLPs f and g
FRAME_FREQUENCIES = 32


class MotionModule(flax.struct.PyTreeNode):
    """The arrays of one transformer's module, float32."""

    norm: Norm
    scale: tuple[Dense, Dense]  # f: mask -> gamma - 1
    shift: tuple[Dense, Dense]  # g: mask -> beta
    frame: Dense  # frequencies of a frame's number -> D
    query: Dense
    key: Dense
    value: Dense
    out: Dense  # starts at zero


def init_motion(key: Array, config: UNetConfig) -> tuple[MotionModule, ...]:
    """Modules that change nothing yet, one for each transformer of the UNet in the order in which tokens pass them."""

    def init_module(key: Array, dim: int) -> MotionModule:
        keys = iter(jax.random.split(key, 6))

        def dense(inputs: int, outputs: int, *, bias: bool = True, zero: bool = False) -> Dense:
            kernel = (
                jnp.zeros((inputs, outputs))
                if zero
                else jax.random.normal(next(keys), (inputs, outputs)) / math.sqrt(inputs)
            )
            return Dense(kernel, jnp.zeros(outputs) if bias else None)

        return MotionModule(
            norm=Norm(jnp.ones(dim), jnp.zeros(dim)),
            scale=(dense(1, MASK_HIDDEN), dense(MASK_HIDDEN, dim, zero=True)),
            shift=(dense(1, MASK_HIDDEN), dense(MASK_HIDDEN, dim, zero=True)),
            frame=dense(FRAME_FREQUENCIES, dim),
            query=dense(dim, dim, bias=False),
            key=dense(dim, dim, bias=False),
            value=dense(dim, dim, bias=False),
            out=dense(dim, dim, zero=True),
        )

    dims = [dim for dim, _ in list_transformers(config)]
    return tuple(init_module(jax.random.fold_in(key, index), dim) for index, dim in enumerate(dims))


def shrink_masks(masks: Array, height: int, width: int) -> Array:
    """The share of each cell that a mask covers: [B,V,H,W] in 0..1 -> [B,V,height*width,1].

    Raises:
      ValueError: a mask that the grid does not divide.
    """
    rows, columns = masks.shape[-2] // height, masks.shape[-1] // width
    if masks.shape[-2:] != (rows * height, columns * width):
        raise ValueError(f"masks of {masks.shape[-2]} x {masks.shape[-1]}, expected multiples of {height} x {width}")
    cells = masks.astype(jnp.float32).reshape(*masks.shape[:2], height, rows, width, columns)
    return cells.mean(axis=(3, 5)).reshape(*masks.shape[:2], height * width, 1)


def pass_motion(
    module: MotionModule, x: Array, masks: Array, grid: tuple[int, int], *, head_dim: int, attend: Attend
) -> Array:
    """Tokens and what the module adds to them.

    Args:
      module: of this transformer.
      x: [B,V,F,L,D], L places of each of F frames of V views.
      masks: [B,V,H,W] of the part in the rest state.
      grid: rows and columns of the places.
      head_dim: numbers of a head.
      attend: how attention is computed.
    """
    batch, views, frames, places, dim = x.shape
    covered = shrink_masks(masks, *grid)
    gamma, beta = (outer(jax.nn.silu(inner(covered)))[:, :, None] for inner, outer in (module.scale, module.shift))
    numbers = encode_frequencies(jnp.arange(frames), FRAME_FREQUENCIES)
    z = (1 + gamma) * layer_norm(x, EPS, module.norm) + beta + module.frame(numbers)[:, None]
    z = z.astype(x.dtype)
    first = z[:, :, 0].reshape(batch * views, places, dim)
    rows = z.reshape(batch * views, frames * places, dim)
    query, key, value = (
        layer(each).reshape(*each.shape[:2], -1, head_dim)
        for layer, each in ((module.query, rows), (module.key, first), (module.value, first))
    )
    found = module.out(attend_to(query, key, value, attend=attend).reshape(rows.shape))
    return x + found.reshape(x.shape)
