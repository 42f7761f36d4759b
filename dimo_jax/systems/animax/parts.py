"""What stands around the joint model: pictures made latents and back, sentences made features, and its backbone.

Each is a component that a config names (`config.animax.codec`, `.text`, `.backbone`), at full size Wan's, here small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.config_fields import check_path
from dimo_jax.core.types import Array
from dimo_jax.data.clips import Embed
from dimo_jax.networks.bert import load_sentences
from dimo_jax.networks.wan import transformer, umt5, vae
from dimo_jax.third_party.wan.transformer import WanConfig, read_config
from dimo_jax.third_party.wan.vae import VaeConfig
from dimo_jax.third_party.wan.vae import read_config as read_vae_config


@dataclass(frozen=True)
class Codec:
    """Between pictures [B,T,H,W,3] uint8 and normalized latents [B,1+f,h,w,C] float32."""

    load: Callable[[], Any]  # the arrays that the others take first
    encode: Callable[[Any, Array], Array]
    decode: Callable[[Any, Array], Array]
    channels: int  # C
    factor: int  # H / h
    time_factor: int  # T = 1 + f time_factor


@dataclass(frozen=True)
class Backbone:
    """A transformer to begin with."""

    config: WanConfig
    begin: Callable[[Array], transformer.WanParams]  # key -> arrays
    dtype: Any  # of most of its arrays


def _to_signed(pictures: Array) -> Array:
    return pictures.astype(jnp.float32) / 127.5 - 1


def _to_pictures(video: Array) -> Array:
    return jnp.round((jnp.clip(video, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def pixels() -> Codec:
    """The pictures themselves, in -1..1: nothing that would have to be trained first."""
    return Codec(
        load=dict,
        encode=lambda arrays, pictures: _to_signed(pictures),
        decode=lambda arrays, latents: _to_pictures(latents),
        channels=3,
        factor=1,
        time_factor=1,
    )


def wan_codec(*, weights: str = "") -> Codec:
    """Wan's causal autoencoder.

    Args:
      weights: a folder or file as `vae.load_vae` takes it.

    Raises:
      UserError: no such files, or damaged ones.
    """
    path = check_path(weights, "animax.codec.weights", "Wan 2.1's autoencoder, such as Wan2.1-T2V-1.3B-Diffusers/vae")
    beside = (path if path.is_dir() else path.parent) / "config.json"
    config = VaeConfig() if path.suffix == ".pth" or not beside.is_file() else read_vae_config(beside)
    return wan_codec_of(config, lambda: vae.load_vae(path)[0])


def wan_codec_of(config: VaeConfig, load: Callable[[], vae.VaeParams]) -> Codec:
    """The same of given sizes, whose arrays `load` brings."""
    return Codec(
        load=load,
        encode=lambda arrays, pictures: vae.encode(arrays, _to_signed(pictures), config=config),
        decode=lambda arrays, latents: _to_pictures(vae.decode(arrays, latents)),
        channels=config.z_dim,
        factor=config.space_factor,
        time_factor=config.time_factor,
    )


def sentence_text(*, bert: str = "") -> Embed:
    """Features [S,D] of sentences, one vector each, its numbers of size 1 on average.

    Args:
      bert: folder of a Hugging Face BERT; "" takes all-MiniLM-L6-v2, downloaded once.
    """
    return load_sentences(bert)


def wan_text(*, weights: str = "", tokenizer: str = "") -> Embed:
    """Features [S,512,D] of sentences, by umT5.

    Args:
      weights: a folder or file as `umt5.load_text_encoder` takes it.
      tokenizer: folder of its tokenizer.

    Raises:
      UserError: no such files, or damaged ones.
    """
    what = "umT5 as Wan 2.1 ships it, such as Wan2.1-T2V-1.3B-Diffusers/text_encoder"
    path = check_path(weights, "animax.text.weights", what)
    words = check_path(tokenizer, "animax.text.tokenizer", "its tokenizer, such as .../tokenizer")
    encoder = umt5.load_text_encoder(path, words)
    return lambda sentences: np.asarray(encoder.embed(list(sentences)), np.float32)


def small(
    *,
    num_layers: int = 4,
    num_heads: int = 3,
    head_dim: int = 64,
    ffn_dim: int = 768,
    freq_dim: int = 64,
    patch: int = 16,
    text_dim: int = 384,
    channels: int = 3,
) -> Backbone:
    """A small transformer that knows nothing yet, and at first says 0; there are no pretrained ones of such a size.

    Args:
      num_layers, num_heads, head_dim, ffn_dim, freq_dim: sizes.
      patch: rows and columns of latents that one token holds.
      text_dim: of the features of sentences.
      channels: of the latents.
    """
    config = WanConfig(
        num_layers=num_layers,
        num_heads=num_heads,
        head_dim=head_dim,
        ffn_dim=ffn_dim,
        freq_dim=freq_dim,
        text_dim=text_dim,
        in_channels=channels,
        out_channels=channels,
        patch=(1, patch, patch),
    )

    def begin(key: Array) -> transformer.WanParams:
        params = transformer.init_params(key, config)
        return params.replace(head=jax.tree.map(jnp.zeros_like, params.head))

    return Backbone(config, begin, jnp.float32)


def wan(*, weights: str = "") -> Backbone:
    """Wan 2.1's text-to-video transformer, in bfloat16.

    Args:
      weights: a folder or file as `transformer.load_transformer` takes it.

    Raises:
      UserError: no such files, or damaged ones.
    """
    path = check_path(
        weights, "animax.backbone.weights", "Wan 2.1's transformer, such as Wan2.1-T2V-1.3B-Diffusers/transformer"
    )
    config = read_config((path if path.is_dir() else path.parent) / "config.json")
    return Backbone(config, lambda key: transformer.load_transformer(path)[0], jnp.bfloat16)
