"""What the network sees of noisy latents, and what its output stands for.

ImageDream sees them as they are. A small network that cannot hand noise through is asked otherwise: it sees how they
differ from the rest state, and the rest state beside that, both with some places of the latents as one of its own; and
it says what the video is more than the rest state, as AnimaX's small model does. Untrained it says the still.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.diffusion.noise import Prediction, plan_alphas
from dimo_jax.third_party.imagedream.unet import UNetConfig

from .model import Condition, GeneratorParams, predict_video


@dataclasses.dataclass(frozen=True)
class Form:
    """How a network is asked."""

    prediction: Prediction = "epsilon"  # what `predict_latents` gives
    change: bool = False  # whether it counts from the rest state, which `Condition.image` then is, see `cut`
    fold: int = 1  # rows and columns of latents that one place of the network holds

    def network_channels(self, channels: int) -> int:
        """Channels of the network for so many of the latents."""
        return channels * self.fold**2 * (2 if self.change else 1)


def cut(latents: Array, side: int) -> Array:
    """Latents [...,h,w,C] as tokens [...,M,side*side*C], each of a square of that side."""
    *lead, height, width, channels = latents.shape
    cells = latents.reshape(*lead, height // side, side, width // side, side, channels)
    cells = jnp.moveaxis(cells, -4, -3)
    return cells.reshape(*lead, height // side * (width // side), side * side * channels)


def join(tokens: Array, channels: int) -> Array:
    """Square latents [...,h,h,C] of the tokens of `cut`."""
    *lead, count, dim = tokens.shape
    side, rows = math.isqrt(dim // channels), math.isqrt(count)
    cells = jnp.moveaxis(tokens.reshape(*lead, rows, rows, side, side, channels), -4, -3)
    return cells.reshape(*lead, rows * side, rows * side, channels)


def _fold(latents: Array, side: int) -> Array:
    *lead, height, width, _ = latents.shape
    return cut(latents, side).reshape(*lead, height // side, width // side, -1)


def _unfold(folded: Array, channels: int) -> Array:
    *lead, height, width, dim = folded.shape
    return join(folded.reshape(*lead, height * width, dim), channels)


def predict_latents(
    params: GeneratorParams,
    noisy: Array,
    timesteps: Array,
    condition: Condition,
    *,
    config: UNetConfig,
    form: Form,
    **options: Any,
) -> Array:
    """What the model predicts of noisy videos, of the kind that `form.prediction` says.

    Args:
      params: the model.
      noisy: [B,V,F,h,w,C], square where `form` folds.
      timesteps: [B] in 0..1000.
      condition: of B videos of V views.
      config: sizes of the image model.
      form: how it is asked.
      options: of `model.predict_video`.

    Returns:
      [B,V,F,h,w,C] float32.
    """
    if not form.change:
        return predict_video(params, noisy, timesteps, condition, config=config, **options)
    channels, image = noisy.shape[-1], condition.image
    if image is None:
        raise ValueError("no picture, expected the rest state that changes are counted from")
    alphas = jnp.asarray(plan_alphas(), jnp.float32)[timesteps.astype(jnp.int32)].reshape(-1, *(1,) * 5)
    still = join(image, channels)[:, :, None]
    seen = jnp.concatenate([noisy - jnp.sqrt(alphas) * still, jnp.broadcast_to(still, noisy.shape)], axis=-1)
    asked = condition if config.num_image_tokens else condition.replace(image=None)
    folded = predict_video(params, _fold(seen, form.fold), timesteps, asked, config=config, **options)
    data = still + _unfold(folded[..., : channels * form.fold**2], channels)
    if form.prediction == "v":
        return (jnp.sqrt(alphas) * noisy - data) / jnp.sqrt(1 - alphas)
    return (noisy - jnp.sqrt(alphas) * data) / jnp.sqrt(1 - alphas)
