"""Drawing videos and pose maps of all views together, guided by the condition (A.2: scale 3.0, 50 steps)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.diffusion.flow import NUM_TRAIN_STEPS, guide
from dimo_jax.diffusion.samplers import Velocity, plan_levels, sample_euler, sample_unipc
from dimo_jax.networks.wan.layers import Attend
from dimo_jax.third_party.wan.transformer import WanConfig

from . import sequence
from .model import AnimaxParams, predict_joint
from .outputs import Predicts, read_velocity

SAMPLERS: dict[str, Callable[[Velocity, Array, np.ndarray], Array]] = {"unipc": sample_unipc, "euler": sample_euler}


def guided_velocity(
    params: AnimaxParams,
    video: Array,
    timestep: Array,
    condition: Array,
    text: Array,
    ray_maps: Array,
    *,
    config: WanConfig,
    guidance: float,
    attend: Attend,
    predicts: Predicts = "velocity",
) -> Array:
    """The velocity of noisy videos, v(no condition) + guidance (v(condition) - v(no condition)).

    Both are computed in one pass. Shapes as in `draw`; video [B,N,2,1+f,h,w,C], timestep [].
    """

    def predict(condition: Array, video: Array, text: Array, ray_maps: Array) -> Array:
        latents, timesteps = sequence.join(condition, video), jnp.full((len(video),), timestep)
        output = predict_joint(params, latents, timesteps, text, ray_maps, config=config, attend=attend)
        return read_velocity(output, latents, timesteps / NUM_TRAIN_STEPS, predicts)

    if guidance == 1:
        return predict(condition, video, text, ray_maps)
    both = [jnp.concatenate([each, each]) for each in (video, text, ray_maps)]
    found = predict(jnp.concatenate([condition, jnp.zeros_like(condition)]), *both)
    conditioned, unconditioned = jnp.split(found, 2)
    return guide(conditioned, unconditioned, guidance)


@functools.partial(
    jax.jit,
    static_argnames=("config", "num_latents", "num_steps", "guidance", "shift", "sampler", "attend", "predicts"),
)
def draw(
    params: AnimaxParams,
    key: Array,
    condition: Array,
    text: Array,
    ray_maps: Array,
    *,
    config: WanConfig,
    num_latents: int,
    num_steps: int = 50,
    guidance: float = 3.0,
    shift: float = 3.0,
    sampler: str = "unipc",
    attend: Attend = "xla",
    predicts: Predicts = "velocity",
) -> Array:
    """Latents of videos and pose maps, drawn from noise.

    Args:
      params: the model.
      key: of the noise.
      condition: [B,N,2,h,w,C] normalized latents of the template's pictures and pose maps.
      text: [B,T,text_dim].
      ray_maps: [B,N,h,w,6].
      config: sizes of the backbone.
      num_latents: 1 + f, latent frames of a video.
      num_steps: of the sampler.
      guidance: by the condition; 1 leaves guidance out, and half of the work.
      shift: of the noise levels.
      sampler: "unipc", Wan's own, or "euler".
      attend: how attention is computed.
      predicts: see `outputs.read_velocity`.

    Returns:
      [B,N,2,1+f,h,w,C] float32.

    Raises:
      ValueError: another sampler.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler is {sampler!r}, expected one of {', '.join(SAMPLERS)}")
    batch, views, halves, *place = condition.shape
    noise = jax.random.normal(key, (batch, views, halves, num_latents, *place))

    def velocity(video: Array, timestep: Array) -> Array:
        how: Any = dict(config=config, guidance=guidance, attend=attend, predicts=predicts)
        return guided_velocity(params, video, timestep, condition, text, ray_maps, **how)

    return SAMPLERS[sampler](velocity, noise, plan_levels(num_steps, shift=shift))
