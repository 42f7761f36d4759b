"""What a model shows, carried from the method's world to the user's: units, place and axes."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Gaussians
from dimo_jax.geometry.harmonics import rotate
from dimo_jax.geometry.world import World
from dimo_jax.io.motion import Motion
from dimo_jax.rigs.sampling import keep_sign


def place_gaussians(gaussians: Gaussians, world: World) -> Gaussians:
    """Gaussians of the method's world where they stand in the user's; NumPy arrays, leading axes as they are.

    The very same arrays where nothing moves. Colours beyond degree 0 turn with the rest.
    """
    if world.is_identity:
        return gaussians
    back = world.rotation.T
    with np.errstate(invalid="ignore"):  # of those that are dead
        return gaussians.replace(
            means=world.undo(gaussians.means).astype(np.float32),
            log_scales=(np.asarray(gaussians.log_scales) - np.log(world.scale)).astype(np.float32),
            quats=turn_quats(np.asarray(gaussians.quats), back),
            sh=np.asarray(rotate(jnp.asarray(gaussians.sh), jnp.asarray(quat_of(back), jnp.float32))),
        )


def place_motion(motion: Motion, world: World) -> Motion:
    """A motion of the method's world where it stands in the user's, as `place_gaussians`."""
    if world.is_identity:
        return motion
    back = world.rotation.T
    turns = np.asarray(motion.turns, np.float64)
    # A key point's rotation acts on offsets: the user's are turned, so that it becomes back R back^T.
    conjugate = turns * np.array([1.0, -1, -1, -1])
    inner = turn_quats(conjugate, back) * np.array([1.0, -1, -1, -1])
    return replace(
        motion,
        canonical=place_gaussians(motion.canonical, world),
        means=world.undo(motion.means).astype(np.float32),
        quats=turn_quats(np.asarray(motion.quats), back),
        rest=world.undo(motion.rest).astype(np.float32),
        radii=(np.asarray(motion.radii) / world.scale).astype(np.float32),
        tracks=world.undo(motion.tracks).astype(np.float32),
        turns=keep_sign(turn_quats(inner, back)),
    )


def turn_quats(quats: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Quaternions [...,4] wxyz after a rotation [3,3] of the world that they turn things in; float32."""
    if np.array_equal(rotation, np.eye(3)):
        return np.asarray(quats, np.float32)
    w, x, y, z = quat_of(rotation)
    product = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return (np.asarray(quats, np.float64) @ product.T).astype(np.float32)


def quat_of(rotation: np.ndarray) -> np.ndarray:
    """The unit quaternion [4] wxyz of a rotation [3,3], w not negative, as an eigenvector (Bar-Itzhack 2000)."""
    m = np.asarray(rotation, np.float64)
    k = np.empty((4, 4))
    k[0, 0], k[1:, 1:] = np.trace(m), m + m.T - np.trace(m) * np.eye(3)
    k[0, 1:] = k[1:, 0] = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
    quat: np.ndarray = np.linalg.eigh(k)[1][:, -1]
    return quat if quat[0] >= 0 else -quat
