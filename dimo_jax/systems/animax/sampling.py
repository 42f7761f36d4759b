"""Drawing videos and pose maps of all views together, guided by the condition (A.2: scale 3.0, 50 steps)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.diffusion.flow import guide
from dimo_jax.diffusion.samplers import Velocity, plan_levels, sample_euler, sample_unipc
from dimo_jax.networks.wan.layers import Attend
from dimo_jax.third_party.wan.transformer import WanConfig

from . import sequence
from .model import AnimaxParams, predict_joint

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
) -> Array:
    """The velocity of noisy videos, v(no condition) + guidance (v(condition) - v(no condition)).

    Both are computed in one pass. Shapes as in `draw`; video [B,N,2,1+f,h,w,C], timestep [].
    """
    timesteps = jnp.full((video.shape[0],), timestep)
    if guidance == 1:
        latents = sequence.join(condition, video)
        found = predict_joint(params, latents, timesteps, text, ray_maps, config=config, attend=attend)
        return sequence.split(found)[1]
    both = functools.partial(jnp.concatenate, axis=0)
    latents = sequence.join(both([condition, jnp.zeros_like(condition)]), both([video, video]))
    found = predict_joint(
        params, latents, both([timesteps] * 2), both([text] * 2), both([ray_maps] * 2), config=config, attend=attend
    )
    conditioned, unconditioned = jnp.split(sequence.split(found)[1], 2)
    return guide(conditioned, unconditioned, guidance)


@functools.partial(
    jax.jit, static_argnames=("config", "num_latents", "num_steps", "guidance", "shift", "sampler", "attend")
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
        return guided_velocity(
            params, video, timestep, condition, text, ray_maps, config=config, guidance=guidance, attend=attend
        )

    return SAMPLERS[sampler](velocity, noise, plan_levels(num_steps, shift=shift))
