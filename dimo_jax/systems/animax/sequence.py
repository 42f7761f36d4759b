"""The joint sequence of AnimaX (paper Sec. 3.2): a clean condition and a noisy video, of pictures and of pose maps.

[c_rgb, x_rgb, c_pose, x_pose] along time, 2 f + 4 latent frames where a video has 1 + f (Eq. 3). What belongs to
either half or either kind of frame is told here once: positions (Eq. 4), modality, time, and what the loss sees.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array

NUM_MODALITIES = 2  # pictures, pose maps


def join(condition: Array, video: Array) -> Array:
    """Condition [B,N,2,h,w,C] and video [B,N,2,1+f,h,w,C] of N views and two modalities -> [B,N,2f+4,h,w,C]."""
    whole = jnp.concatenate([condition[:, :, :, None], video], axis=3)
    return whole.reshape(*whole.shape[:2], -1, *whole.shape[4:])


def split(sequence: Array) -> tuple[Array, Array]:
    """`join` undone: [B,N,2f+4,h,w,C] -> condition [B,N,2,h,w,C] and video [B,N,2,1+f,h,w,C].

    Raises:
      ValueError: an odd number of frames, or fewer than 4.
    """
    frames = sequence.shape[2]
    if frames % 2 or frames < 4:
        raise ValueError(f"sequence of {frames} frames, expected 2 f + 4")
    whole = sequence.reshape(*sequence.shape[:2], NUM_MODALITIES, frames // 2, *sequence.shape[3:])
    return whole[:, :, :, 0], whole[:, :, :, 1:]


def shared_positions(num_frames: int) -> tuple[int, ...]:
    """Positions of the 2 f + 4 frames: PE(i,j,k) = PE(i+f+2,j,k) = R(i,j,k), 0 <= i < f + 2 (Eq. 4)."""
    return (*range(num_frames // 2), *range(num_frames // 2))


def modalities(num_frames: int) -> np.ndarray:
    """The identifier of every frame: [2f+4] int32, 0 of pictures and 1 of pose maps."""
    return np.repeat(np.arange(NUM_MODALITIES, dtype=np.int32), num_frames // 2)


def is_noisy(num_frames: int) -> np.ndarray:
    """[2f+4] bool, False for the two frames of the condition."""
    return np.arange(num_frames) % (num_frames // 2) > 0


def frame_timesteps(timesteps: Array, num_frames: int) -> Array:
    """Timesteps [B] of the noisy frames -> [B,2f+4], 0 for the clean ones (our choice; the paper does not say)."""
    return jnp.where(is_noisy(num_frames), timesteps[:, None], 0)
