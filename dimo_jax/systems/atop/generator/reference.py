"""What the generator learns from and is asked with: pictures and masks of objects, through the frozen encoders."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Camera
from dimo_jax.networks.imagedream.cameras import camera_rows

from .model import Condition
from .training import MotionBatch

Encode = Callable[[np.ndarray], Array]  # pictures with straight alpha [N,H,W,4] uint8 -> latents [N,h,w,C]
Look = Callable[[np.ndarray], Array]  # likewise -> tokens [N,M,image_dim]
CHUNK = 10  # pictures that an encoder gets at once


def over_white(frames: np.ndarray) -> np.ndarray:
    """Pictures with straight alpha [...,4] uint8 on white, [...,3] uint8."""
    alpha = frames[..., 3:].astype(np.float32) / 255
    return np.rint(frames[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def make_condition(
    rest: np.ndarray,
    masks: np.ndarray,
    cameras: Camera,
    text: Array | np.ndarray,
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
      UserError: a mask of a part that no view sees.
    """
    if not masks.any():
        raise UserError("masks: no view sees the part, expected some of it in one view at least")
    return Condition(
        text=jnp.asarray(text)[None],
        image=None if look is None else jnp.asarray(look(rest))[None],
        masks=jnp.asarray(masks, jnp.float32)[None] / 255,
        cameras=camera_rows(cameras)[None],
        picture=None if encode is None else encode(rest[:1]),
    )


def encode_video(frames: np.ndarray, encode: Encode) -> Array:
    """Latents [1,V,F,h,w,C] of a video [V,F,H,W,4] uint8, some pictures at a time."""
    flat = frames.reshape(-1, *frames.shape[2:])
    pieces = [np.asarray(encode(flat[start : start + CHUNK])) for start in range(0, len(flat), CHUNK)]
    latents = np.concatenate(pieces)
    return jnp.asarray(latents.reshape(1, *frames.shape[:2], *latents.shape[1:]))


def make_batch(
    frames: np.ndarray,
    masks: np.ndarray,
    cameras: Camera,
    text: Array | np.ndarray,
    *,
    encode: Encode,
    look: Look | None,
    rest: np.ndarray | None = None,
) -> MotionBatch:
    """One reference video with what it is to be drawn from.

    Args:
      frames: [V,F,H,W,4] uint8.
      masks: [V,H,W] uint8 of the part in the rest state.
      cameras: V views.
      text: [T,text_dim] of the sentence.
      encode, look: see `make_condition`.
      rest: [V,H,W,4] uint8; None takes the first frame.
    """
    first = frames[:, 0] if rest is None else rest
    return MotionBatch(encode_video(frames, encode), make_condition(first, masks, cameras, text, look=look))
