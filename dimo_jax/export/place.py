"""What a model shows, carried from the method's world to the user's: units, place and axes."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from dimo_jax.export.motion import Motion, keep_sign
from dimo_jax.geometry.harmonics import basis, degree_of
from dimo_jax.geometry.world import World
from dimo_jax.types import Gaussians


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
            sh=turn_harmonics(np.asarray(gaussians.sh), back).astype(np.float32),
        )


def place_motion(motion: Motion, world: World, *, radius_power: float = 2.0) -> Motion:
    """A motion of the method's world where it stands in the user's, as `place_gaussians`.

    `radius_power` is that of the control radii: r_k is a length to this power (`config.radius_power`).
    """
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
        radii=(np.asarray(motion.radii) / world.scale**radius_power).astype(np.float32),
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


def turn_harmonics(sh: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Coefficients [...,(degree+1)^2,C] after a rotation [3,3] of what they colour.

    A turned function f'(d) = f(R^T d) is of the same degree, so that as many directions as coefficients determine it;
    more are taken, and least squares is exact to rounding.
    """
    degree = degree_of(jnp.asarray(sh))
    if degree == 0 or np.array_equal(rotation, np.eye(3)):
        return sh
    directions = np.random.default_rng(0).normal(size=(64, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def values(points: np.ndarray) -> np.ndarray:
        return np.asarray(basis(jnp.asarray(points, jnp.float32), degree=degree), np.float64)

    turn = np.linalg.lstsq(values(directions), values(directions @ rotation), rcond=None)[0]
    turn[np.abs(turn) < 1e-6] = 0.0
    turned: np.ndarray = np.einsum("ab,...bc->...ac", turn, np.asarray(sh, np.float64))
    return turned
