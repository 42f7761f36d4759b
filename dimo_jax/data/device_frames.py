"""All frames of a dataset in a device's memory, where it has room for them: the host sends indices only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array, Batch
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.sampler import area_weights


def flatten_frames(dataset: Dataset) -> np.ndarray:
    """The frames as [M*V*T,H,W,4] uint8, which `Sampler(as_indices=True)` indexes."""
    return dataset.frames.reshape(-1, *dataset.frames.shape[3:])


def look_up(frames: Array, batch: Batch) -> Batch:
    """The batch with its images, uint8 [...,height,width,4], in place of their indices [...].

    Args:
      frames: from `flatten_frames`.
      batch: from a sampler with `as_indices`; its cameras tell the size of the images.
    """
    return batch.replace(images=shrink(frames[batch.images], batch.cameras.height, batch.cameras.width))


def shrink(images: Array, height: int, width: int) -> Array:
    """`sampler.downsample` on a device: the same to the last bit for whole ratios that are powers of two.

    Args and returns: see there.
    """
    full_height, full_width = images.shape[-3:-1]
    if (full_height, full_width) == (height, width):
        return images
    values = images.astype(jnp.float32)
    values = jnp.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], axis=-1)
    rows, columns = area_weights(full_height, height), area_weights(full_width, width)
    highest = jax.lax.Precision.HIGHEST
    values = jnp.einsum("hi,...iwc->...hwc", rows, values, precision=highest)
    values = jnp.einsum("wj,...hjc->...hwc", columns, values, precision=highest)
    alpha = values[..., 3:]
    color = jnp.where(alpha > 0, values[..., :3] / jnp.where(alpha > 0, alpha, 1), 0)
    return jnp.clip(jnp.rint(jnp.concatenate([color, alpha], axis=-1)), 0, 255).astype(jnp.uint8)
