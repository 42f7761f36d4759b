"""What hangs on each joint as four points: the middle of its vertices, and one along each axis of their spread.

Where these are tells where a joint is and how it is turned in one unit, and the sum of their squared errors is that of
the joint's vertices: a turn counts as far as it moves what is drawn.
"""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.rigs.forward import multiply
from dimo_jax.rigs.markers import Joints, collect_followers
from dimo_jax.rigs.scene import Scene

_LEAST = 0.02  # of the model's size: the spread by which a turn counts at least
_EVEN = 0.3  # of the weight that goes to all joints alike, so that fingers count beside a cloak


class Bodies(flax.struct.PyTreeNode):
    """The bodies of J joints, each in its node's frame."""

    nodes: Array  # [J] int
    frames: Array  # [J,3,4] standard deviations along the axes, and the middle
    shares: Array  # [J], sum 1


def make_bodies(scene: Scene, joints: Joints, matrices: np.ndarray, *, size: float) -> Bodies:
    """The bodies of the joints that deform a model, whose nodes stand at `matrices` [N,4,4] at rest; `size` is its."""
    followers = collect_followers(scene)
    frames, masses = [], []
    for node in joints.deforming:
        places, weights = followers[node]
        middle = weights @ places / weights.sum()
        spread = (places - middle).T * weights @ (places - middle) / weights.sum()
        scale = max(float(np.cbrt(abs(np.linalg.det(matrices[node, :3, :3])))), 1e-12)
        values, axes = np.linalg.eigh(spread)
        deviations = np.maximum(np.sqrt(np.maximum(values, 0)), _LEAST * size / scale)
        frames.append(np.concatenate([axes * deviations, middle[:, None]], axis=1))
        masses.append(weights.sum())
    shares = (1 - _EVEN) * np.array(masses) / np.sum(masses) + _EVEN / len(masses)
    return Bodies(
        nodes=jnp.asarray(joints.deforming, jnp.int32),
        frames=jnp.asarray(np.array(frames), jnp.float32),
        shares=jnp.asarray(shares, jnp.float32),
    )


def place_bodies(bodies: Bodies, matrices: Array) -> Array:
    """Frames [...,J,3,4] in the world of bodies whose nodes are at `matrices` [...,N,3,4]."""
    above = matrices[..., bodies.nodes, :3, :]
    moved = multiply(above[..., :3], bodies.frames)
    return jnp.concatenate([moved[..., :3], moved[..., 3:] + above[..., 3:]], axis=-1)


def compare_places(bodies: Bodies, found: Array, true: Array) -> Array:
    """Mean squared distance [...] of where bodies' middles are, from their frames [...,J,3,4]."""
    return (jnp.square(found[..., 3] - true[..., 3]).sum(axis=-1) * bodies.shares).sum(axis=-1)


def compare_turns(bodies: Bodies, found: Array, true: Array) -> Array:
    """Mean squared distance [...] of bodies' vertices by how these are turned, and scaled, alone."""
    return (jnp.square(found[..., :3] - true[..., :3]).sum(axis=(-2, -1)) * bodies.shares).sum(axis=-1)
