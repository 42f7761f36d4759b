"""Rays of cameras as Plücker coordinates (Sitzmann et al. 2021), by which AnimaX tells its views apart (Sec. 3.2)."""

from __future__ import annotations

import jax.numpy as jnp

from dimo_jax.core.types import Array, Camera

NUM_CHANNELS = 6


def plucker_rays(cameras: Camera, height: int, width: int) -> Array:
    """Direction d and moment o x d of the ray through the middle of every cell of a grid over the picture.

    Args:
      cameras: of N views [N]; the object is about a unit large and stands at the world's origin, so that moments are of
        the size of directions.
      height, width: of the grid, such as that of the latents.

    Returns:
      [N,height,width,6]: d in world axes, of unit length, towards the object; then the moment about the origin.
    """
    pose = jnp.asarray(cameras.world_to_camera)
    rotation, shift = pose[:, :3, :3], pose[:, :3, 3]
    eye = -jnp.einsum("nji,nj->ni", rotation, shift)
    x = (jnp.arange(width) + 0.5) * cameras.width / width
    y = (jnp.arange(height) + 0.5) * cameras.height / height
    grid = jnp.stack(jnp.meshgrid(x, y, indexing="xy"), axis=-1)  # [h,w,2] pixels of the picture
    focal = jnp.broadcast_to(jnp.asarray(cameras.focal).reshape(len(pose), -1), (len(pose), 2))
    slopes = (grid - cameras.center[:, None, None]) / focal[:, None, None]
    local = jnp.concatenate([slopes, jnp.ones_like(slopes[..., :1])], axis=-1)
    direction = jnp.einsum("nji,nhwj->nhwi", rotation, local)
    direction = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)
    moment = jnp.cross(jnp.broadcast_to(eye[:, None, None], direction.shape), direction)
    return jnp.concatenate([direction, moment], axis=-1)
