"""What ImageDream is told of a camera: its camera-to-world matrix, at distance 1, in Blender's axes."""

from __future__ import annotations

import jax.numpy as jnp

from dimo_jax.core.types import Array, Camera

CAMERA_DIM = 16


def camera_rows(cameras: Camera) -> Array:
    """The numbers of cameras [...] that look at the world's origin -> [...,16].

    The axes of a camera are those of OpenGL (x right, y up, z backward), the world's those of Blender (z up), in which
    our x, y, z are x, z, -y; the camera stands at distance 1.
    """
    pose = jnp.asarray(cameras.world_to_camera)
    rotation = jnp.swapaxes(pose[..., :3, :3], -1, -2)
    eye = -jnp.einsum("...ij,...j->...i", rotation, pose[..., :3, 3])
    eye = eye / jnp.maximum(jnp.linalg.norm(eye, axis=-1, keepdims=True), 1e-8)
    whole = jnp.concatenate([rotation * jnp.array([1.0, -1.0, -1.0]), eye[..., None]], axis=-1)
    turned = jnp.stack([whole[..., 0, :], -whole[..., 2, :], whole[..., 1, :]], axis=-2)
    last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (*turned.shape[:-2], 1, 4))
    return jnp.concatenate([turned, last], axis=-2).reshape(*turned.shape[:-2], CAMERA_DIM)
