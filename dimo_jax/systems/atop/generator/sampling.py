"""Drawing videos of several views (ATOP Eq. 5): DDIM of 50 steps, guidance 5 (Sec. 4.4.3)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.diffusion.ddim import sample_ddim
from dimo_jax.diffusion.flow import guide
from dimo_jax.networks.wan.layers import Attend
from dimo_jax.third_party.imagedream.unet import UNetConfig

from .model import Condition, GeneratorParams
from .outputs import Form, predict_latents
from .training import without_condition

IMAGEDREAM = Form()
GUIDANCE, NUM_STEPS = 5.0, 50


def guided_prediction(
    params: GeneratorParams,
    latents: Array,
    timestep: Array,
    condition: Condition,
    empty_text: Array,
    *,
    config: UNetConfig,
    guidance: float = GUIDANCE,
    form: Form = IMAGEDREAM,
    image_weight: float = 1.0,
    attend: Attend = "xla",
) -> Array:
    """What is predicted of noisy videos, u + guidance (c - u); both in one pass.

    u sees the sentence "" (or another that is to be avoided) and what else `training.without_condition` leaves.

    Args:
      params: the model.
      latents: [B,V,F,h,w,C].
      timestep: [] in 0..1000.
      condition: of B videos.
      empty_text: [T,text_dim] of the sentence "".
      config: sizes of the image model.
      guidance: 1 leaves it out, and half of the work.
      form: how the network is asked.
      image_weight, attend: see `model.predict_video`.

    Returns:
      [B,V,F,h,w,C] float32.
    """
    timesteps = jnp.full((len(latents),), timestep)
    options: Any = dict(config=config, form=form, image_weight=image_weight, attend=attend)
    if guidance == 1:
        return predict_latents(params, latents, timesteps, condition, **options)
    without = without_condition(condition, empty_text, form)
    both = functools.partial(jax.tree.map, lambda *each: jnp.concatenate(each))
    found = predict_latents(
        params,
        both(latents, latents),
        both(timesteps, timesteps),
        both(condition, without),
        **options,
    )
    conditioned, unconditioned = jnp.split(found, 2)
    return guide(conditioned, unconditioned, guidance)


@functools.partial(
    jax.jit, static_argnames=("config", "shape", "num_steps", "guidance", "form", "image_weight", "attend")
)
def draw(
    params: GeneratorParams,
    key: Array,
    condition: Condition,
    empty_text: Array,
    *,
    config: UNetConfig,
    shape: tuple[int, int, int],
    num_steps: int = NUM_STEPS,
    guidance: float = GUIDANCE,
    form: Form = IMAGEDREAM,
    image_weight: float = 1.0,
    attend: Attend = "xla",
) -> Array:
    """Latents of videos, drawn from noise.

    Args:
      params: the model.
      key: of the noise.
      condition: of B videos of V views.
      empty_text: [T,text_dim] of the sentence "".
      config: sizes of the image model.
      shape: frames, and rows and columns of their latents; the paper has 10, 32, 32.
      num_steps: of DDIM.
      guidance: see `guided_prediction`.
      form: how the network is asked.
      image_weight, attend: see `model.predict_video`.

    Returns:
      [B,V,*shape,C] float32.
    """
    channels = config.latent_channels // form.network_channels(1)
    noise = jax.random.normal(key, (*condition.masks.shape[:2], *shape, channels))

    def predict(x: Array, timestep: Array) -> Array:
        return guided_prediction(
            params,
            x,
            timestep,
            condition,
            empty_text,
            config=config,
            guidance=guidance,
            form=form,
            image_weight=image_weight,
            attend=attend,
        )

    # What says changes of a still draws pictures, or what is as good as these.
    return sample_ddim(predict, noise, num_steps=num_steps, prediction=form.prediction, clean=form.change)
