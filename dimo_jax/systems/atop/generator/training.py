"""What the generator learns by: first pictures, where it has no pretrained image model, then motions (ATOP Eq. 6).

Motion personalization (Sec. 4.2.5): the motion module learns a part's motion, all else is frozen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.diffusion.noise import NUM_TRAIN_STEPS, Prediction, add_noise, plan_alphas, target, to_noise
from dimo_jax.networks.wan.layers import Attend
from dimo_jax.third_party.imagedream.unet import UNetConfig

from .model import Condition, GeneratorParams
from .outputs import Form, predict_latents

LEARNING_RATE = 5e-4  # Adam, 20,000 steps (Sec. 4.4.3)
PICTURES, MOTION = "pictures", "motion"
STAGES = (PICTURES, MOTION)
PICTURE_FIELDS = ("image", "picture")  # of a condition
LEAST_NOISE = 0.2  # share of noise in the variance below which a sample counts less, of a form that says changes


class MotionBatch(flax.struct.PyTreeNode):
    """Latents of reference videos, and what goes with them."""

    video: Array  # [B,V,F,h,w,C]
    condition: Condition


def trained(params: GeneratorParams, stage: str = MOTION) -> GeneratorParams:
    """A tree of bools, True for the arrays that a stage trains: the motion module, or for pictures all others."""
    return GeneratorParams(
        jax.tree.map(lambda _: stage == PICTURES, params.backbone),
        jax.tree.map(lambda _: stage == MOTION, params.motion),
    )


class Errors(NamedTuple):
    """How far a prediction is off."""

    loss: Array  # [] mean square error, of a form that says changes less where there is little noise
    data: Array  # [] of the data that follow from it
    video: Array  # [B,V,F,h,w,C] these data


def denoising_errors(
    params: GeneratorParams,
    batch: MotionBatch,
    keys: Array,
    *,
    config: UNetConfig,
    form: Form,
    **options: Any,
) -> Errors:
    """E |eps - eps(z_t; tau, I_r, B, C, t)|^2 (Eq. 6), one timestep a sample, shared by views and frames.

    Args:
      params: the model.
      batch: data.
      keys: [B], of each sample's noise and timestep: they do not depend on which batch it is in.
      config: sizes of the image model.
      form: how it is asked; the error is that of what it predicts.
      options: of `model.predict_video`.
    """
    time_keys, noise_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    timesteps = jax.vmap(lambda key: jax.random.randint(key, (), 0, NUM_TRAIN_STEPS))(time_keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, batch.video.shape[1:]))(noise_keys)
    alphas = jnp.asarray(plan_alphas(), jnp.float32)[timesteps]
    noisy = add_noise(batch.video, noise, alphas)
    predicted = predict_latents(params, noisy, timesteps, batch.condition, config=config, form=form, **options)
    wanted = target(batch.video, noise, alphas, prediction=form.prediction)
    weights = jnp.minimum(1.0, (1 - alphas) / LEAST_NOISE) if form.change else jnp.ones_like(alphas)
    errors = jnp.mean((predicted - wanted) ** 2, axis=tuple(range(1, noisy.ndim)))
    wide = alphas.reshape(-1, *(1,) * (noisy.ndim - 1))
    found = to_noise(predicted, noisy, alphas.reshape(wide.shape), prediction=form.prediction)
    video = (noisy - jnp.sqrt(1 - wide) * found) / jnp.sqrt(wide)
    return Errors(jnp.mean(weights * errors), jnp.mean((video - batch.video) ** 2), video)


def split_frames(batch: MotionBatch, keys: Array) -> tuple[MotionBatch, Array]:
    """Frames as samples of their own, with a key each: [B,V,F,...] -> [B F,V,1,...]."""
    num, views, frames = batch.video.shape[:3]
    video = jnp.moveaxis(batch.video, 2, 1).reshape(num * frames, views, 1, *batch.video.shape[3:])
    condition = jax.tree.map(lambda x: jnp.repeat(x, frames, axis=0), batch.condition)
    return MotionBatch(video, condition), jax.vmap(lambda key: jax.random.split(key, frames))(keys).reshape(-1)


def drop_condition(condition: Condition, keys: Array, empty_text: Array, *, rate: float, form: Form) -> Condition:
    """The condition without sentence for a share of the samples, and without what `without_condition` leaves out."""
    dropped = jax.vmap(lambda key: jax.random.uniform(key) < rate)(keys)
    without = without_condition(condition, empty_text, form)

    def choose(with_it: Array, without_it: Array) -> Array:
        return jnp.where(dropped.reshape(-1, *(1,) * (with_it.ndim - 1)), without_it, with_it)

    found: Condition = jax.tree.map(choose, condition, without)
    return found


def without_condition(condition: Condition, empty_text: Array, form: Form) -> Condition:
    """What guidance leads away from: the sentence "", and no picture (zeros, as ImageDream drops it).

    A form that counts from the rest state keeps the picture and goes without masks.
    """
    text = jnp.broadcast_to(empty_text, condition.text.shape)
    if form.change:
        return condition.replace(text=text, masks=jnp.zeros_like(condition.masks))
    pictures = {name: getattr(condition, name) for name in PICTURE_FIELDS}
    nothing: Any = {name: None if x is None else jnp.zeros_like(x) for name, x in pictures.items()}
    return condition.replace(text=text, **nothing)


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
    """The loss of `denoising_errors` [] of an image model that is asked as ImageDream is, with keys from one `key`."""
    options: Any = dict(image_weight=image_weight, attend=attend, remat=remat)
    keys = jax.random.split(key, len(batch.video))
    return denoising_errors(params, batch, keys, config=config, form=Form(prediction), **options).loss
