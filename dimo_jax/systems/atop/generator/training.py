"""Motion personalization (ATOP Sec. 4.2.5, Eq. 6): the motion module learns a part's motion, all else is frozen."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.diffusion.noise import NUM_TRAIN_STEPS, Prediction, add_noise, plan_alphas, target
from dimo_jax.networks.wan.layers import Attend
from dimo_jax.third_party.imagedream.unet import UNetConfig

from .model import Condition, GeneratorParams, predict_video

LEARNING_RATE = 5e-4  # Adam, 20,000 steps (Sec. 4.4.3)


class MotionBatch(flax.struct.PyTreeNode):
    """Latents of reference videos, and what goes with them."""

    video: Array  # [B,V,F,h,w,C]
    condition: Condition


def trained(params: GeneratorParams) -> GeneratorParams:
    """A tree of bools, True for the arrays of the motion module."""
    return GeneratorParams(
        jax.tree.map(lambda _: False, params.backbone),
        jax.tree.map(lambda _: True, params.motion),
    )


def motion_loss(
    params: GeneratorParams,
    batch: MotionBatch,
    key: Array,
    *,
    config: UNetConfig,
    prediction: Prediction = "epsilon",
    image_weight: float = 1.0,
    attend: Attend = "xla",
    remat: bool = False,
) -> Array:
    """E |eps - eps(z_t; tau, I_r, B, C, t)|^2 (Eq. 6), one timestep a sample, shared by views and frames.

    Args:
      params: the model.
      batch: data.
      key: of noise and timesteps.
      config: sizes of the image model.
      prediction: what the image model predicts; of "v" the target is the velocity.
      image_weight, attend, remat: see `model.predict_video`.

    Returns:
      [] float32.
    """
    time_key, noise_key = jax.random.split(key)
    timesteps = jax.random.randint(time_key, (batch.video.shape[0],), 0, NUM_TRAIN_STEPS)
    alphas = jnp.asarray(plan_alphas(), jnp.float32)[timesteps]
    noise = jax.random.normal(noise_key, batch.video.shape)
    predicted = predict_video(
        params,
        add_noise(batch.video, noise, alphas),
        timesteps,
        batch.condition,
        config=config,
        image_weight=image_weight,
        attend=attend,
        remat=remat,
    )
    return jnp.mean((predicted - target(batch.video, noise, alphas, prediction=prediction)) ** 2)
