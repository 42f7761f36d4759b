"""Adaptive density of the first stage under static shapes (paper Sec. 3.3; 3DGS Sec. 5).

Points live in arrays of fixed capacity with an `alive` mask: a new point is written into a dead slot, Adam's moments
of a rewritten slot start at zero, and points that find no free slot are counted.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array, Gaussians
from dimo_jax.geometry import quaternion
from dimo_jax.geometry.neighbors import farthest_points


class DensityStats(flax.struct.PyTreeNode):
    """Screen-space gradients seen since the last change."""

    gradients: Array  # [N] sum over images of |d loss / d mean2d| in units of half the image
    images: Array  # [N] images in which the Gaussian had a gradient


def init_stats(capacity: int) -> DensityStats:
    """Empty statistics for N slots."""
    return DensityStats(gradients=jnp.zeros(capacity), images=jnp.zeros(capacity))


def accumulate(stats: DensityStats, probe_gradients: Array, size: tuple[int, int]) -> DensityStats:
    """Adds one batch: probe_gradients [...,N,2] of pixel positions, over every image of the batch; size (H, W)."""
    half = jnp.asarray([size[1], size[0]], jnp.float32) / 2
    norms = jnp.linalg.norm(probe_gradients * half, axis=-1).reshape(-1, probe_gradients.shape[-2])
    return DensityStats(
        gradients=stats.gradients + jnp.sum(norms, axis=0), images=stats.images + jnp.sum(norms > 0, axis=0)
    )


def densify(
    key: Array,
    gaussians: Gaussians,
    alive: Array,
    stats: DensityStats,
    *,
    gradient_ratio: float = 1.5,
    split_scale: float = 0.05,
    max_points: int | None = None,
) -> tuple[Gaussians, Array, Array, Array]:
    """Clones small and splits large Gaussians whose mean screen-space gradient is high.

    3DGS compares the gradient with a fixed number, which depends on the scale of the loss; here the threshold is
    `gradient_ratio` times the mean over the points alive, which does not. A clone is displaced by a draw from its
    Gaussian; a split does so for both halves and divides their scales by 1.6.

    Args:
      key: random key.
      gaussians: [N] slots.
      alive: [N] bool.
      stats: since the last change.
      gradient_ratio: see above.
      split_scale: world units; a Gaussian with a larger standard deviation is split, a smaller one cloned.
      max_points: at most so many alive afterwards (default: all slots).

    Returns:
      Gaussians, alive, the mask [N] of rewritten slots, and the number [] of points that found no free slot.
    """
    capacity = alive.shape[0]
    mean_gradient = stats.gradients / jnp.maximum(stats.images, 1)
    threshold = gradient_ratio * jnp.sum(mean_gradient * alive) / jnp.maximum(jnp.sum(alive), 1)
    wanted = alive & (mean_gradient > threshold) & (stats.images > 0)
    free_slots = (max_points if max_points is not None else capacity) - jnp.sum(alive)
    order = jnp.argsort(jnp.where(wanted, -mean_gradient, jnp.inf))  # strongest first: the k-th parent
    free = jnp.argsort(alive, stable=True)  # dead slots first: the k-th slot
    count = jnp.minimum(jnp.sum(wanted), jnp.maximum(free_slots, 0))
    served = jnp.arange(capacity) < count
    slots = jnp.where(served, free, capacity)  # out of bounds: not written
    parents = jnp.where(served, order, capacity)

    scales = jnp.exp(gaussians.log_scales)
    splits = jnp.max(scales, axis=-1) > split_scale
    draws = jax.random.normal(key, (2, capacity, 3)) * scales
    offsets = quaternion.rotate(gaussians.quats[None], draws)
    shrunk = gaussians.replace(
        means=gaussians.means + jnp.where(splits[:, None], offsets[0], 0.0),
        log_scales=gaussians.log_scales - jnp.where(splits, jnp.log(1.6), 0.0)[:, None],
    )
    child = shrunk.replace(means=gaussians.means + offsets[1])

    def write(old: Array, parent: Array, new: Array) -> Array:
        old = old.at[parents].set(jnp.take(parent, order, axis=0), mode="drop")
        return old.at[slots].set(jnp.take(new, order, axis=0), mode="drop")

    grown = jax.tree.map(write, gaussians, shrunk, child)
    born = jnp.zeros(capacity, bool).at[slots].set(True, mode="drop")
    changed = born | (jnp.zeros(capacity, bool).at[parents].set(True, mode="drop") & splits)
    return grown, alive | born, changed, jnp.sum(wanted) - count


def prune(gaussians: Gaussians, alive: Array, *, min_opacity: float = 0.01, max_scale: float = float("inf")) -> Array:
    """The mask `alive` [N] without Gaussians that are nearly transparent, too large (world units) or not finite."""
    opaque = jax.nn.sigmoid(gaussians.logit_opacities) >= min_opacity
    small = jnp.max(jnp.exp(gaussians.log_scales), axis=-1) <= max_scale
    return alive & opaque & small & jnp.all(jnp.isfinite(gaussians.means), axis=-1)


def anneal(gaussians: Gaussians, alive: Array, *, num_points: int) -> Array:
    """Keeps `num_points` of the alive points, chosen by farthest point sampling (paper Sec. 3.3): the new `alive`."""
    chosen = farthest_points(gaussians.means, num_points=min(num_points, alive.shape[0]), mask=alive)
    kept = jnp.zeros_like(alive).at[chosen].set(True) & alive
    return jnp.where(jnp.sum(alive) > num_points, kept, alive)


def reset_moments(optimizer: Any, changed: Array) -> Any:
    """Zeroes Adam's moments of the Gaussians in the mask `changed` [N]; `optimizer` is `build_optimizer`'s state."""
    adam, groups = optimizer

    def zero(moments: Array) -> Array:
        return jnp.where(changed.reshape(-1, *([1] * (moments.ndim - 1))), 0.0, moments)

    def clear(tree: Any) -> Any:
        return tree.replace(gaussians=jax.tree.map(zero, tree.gaussians))

    return adam._replace(mu=clear(adam.mu), nu=clear(adam.nu)), groups
