"""Canonical Gaussians: their initial values in both stages (paper Eq. 6, Sec. 3.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array, Gaussians, KeyPoints
from dimo_jax.geometry import harmonics
from dimo_jax.geometry.neighbors import nearest


def uniform_in_ball(key: Array, num_points: int) -> Array:
    """Points [num_points,3] uniform in the unit ball."""
    direction_key, radius_key = jax.random.split(key)
    directions = jax.random.normal(direction_key, (num_points, 3))
    directions /= jnp.linalg.norm(directions, axis=-1, keepdims=True)
    return directions * jax.random.uniform(radius_key, (num_points, 1)) ** (1 / 3)


def init_points(
    key: Array,
    *,
    capacity: int,
    num_points: int,
    ball_radius: float = 0.5,
    opacity: float = 0.05,
    scale: float = 0.03,
) -> tuple[Gaussians, Array]:
    """First stage: key points as grey isotropic Gaussians in a ball, in arrays of fixed capacity.

    Args:
      key: random key.
      capacity: N, slots of the arrays.
      num_points: how many of them are alive at the start.
      ball_radius: world units.
      opacity: 0..1, of every point.
      scale: standard deviation, world units.

    Returns:
      Gaussians of degree 0 and the mask `alive` [N].
    """
    means = ball_radius * uniform_in_ball(key, capacity)
    gaussians = Gaussians(
        means=means,
        log_scales=jnp.full((capacity, 3), jnp.log(scale)),
        quats=jnp.zeros((capacity, 4)).at[:, 0].set(1.0),
        logit_opacities=jnp.full((capacity,), jnp.log(opacity / (1 - opacity))),
        sh=jnp.zeros((capacity, 1, 3)),
    )
    return gaussians, jnp.arange(capacity) < num_points


def init_around_key_points(
    key: Array,
    key_points: KeyPoints,
    sh: Array,
    ball_radii: Array,
    *,
    num_per_key_point: int,
    degree: int = 0,
    opacity: float = 0.1,
    relative_scale: float = 0.5,
) -> Gaussians:
    """Second stage: n_c Gaussians in a small ball around each key point (paper Sec. 3.3).

    Args:
      key: random key.
      key_points: K key points.
      sh: [K,3] degree-0 coefficients of the key points, which give the first colours.
      ball_radii: [K] world units.
      num_per_key_point: n_c.
      degree: of the spherical harmonics; higher coefficients start at 0.
      opacity: 0..1.
      relative_scale: initial standard deviation as a share of the mean distance between a ball's Gaussians.

    Returns:
      N = K * n_c isotropic Gaussians.
    """
    num_key_points = key_points.positions.shape[0]
    count = num_key_points * num_per_key_point
    offsets = uniform_in_ball(key, count).reshape(num_key_points, num_per_key_point, 3)
    means = key_points.positions[:, None] + ball_radii[:, None, None] * offsets
    spacing = ball_radii * (4.18879 / num_per_key_point) ** (1 / 3)  # side of a Gaussian's share of the ball's volume
    log_scales = jnp.repeat(jnp.log(relative_scale * spacing), num_per_key_point)
    coefficients = jnp.zeros((count, (degree + 1) ** 2, 3))
    return Gaussians(
        means=means.reshape(count, 3),
        log_scales=jnp.broadcast_to(log_scales[:, None], (count, 3)),
        quats=jnp.zeros((count, 4)).at[:, 0].set(1.0),
        logit_opacities=jnp.full((count,), jnp.log(opacity / (1 - opacity))),
        sh=coefficients.at[:, 0].set(jnp.repeat(sh, num_per_key_point, axis=0)),
    )


def mean_spacing(positions: Array, *, num_neighbors: int = 3) -> Array:
    """Mean distance of each position [K,3] to its nearest others: [K] world units."""
    count = min(num_neighbors + 1, positions.shape[0])
    _, squared = nearest(positions, positions, num_neighbors=count)
    return jnp.mean(jnp.sqrt(squared[:, 1:]), axis=-1) if count > 1 else jnp.full(positions.shape[:1], 0.1)


def shared_radius(log_scales: Array, alive: Array) -> Array:
    """One isotropic radius for all (the authors' first stage): [N,3] -> [N,3], the mean over what is alive."""
    total = jnp.sum(jnp.where(alive[:, None], log_scales, 0.0))
    return jnp.broadcast_to(total / jnp.maximum(3 * jnp.sum(alive), 1), log_scales.shape)


def isotropic(log_scales: Array, alive: Array) -> Array:
    """One radius per Gaussian: [N,3] -> [N,3], the mean over the axes."""
    del alive
    return jnp.broadcast_to(jnp.mean(log_scales, axis=-1, keepdims=True), log_scales.shape)


def anisotropic(log_scales: Array, alive: Array) -> Array:
    """Three radii per Gaussian, as they are (3DGS)."""
    del alive
    return log_scales


def mask_dead(gaussians: Gaussians, alive: Array) -> Gaussians:
    """Gives dead slots the opacity that reaches no pixel: logit -inf where `alive` [N] is False."""
    return gaussians.replace(logit_opacities=jnp.where(alive, gaussians.logit_opacities, -jnp.inf))


def to_rgb(gaussians: Gaussians) -> Array:
    """View-independent colour [N,3] of Gaussians, from the degree-0 coefficients."""
    return harmonics.to_rgb(gaussians.sh[..., 0, :])
