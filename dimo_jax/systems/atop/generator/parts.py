"""What stands around the video model: pictures made latents and back, sentences and pictures made tokens, its backbone.

Each is a component that a config names (`config.atop.codec`, `.text`, `.look`, `.backbone`), at full size those of
ImageDream, here small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.config_fields import check_path
from dimo_jax.core.types import Array
from dimo_jax.diffusion.noise import Prediction
from dimo_jax.networks import clip
from dimo_jax.networks.bert import load_sentences
from dimo_jax.networks.imagedream import unet, vae
from dimo_jax.third_party.imagedream.unet import UNetConfig, expected_shapes, read_config
from dimo_jax.third_party.imagedream.vae import VaeConfig
from dimo_jax.third_party.imagedream.vae import read_config as read_vae_config

from .outputs import Form, cut
from .reference import Encode, Look, over_white

Embed = Callable[[Sequence[str]], Array]  # sentences -> [S,T,text_dim]
MakeLook = Callable[[Encode], Look]


@dataclass(frozen=True)
class Codec:
    """Between pictures with straight alpha [N,H,W,4] uint8 and latents [N,h,w,C] float32."""

    encode: Encode
    decode: Callable[[Array], np.ndarray]
    channels: int  # C
    factor: int  # H / h
    exact: bool  # whether to mirror a picture, or to change its colours for each other, does the same to latents


@dataclass(frozen=True)
class Backbone:
    """An image model to begin with."""

    config: UNetConfig
    form: Form
    begin: Callable[[Array], unet.UNetParams]  # key -> arrays
    shapes: Callable[[], unet.UNetParams]  # their shapes and types alone


def colors(*, factor: int = 2) -> Codec:
    """Premultiplied colours and alpha in -1..1, means of squares: nothing that would have to be trained first.

    Args:
      factor: rows and columns of pixels that one place holds.
    """

    def encode(frames: np.ndarray) -> np.ndarray:
        cells = frames.astype(np.float32) / 255
        cells[..., :3] *= cells[..., 3:]
        num, height, width, _ = frames.shape
        means = cells.reshape(num, height // factor, factor, width // factor, factor, 4).mean(axis=(2, 4))
        return 2 * means - 1

    def decode(latents: Array) -> np.ndarray:
        shares = np.clip((np.asarray(latents, np.float32) + 1) / 2, 0, 1)
        alpha = shares[..., 3:]
        straight = np.clip(shares[..., :3] / np.maximum(alpha, 1 / 255), 0, 1)
        small = np.rint(255 * np.concatenate([straight, alpha], axis=-1)).astype(np.uint8)
        return small.repeat(factor, axis=-3).repeat(factor, axis=-2)

    return Codec(encode, decode, channels=4, factor=factor, exact=True)  # type: ignore[arg-type]  # NumPy for jax


def autoencoder(*, weights: str = "") -> Codec:
    """Stable Diffusion's, of pictures on white.

    Args:
      weights: a folder or file as `vae.load_vae` takes it.

    Raises:
      UserError: no such files, or damaged ones.
    """
    path = check_path(
        weights, "atop.codec.weights", "Stable Diffusion's autoencoder, such as imagedream-ipmv-diffusers/vae"
    )
    beside = (path if path.is_dir() else path.parent) / "config.json"
    config = VaeConfig() if path.suffix == ".pt" or not beside.is_file() else read_vae_config(beside)
    kept: list[vae.VaeParams] = []

    def arrays() -> vae.VaeParams:
        if not kept:
            kept.append(vae.load_vae(path)[0])
        return kept[0]

    def encode(frames: np.ndarray) -> Array:
        return vae.encode(arrays(), over_white(frames).astype(np.float32) / 127.5 - 1, config=config)

    def decode(latents: Array) -> np.ndarray:
        pictures = np.clip((np.asarray(vae.decode(arrays(), latents, config=config)) + 1) * 127.5, 0, 255)
        return np.concatenate([np.rint(pictures), np.full_like(pictures[..., :1], 255)], axis=-1).astype(np.uint8)

    return Codec(encode, decode, channels=config.latent_channels, factor=config.factor, exact=False)


def sentence_text(*, bert: str = "") -> Embed:
    """Features [S,1,D] of sentences, one vector each, its numbers of size 1 on average.

    Args:
      bert: folder of a Hugging Face BERT; "" takes all-MiniLM-L6-v2, downloaded once.
    """
    embed = load_sentences(bert)
    return lambda sentences: jnp.asarray(embed(sentences))[:, None]


def clip_text(*, weights: str = "", tokenizer: str = "") -> Embed:
    """Features [S,77,D] of sentences, by OpenCLIP.

    Args:
      weights: a folder or file as `clip.load_clip_text` takes it.
      tokenizer: folder of its tokenizer.

    Raises:
      UserError: no such files, or damaged ones.
    """
    path = check_path(
        weights, "atop.text.weights", "OpenCLIP's text encoder, such as imagedream-ipmv-diffusers/text_encoder"
    )
    words = check_path(tokenizer, "atop.text.tokenizer", "its tokenizer, such as .../tokenizer")
    tower = clip.load_clip_text(path, words)
    return lambda sentences: tower.embed(list(sentences))


def patches(*, side: int = 4) -> MakeLook:
    """Squares of the rest state's latents as tokens.

    Args:
      side: rows and columns of latents in each.
    """
    return lambda encode: lambda rest: cut(jnp.asarray(encode(rest)), side)


def clip_look(*, weights: str = "") -> MakeLook:
    """Tokens of OpenCLIP's image encoder, of pictures on white.

    Args:
      weights: a folder or file as `clip.load_clip_images` takes it.

    Raises:
      UserError: no such files, or damaged ones.
    """
    path = check_path(
        weights, "atop.look.weights", "OpenCLIP's image encoder, such as imagedream-ipmv-diffusers/image_encoder"
    )
    kept: list[clip.ClipImages] = []

    def look(rest: np.ndarray) -> Array:
        if not kept:
            kept.append(clip.load_clip_images(path))
        return kept[0].embed(over_white(rest))

    return lambda encode: look


def small(
    *,
    channels: int = 32,
    multiples: tuple[int, ...] = (1, 2),
    looks: tuple[bool, ...] = (False, True),
    num_residuals: int = 1,
    head_dim: int = 32,
    text_dim: int = 384,
    image_dim: int = 64,
    num_image_tokens: int = 8,
    groups: int = 8,
    latent_channels: int = 4,
    prediction: Prediction = "v",
    change: bool = True,
    fold: int = 2,
) -> Backbone:
    """A small UNet that knows nothing yet; there are no pretrained ones of such a size.

    Args:
      channels, multiples, looks, num_residuals, head_dim, text_dim, image_dim, num_image_tokens, groups: sizes, see
        `UNetConfig`.
      latent_channels: of the latents.
      prediction, change, fold: how it is asked, see `outputs.Form`.
    """
    form = Form(prediction, change, fold)
    config = UNetConfig(
        channels=channels,
        multiples=tuple(multiples),
        looks=tuple(looks),
        num_residuals=num_residuals,
        head_dim=head_dim,
        text_dim=text_dim,
        latent_channels=form.network_channels(latent_channels),
        num_image_tokens=num_image_tokens,
        image_dim=image_dim,
        resampler_layers=1,
        resampler_heads=1,
        groups=groups,
    )
    return Backbone(config, form, lambda key: unet.init_params(key, config), lambda: shape_unet(config, jnp.float32))


def imagedream(*, weights: str = "", prediction: Prediction = "epsilon") -> Backbone:
    """ImageDream's UNet, in bfloat16.

    Args:
      weights: a folder or file as `unet.load_unet` takes it.
      prediction: what it predicts.

    Raises:
      UserError: no such files, or damaged ones.
    """
    what = "ImageDream's UNet, such as imagedream-ipmv-diffusers/unet or sd-v2.1-base-4view-ipmv-local.pt"
    path = check_path(weights, "atop.backbone.weights", what)
    beside = (path if path.is_dir() else path.parent) / "config.json"
    config = UNetConfig() if path.suffix == ".pt" or not beside.is_file() else read_config(beside)
    begin = lambda key: unet.load_unet(path)[0]  # noqa: E731
    return Backbone(config, Form(prediction), begin, lambda: shape_unet(config, jnp.bfloat16))


def shape_unet(config: UNetConfig, dtype: Any) -> unet.UNetParams:
    """Shapes and types of a UNet's arrays."""
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in expected_shapes(config).items()}
    found: unet.UNetParams = jax.eval_shape(lambda each: unet.build_params(each, config, dtype), arrays)
    return found
