"""What the generator learns from and is asked with: pictures and masks of objects, through the frozen encoders."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array, Camera
from dimo_jax.networks.imagedream.cameras import camera_rows

from .model import Condition
from .training import MotionBatch

Encode = Callable[[np.ndarray], Array]  # pictures in -1..1 [N,H,W,3] -> latents [N,h,w,C]
Look = Callable[[np.ndarray], Array]  # pictures [N,H,W,3] uint8 -> tokens [N,M,image_dim]
CHUNK = 10  # pictures that an encoder gets at once


def over_white(frames: np.ndarray) -> np.ndarray:
    """Pictures with straight alpha [...,4] uint8 on white, [...,3] uint8."""
    alpha = frames[..., 3:].astype(np.float32) / 255
    return np.rint(frames[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def make_condition(
    rest: np.ndarray,
    masks: np.ndarray,
    cameras: Camera,
    text: Array,
    *,
    look: Look | None,
    encode: Encode | None = None,
) -> Condition:
    """What one object's video is drawn from (Eq. 5), B = 1.

    Args:
      rest: [V,H,W,4] uint8 of the rest state.
      masks: [V,H,W] uint8, 255 where the part is seen in it.
      cameras: V views that look at the origin.
      text: [T,text_dim] of the sentence.
      look: the image encoder; None for a network without pictures.
      encode: the autoencoder's, for ImageDream's "pixel" form, which sees the first view's latents too.

    Raises:
      ValueError: a mask of a part that no view sees.
    """
    if not masks.any():
        raise ValueError("no view sees the part, expected masks with some of it")
    pictures = over_white(rest)
    return Condition(
        text=jnp.asarray(text)[None],
        image=None if look is None else look(pictures)[None],
        masks=jnp.asarray(masks, jnp.float32)[None] / 255,
        cameras=camera_rows(cameras)[None],
        picture=None if encode is None else encode(pictures[:1].astype(np.float32) / 127.5 - 1),
    )


def encode_video(frames: np.ndarray, encode: Encode) -> Array:
    """Latents [1,V,F,h,w,C] of a video [V,F,H,W,4] uint8 on white, some pictures at a time."""
    flat = over_white(frames).reshape(-1, *frames.shape[2:4], 3).astype(np.float32) / 127.5 - 1
    pieces = [np.asarray(encode(flat[start : start + CHUNK])) for start in range(0, len(flat), CHUNK)]
    latents = np.concatenate(pieces)
    return jnp.asarray(latents.reshape(1, *frames.shape[:2], *latents.shape[1:]))


def make_batch(
    frames: np.ndarray, masks: np.ndarray, cameras: Camera, text: Array, *, encode: Encode, look: Look | None
) -> MotionBatch:
    """One reference video [V,F,H,W,4] uint8 with its masks [V,F,H,W], of which the first frame is the rest state."""
    condition = make_condition(frames[:, 0], masks[:, 0], cameras, text, look=look)
    return MotionBatch(encode_video(frames, encode), condition)
