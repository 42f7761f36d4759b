"""The multi-view image model, inflated to videos (ATOP Sec. 4.2): every frame passes it as a picture of V views does.

3x3 convolutions as 1x3x3 ones, and attention over (B Nf)(Nv HW) (Eq. 2), are frames as samples of their own; what joins
them is the motion module, which starts at zero: at first each frame is what the image model makes of it.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.networks.imagedream.unet import UNetParams, embed_image, pass_views
from dimo_jax.networks.wan.layers import Attend
from dimo_jax.third_party.imagedream.unet import UNetConfig

from .motion import MotionModule, init_motion, pass_motion


class GeneratorParams(flax.struct.PyTreeNode):
    """The arrays of the video model."""

    backbone: UNetParams
    motion: tuple[MotionModule, ...]


class Condition(flax.struct.PyTreeNode):
    """What a video is drawn from: tau, I_r, B and C of Eq. 5."""

    text: Array  # [B,T,text_dim]
    image: Array | None  # [B,V,M,image_dim] tokens of the rest state, view by view
    masks: Array  # [B,V,H,W] in 0..1, of the part in the rest state
    cameras: Array | None  # [B,V,16], see `networks.imagedream.cameras`
    # [B,h,w,C] latents of the first view's rest state, for ImageDream's "pixel" form, which sees them as a view more.
    picture: Array | None = None


def init_params(key: Array, backbone: UNetParams, config: UNetConfig) -> GeneratorParams:
    """The video model at step 0, around an image model."""
    return GeneratorParams(backbone, init_motion(key, config))


@functools.partial(jax.jit, static_argnames=("config", "image_weight", "attend", "remat", "moving"))
def predict_video(
    params: GeneratorParams,
    latents: Array,
    timesteps: Array,
    condition: Condition,
    *,
    config: UNetConfig,
    image_weight: float = 1.0,
    attend: Attend = "xla",
    remat: bool = False,
    moving: bool = True,
) -> Array:
    """What the model predicts of noisy videos of V views.

    Args:
      params: the model.
      latents: [B,V,F,h,w,C].
      timesteps: [B] in 0..1000, one for all views and frames.
      condition: of B videos of V views.
      config: sizes of the image model.
      image_weight: lambda of Eq. 3.
      attend: how attention is computed.
      remat: whether gradients compute blocks anew instead of keeping what is inside.
      moving: False leaves the motion module out: frames are pictures that know nothing of each other.

    Returns:
      [B,V,F,h,w,C] float32.

    Raises:
      ValueError: conditions that are not those of the videos and views, masks that the latents do not divide.
    """
    batch, views, frames = latents.shape[:3]
    found = {"masks": condition.masks, "image": condition.image, "cameras": condition.cameras}
    for name, array in found.items():
        if array is not None and array.shape[:2] != (batch, views):
            raise ValueError(f"{name} of {array.shape[:2]} videos and views, expected {(batch, views)}")
    image, cameras, masks = condition.image, condition.cameras, condition.masks
    image = None if image is None else embed_image(params.backbone, image)
    if condition.picture is not None:
        more = jnp.broadcast_to(condition.picture[:, None, None], (batch, 1, *latents.shape[2:]))
        latents = jnp.concatenate([latents, more.astype(latents.dtype)], axis=1)
        masks = jnp.concatenate([masks, masks[:, :1]], axis=1)
        image = None if image is None else jnp.concatenate([image, image[:, :1]], axis=1)
        cameras = None if cameras is None else jnp.pad(cameras, ((0, 0), (0, 1), (0, 0)))
    count = latents.shape[1]

    def between(x: Array, index: int, grid: tuple[int, int]) -> Array:
        y = jnp.moveaxis(x.reshape(batch, frames, count, *x.shape[1:]), 1, 2)
        y = pass_motion(params.motion[index], y, masks, grid, head_dim=config.head_dim, attend=attend)
        return jnp.moveaxis(y, 2, 1).reshape(x.shape)

    def spread(x: Array | None) -> Array | None:
        return None if x is None else jnp.repeat(x, frames, axis=0)

    flat = jnp.moveaxis(latents, 2, 1).reshape(batch * frames, count, *latents.shape[3:])
    predicted = pass_views(
        params.backbone,
        flat,
        jnp.repeat(timesteps, frames),
        jnp.repeat(condition.text, frames, axis=0),
        spread(image),
        spread(cameras),
        config=config,
        image_weight=image_weight,
        attend=attend,
        remat=remat,
        between=between if moving else None,
    )
    return jnp.moveaxis(predicted.reshape(batch, frames, *predicted.shape[1:]), 1, 2)[:, :views]
