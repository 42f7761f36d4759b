"""The loss that AnimaX is trained by: rectified flow on the noisy frames, with the condition left out at times."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.diffusion.flow import draw_levels, mix, target_velocity, to_timesteps
from dimo_jax.networks.wan.layers import Attend
from dimo_jax.third_party.wan.transformer import WanConfig

from . import sequence
from .model import AnimaxParams, predict_joint

DROP_CONDITION = 0.2  # of the samples (A.2)


class JointBatch(flax.struct.PyTreeNode):
    """Normalized latents of videos and pose maps, and what goes with them."""

    condition: Array  # [B,N,2,h,w,C] of the template's pictures and pose maps
    video: Array  # [B,N,2,1+f,h,w,C]
    text: Array  # [B,T,text_dim]
    ray_maps: Array  # [B,N,h,w,6]


def drop_condition(key: Array, condition: Array, *, rate: float = DROP_CONDITION) -> Array:
    """The condition [B,...], all zeros for a share of the samples: pictures and pose maps of all views together.

    What stands for no condition the paper leaves open; zero is the mean of normalized latents.
    """
    kept = jax.random.uniform(key, (condition.shape[0],)) >= rate
    return jnp.where(kept.reshape(-1, *(1,) * (condition.ndim - 1)), condition, 0)


def noisy_error(predicted: Array, target: Array) -> Array:
    """Mean square over the noisy frames of a sequence: predicted [B,N,2f+4,h,w,C], target [B,N,2,1+f,h,w,C] -> []."""
    return jnp.mean((sequence.split(predicted)[1] - target) ** 2)


def flow_loss(
    params: AnimaxParams,
    batch: JointBatch,
    key: Array,
    *,
    config: WanConfig,
    shift: float = 3.0,
    drop: float = DROP_CONDITION,
    attend: Attend = "xla",
    remat: bool = False,
) -> Array:
    """E |v([c, x_s], s) - (noise - x)|^2 over the noisy frames, one noise level s a sample, shared by views and halves.

    Args:
      params: the model.
      batch: data.
      key: of noise, levels and dropping.
      config: sizes of the backbone.
      shift: of the noise levels.
      drop: share of the samples without their condition.
      attend, remat: see `model.predict_joint`.

    Returns:
      [] float32.
    """
    level_key, noise_key, drop_key = jax.random.split(key, 3)
    levels = draw_levels(level_key, (batch.video.shape[0],), shift=shift)
    noise = jax.random.normal(noise_key, batch.video.shape)
    latents = sequence.join(drop_condition(drop_key, batch.condition, rate=drop), mix(batch.video, noise, levels))
    predicted = predict_joint(
        params, latents, to_timesteps(levels), batch.text, batch.ray_maps, config=config, attend=attend, remat=remat
    )
    return noisy_error(predicted, target_velocity(batch.video, noise))
