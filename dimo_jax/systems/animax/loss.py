"""The loss that AnimaX is trained by: rectified flow on the noisy frames, with the condition left out at times."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.diffusion.flow import draw_levels, mix, target_velocity, to_timesteps
from dimo_jax.networks.wan.layers import Attend
from dimo_jax.third_party.wan.transformer import WanConfig

from . import sequence
from .model import AnimaxParams, predict_joint
from .outputs import Predicts, read_velocity

DROP_CONDITION = 0.2  # of the samples (A.2)
# Noise level below which a sample counts less, of a network that says changes: what it is off in the data is divided by
# the level for the velocity, so that one sample with hardly any noise would outweigh hundreds with more.
LEAST_NOISE = 0.3


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


class FlowErrors(NamedTuple):
    """How far a prediction is off."""

    # [2] mean square error of the velocity over the noisy frames of pictures and of pose maps, see `LEAST_NOISE`.
    halves: Array
    data: Array  # [2] likewise of the data that follow from it
    videos: Array  # [B,N,2,1+f,h,w,C] these data


def flow_errors(
    params: AnimaxParams,
    batch: JointBatch,
    keys: Array,
    *,
    config: WanConfig,
    shift: float = 3.0,
    drop: float = DROP_CONDITION,
    predicts: Predicts = "velocity",
    attend: Attend = "xla",
    remat: bool = False,
) -> FlowErrors:
    """|v([c, x_s], s) - (noise - x)|^2 over the noisy frames, one noise level s a sample, shared by views and halves.

    Args:
      params: the model.
      batch: data.
      keys: [B], of each sample's noise, level and dropping: they do not depend on which batch it is in.
      config: sizes of the backbone.
      shift: of the noise levels.
      drop: share of the samples without their condition.
      predicts: see `outputs.read_velocity`.
      attend, remat: see `model.predict_joint`.
    """
    level_keys, noise_keys, drop_keys = jnp.moveaxis(jax.vmap(functools.partial(jax.random.split, num=3))(keys), 1, 0)
    levels = jax.vmap(lambda key: draw_levels(key, (), shift=shift))(level_keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, batch.video.shape[1:]))(noise_keys)
    leave_out = jax.vmap(lambda key, each: drop_condition(key, each[None], rate=drop)[0])
    noisy = mix(batch.video, noise, levels)
    latents = sequence.join(leave_out(drop_keys, batch.condition), noisy)
    output = predict_joint(
        params, latents, to_timesteps(levels), batch.text, batch.ray_maps, config=config, attend=attend, remat=remat
    )
    velocity = read_velocity(output, latents, levels, predicts)
    levels = levels.reshape(-1, *(1,) * (noisy.ndim - 1))
    data = noisy - levels * velocity
    weights = jnp.minimum(1.0, levels / LEAST_NOISE) ** 2 if predicts == "change" else 1.0
    halves = tuple(axis for axis in range(velocity.ndim) if axis != 2)
    return FlowErrors(
        jnp.mean(weights * (velocity - target_velocity(batch.video, noise)) ** 2, axis=halves),
        jnp.mean((data - batch.video) ** 2, axis=halves),
        data,
    )


def flow_loss(params: AnimaxParams, batch: JointBatch, key: Array, **options: Any) -> Array:
    """The mean of `flow_errors` over both halves [], with keys from one `key`; `options` as there."""
    return jnp.mean(flow_errors(params, batch, jax.random.split(key, len(batch.video)), **options).halves)
