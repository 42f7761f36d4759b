"""ImageDream's UNet: noisy latents of several views, a time, a text, pictures and cameras in, what was added out.

Stable Diffusion 2.1's, whose attention to itself sees all views of an object (MVDream), with the camera's matrix added
to the embedded time and, beside every attention to the text, one to the tokens of a picture (IP-Adapter). Checked
against diffusers' UNet2DConditionModel and its IP-Adapter (tests/networks/test_imagedream_parity.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.networks.wan.layers import Attend, Dense, Norm, layer_norm
from dimo_jax.networks.wan.transformer import encode_frequencies
from dimo_jax.third_party.imagedream.unet import UNetConfig, expected_shapes, plan_blocks, read_config, read_unet

from .layers import Builder, Conv, Residual, group_norm, grow, pass_residual
from .resampler import Resampler, build_resampler, resample
from .transformer import EPS, OUTER_EPS, Attention, Transformer, look

# Tokens [N,L,D] of a transformer after its attention to text and picture, its place in the row of all transformers from
# the first on, and rows and columns of the tokens -> tokens: where a model of videos puts its own layers.
Between = Callable[[Array, int, tuple[int, int]], Array]


class Block(flax.struct.PyTreeNode):
    """A step of the way down or up; `resample` halves the size on its own, or doubles it after the rest."""

    residual: Residual | None
    look: Transformer | None
    resample: Conv | None


class UNetParams(flax.struct.PyTreeNode):
    """The arrays of the UNet."""

    time: tuple[Dense, Dense]
    camera: tuple[Dense, Dense] | None
    image: Resampler | None
    first: Conv
    falling: tuple[Block, ...]
    middle: tuple[Residual, Transformer, Residual]
    rising: tuple[Block, ...]
    norm: Norm
    last: Conv


def list_transformers(config: UNetConfig) -> list[tuple[int, int]]:
    """Channels of every transformer in the order in which tokens pass them, and the level at which it stands."""
    falling, rising = plan_blocks(config)
    found, level = [], 0
    for part in falling:
        level += part.resample
        found += [(part.outputs, level)] * part.look
    found.append((falling[-1].outputs, level))
    for part in rising:
        found += [(part.outputs, level)] * part.look
        level -= part.resample
    return found


def build_params(arrays: Mapping[str, Any], config: UNetConfig, dtype: Any = jnp.float32) -> UNetParams:
    """Arrays as ImageDream's authors name them -> the network.

    Args:
      arrays: with the shapes of `expected_shapes(config)`.
      config: sizes.
      dtype: float32, bfloat16 or float16; norms and the embeddings of time and camera stay in float32.
    """
    make = Builder(arrays, dtype)

    def residual(name: str) -> Residual:
        shortcut = f"{name}.skip_connection"
        return Residual(
            norm1=make.norm(f"{name}.in_layers.0"),
            conv1=make.conv(f"{name}.in_layers.2"),
            time=make.dense(f"{name}.emb_layers.1"),
            norm2=make.norm(f"{name}.out_layers.0"),
            conv2=make.conv(f"{name}.out_layers.3"),
            shortcut=make.dense(shortcut) if make.has(shortcut) else None,
        )

    def attention(name: str) -> Attention:
        image = [make.dense(f"{name}.to_{part}_ip") if make.has(f"{name}.to_{part}_ip") else None for part in "kv"]
        query, key, value = (make.dense(f"{name}.to_{part}") for part in "qkv")
        return Attention(query, key, value, make.dense(f"{name}.to_out.0"), *image)

    def transformer(name: str) -> Transformer:
        block = f"{name}.transformer_blocks.0"
        return Transformer(
            norm=make.norm(f"{name}.norm"),
            first=make.dense(f"{name}.proj_in"),
            norm1=make.norm(f"{block}.norm1"),
            attention=attention(f"{block}.attn1"),
            norm2=make.norm(f"{block}.norm2"),
            cross=attention(f"{block}.attn2"),
            norm3=make.norm(f"{block}.norm3"),
            inner=make.dense(f"{block}.ff.net.0.proj"),
            outer=make.dense(f"{block}.ff.net.2"),
            last=make.dense(f"{name}.proj_out"),
        )

    def embedding(name: str) -> tuple[Dense, Dense]:
        return make.dense(f"{name}.0", jnp.float32), make.dense(f"{name}.2", jnp.float32)

    falling, rising = plan_blocks(config)
    down = [
        Block(None, None, make.conv(f"input_blocks.{index}.0.op"))
        if part.resample
        else Block(
            residual(f"input_blocks.{index}.0"), transformer(f"input_blocks.{index}.1") if part.look else None, None
        )
        for index, part in enumerate(falling, start=1)
    ]
    up = [
        Block(
            residual(f"output_blocks.{index}.0"),
            transformer(f"output_blocks.{index}.1") if part.look else None,
            make.conv(f"output_blocks.{index}.{1 + part.look}.conv") if part.resample else None,
        )
        for index, part in enumerate(rising)
    ]
    params = UNetParams(
        time=embedding("time_embed"),
        camera=embedding("camera_embed") if config.camera_dim else None,
        image=build_resampler(make, config) if config.num_image_tokens else None,
        first=make.conv("input_blocks.0.0"),
        falling=tuple(down),
        middle=(residual("middle_block.0"), transformer("middle_block.1"), residual("middle_block.2")),
        rising=tuple(up),
        norm=make.norm("out.0"),
        last=make.conv("out.2"),
    )
    return jax.tree.map(jnp.asarray, params)


def init_params(key: Array, config: UNetConfig, dtype: Any = jnp.float32) -> UNetParams:
    """A network to train from nothing: kernels normal over the root of their inputs, norms 1, biases 0.

    What ends a residual block, a transformer or the network is 0, so that all begins as its shortcuts.
    """
    rng = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    arrays = {}
    for name, shape in expected_shapes(config).items():
        ends = name.endswith((".out_layers.3.weight", ".proj_out.weight", "out.2.weight")) and "image" not in name
        if name.endswith("bias") or ends:
            arrays[name] = np.zeros(shape, np.float32)
        elif len(shape) == 1:
            arrays[name] = np.ones(shape, np.float32)
        else:
            arrays[name] = (rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))).astype(np.float32)
    return build_params(arrays, config, dtype)


def load_unet(weights: Path, config: Path | None = None, *, dtype: Any = jnp.bfloat16) -> tuple[UNetParams, UNetConfig]:
    """A UNet from files, in the layout of ImageDream's authors or in a folder of diffusers.

    Args:
      weights: a `.pt` or safetensors file, or a folder with one or with shards and their index.
      config: config.json; where None the one beside the weights, and ImageDream's sizes where there is none.
      dtype: see `build_params`.

    Raises:
      UserError: files that are missing, damaged, of another model or of another type of number.
    """
    beside = (weights if weights.is_dir() else weights.parent) / "config.json"
    alone = config is None and (weights.suffix == ".pt" or not beside.is_file())
    sizes = UNetConfig() if alone else read_config(config or beside)
    return build_params(read_unet(weights, sizes), sizes, dtype), sizes


class Seen(NamedTuple):
    """What every block of one pass gets."""

    time: Array  # [N*V,D]
    text: Array  # [N*V,T,C]
    image: Array | None  # [N*V,K,C]
    num_views: int
    image_weight: float
    config: UNetConfig
    attend: Attend
    between: Between | None


def _transform(layer: Transformer, x: Array, index: int, seen: Seen) -> Array:
    """x [N*V,H,W,C] -> as x."""
    views, config = seen.num_views, seen.config
    y = layer.first(group_norm(x, layer.norm, groups=config.groups, eps=OUTER_EPS)).reshape(len(x), -1, x.shape[-1])
    options: dict[str, Any] = dict(image_weight=seen.image_weight, dim=config.head_dim, attend=seen.attend)
    # Places of all views of an object in one row, V x HW -> (V HW): MVDream's attention in 3D, ATOP Eq. 2.
    y = y.reshape(len(x) // views, -1, y.shape[-1])
    z = layer_norm(y, EPS, layer.norm1).astype(x.dtype)
    y = (y + look(layer.attention, z, z, None, **options)).reshape(len(x), -1, y.shape[-1])
    z = layer_norm(y, EPS, layer.norm2).astype(x.dtype)
    y = y + look(layer.cross, z, seen.text, seen.image, **options)
    if seen.between is not None:
        y = seen.between(y, index, (x.shape[1], x.shape[2]))
    z = layer_norm(y, EPS, layer.norm3).astype(x.dtype)
    value, gate = jnp.split(layer.inner(z), 2, axis=-1)
    y = y + layer.outer(value * jax.nn.gelu(gate, approximate=False))
    return x + layer.last(y).reshape(x.shape)


def _pass_block(block: Block, x: Array, index: int, seen: Seen) -> Array:
    if block.residual is not None:
        x = pass_residual(block.residual, x, seen.time, groups=seen.config.groups, eps=EPS)
    return x if block.look is None else _transform(block.look, x, index, seen)


def pass_blocks(params: UNetParams, x: Array, seen: Seen, *, remat: bool) -> Array:
    """Down, through the middle and up: latents [N*V,H,W,C] -> as they are."""

    def run(block: Block, x: Array, index: int) -> Array:
        def step(block: Block, x: Array) -> Array:
            return _pass_block(block, x, index, seen)

        return (jax.checkpoint(step) if remat else step)(block, x)

    kept, count = [x := params.first(x)], 0
    for block in params.falling:
        x = run(block, x, count) if block.resample is None else block.resample(x, stride=2)
        count += block.look is not None
        kept.append(x)
    before, middle, after = params.middle
    x = run(Block(before, middle, None), x, count)
    x = run(Block(after, None, None), x, count + 1)
    count += 1
    for block in params.rising:
        x = run(block, jnp.concatenate([x, kept.pop()], axis=-1), count)
        x = x if block.resample is None else grow(block.resample, x)
        count += block.look is not None
    return params.last(jax.nn.silu(group_norm(x, params.norm, groups=seen.config.groups, eps=EPS)))


def pass_views(
    params: UNetParams,
    latents: Array,
    timesteps: Array,
    text: Array,
    image: Array | None = None,
    cameras: Array | None = None,
    *,
    config: UNetConfig,
    image_weight: float = 1.0,
    attend: Attend = "xla",
    remat: bool = False,
    between: Between | None = None,
) -> Array:
    """`predict_noise` for a model that puts layers of its own in between, see `Between`.

    `image` [N,V,K,text_dim] is what `embed_image` makes of a picture's tokens.
    """
    num, views, height, width = latents.shape[:4]
    factor = 2 ** (len(config.multiples) - 1)
    if height % factor or width % factor:
        raise ValueError(f"latents of {height} x {width}, expected multiples of {factor}")
    if cameras is not None and params.camera is None:
        raise ValueError("cameras for a UNet that has no arrays for them")
    kind = params.first.kernel.dtype
    times = jnp.broadcast_to(timesteps if timesteps.ndim == 2 else timesteps[:, None], (num, views)).reshape(-1)
    time = _embed(params.time, encode_frequencies(times, config.channels))
    if cameras is not None and params.camera is not None:
        time = time + _embed(params.camera, cameras.reshape(num * views, -1).astype(jnp.float32))
    seen = Seen(
        time=time.astype(kind),
        text=jnp.repeat(text.astype(kind), views, axis=0),
        image=None if image is None else image.reshape(num * views, *image.shape[2:]).astype(kind),
        num_views=views,
        image_weight=image_weight,
        config=config,
        attend=attend,
        between=between,
    )
    x = latents.reshape(num * views, *latents.shape[2:]).astype(kind)
    return pass_blocks(params, x, seen, remat=remat).reshape(latents.shape).astype(jnp.float32)


def _embed(layers: tuple[Dense, Dense], x: Array) -> Array:
    inner, outer = layers
    return outer(jax.nn.silu(inner(x)))


def embed_image(params: UNetParams, image: Array) -> Array:
    """Tokens [...,M,image_dim] of pictures -> [...,K,text_dim], which attention looks at.

    Raises:
      ValueError: a UNet without arrays for pictures.
    """
    if params.image is None:
        raise ValueError("pictures for a UNet that has no arrays for them")
    flat = image.reshape(-1, *image.shape[-2:]).astype(params.first.kernel.dtype)
    found = resample(params.image, flat)
    return found.reshape(*image.shape[:-2], *found.shape[1:])


@functools.partial(jax.jit, static_argnames=("config", "image_weight", "attend", "remat"))
def predict_noise(
    params: UNetParams,
    latents: Array,
    timesteps: Array,
    text: Array,
    image: Array | None = None,
    cameras: Array | None = None,
    *,
    config: UNetConfig,
    image_weight: float = 1.0,
    attend: Attend = "xla",
    remat: bool = False,
) -> Array:
    """The noise in latents of V views of N objects.

    ImageDream's "pixel" form has one view more than it draws, whose latents are those of the given picture, without
    noise, and whose camera is zeros; what is predicted for it means nothing.

    Args:
      params: the network.
      latents: [N,V,H,W,C], sides that the levels halve evenly.
      timesteps: [N] or [N,V] in 0..1000.
      text: [N,T,text_dim] of the text encoder.
      image: [N,V,M,image_dim] tokens of the picture that each view is to follow, or None for no picture; as
        ImageDream drops a picture, tokens of zeros stand for none.
      cameras: [N,V,camera_dim] camera-to-world matrices, see `cameras.camera_rows`, or None.
      config: sizes.
      image_weight: lambda, of the attention to the picture.
      attend: how attention is computed, see `wan.layers.Attend`.
      remat: whether gradients compute blocks anew instead of keeping what is inside.

    Returns:
      [N,V,H,W,C] float32.

    Raises:
      ValueError: a size that the levels do not divide; pictures or cameras for a network without them.
    """
    return pass_views(
        params,
        latents,
        timesteps,
        text,
        None if image is None else embed_image(params, image),
        cameras,
        config=config,
        image_weight=image_weight,
        attend=attend,
        remat=remat,
    )
