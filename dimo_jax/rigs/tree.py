"""Newton steps for a tree of rigid joints in linear time: eliminated from the leaves up, substituted downwards.

A joint c has six unknowns, its stretch D (how far its head leaves its place on the parent p) and its turn w, both in
the world's axes. Its head moves by x_c = x_p + w_p x a_c + D_c, a_c from the parent's head to its own. A cost that is a
sum of terms of one joint's (x, w), of D, and of w_c - w_p has a Hessian whose blocks follow the tree, so that
eliminating children before parents fills nothing in: 50 joints cost fifty systems of size 6, not one of 300.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array


class Step(flax.struct.PyTreeNode):
    """What a Newton step minimizes, for J joints, parents first, over T frames.

    The cost is the sum over joints of (x,w) hessian (x,w) / 2 - gradient (x,w), of stiffness |D + stretch|^2 / 2
    - pull D + inertia |D|^2 / 2, and of (w - w_p + turn) prior (w - w_p + turn) / 2 + damping |w - w_p|^2 / 2.
    """

    hessian: Array  # [J,T,6,6]
    gradient: Array  # [J,T,6]
    arms: Array  # [J,T,3] from the parent's head to the joint's
    stretch: Array  # [J,T,3]
    stiffness: Array  # [J,T]
    pull: Array  # [J,T,3]
    inertia: Array  # [T]
    turn: Array  # [J,T,3]
    prior: Array  # [J,T,3,3]
    damping: Array  # [T]


def cross_matrix(v: Array) -> Array:
    """Matrices [...,3,3] whose product with a vector is the cross product of v [...,3] with it."""
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    zero = jnp.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def multiply(a: Array, b: Array) -> Array:
    """Products of matrices, in full float32 on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def solve_small(matrix: Array, right: Array) -> Array:
    """Solutions [...,n,m] of symmetric positive definite systems [...,n,n] with right sides [...,n,m]: Gauss-Jordan."""
    both = jnp.concatenate([matrix, right], axis=-1)
    size = matrix.shape[-1]
    for pivot in range(size):
        row = both[..., pivot, :] / both[..., pivot, pivot][..., None]
        factors = both[..., :, pivot].at[..., pivot].set(0.0)
        both = (both - factors[..., None] * row[..., None, :]).at[..., pivot, :].set(row)
        both = jax.lax.optimization_barrier(both)  # or XLA fuses the steps, and computes each again for each use
    return both[..., size:]


def solve_tree(step: Step, parents: Array) -> tuple[Array, Array]:
    """Minimizes a step's cost.

    Args:
      step: the terms.
      parents: [J] int, each less than its own index; J stands for the world, which does not move.

    Returns:
      Stretches D [J,T,3] and turns w [J,T,3], rotation vectors in the world's axes.
    """
    count, frames = step.gradient.shape[:2]
    eye = jnp.eye(3, dtype=step.gradient.dtype)
    hessian = jnp.concatenate([step.hessian, jnp.zeros_like(step.hessian[:1])])
    gradient = jnp.concatenate([step.gradient, jnp.zeros_like(step.gradient[:1])])

    def eliminate(sums: tuple[Array, Array], joint: Array) -> tuple[tuple[Array, Array], Array]:
        hessian, gradient = sums
        mine, pull = hessian[joint], gradient[joint]
        lever = -cross_matrix(step.arms[joint])  # w -> w x arm
        bind = step.prior[joint] + step.damping[:, None, None] * eye
        spring = (step.stiffness[joint] + step.inertia)[:, None, None] * eye
        turned = (step.prior[joint] * step.turn[joint][:, None, :]).sum(axis=-1)
        carried = jnp.concatenate([mine[..., :3], multiply(mine[..., :3], lever)], axis=-1)
        own = mine.at[:, :3, :3].add(spring).at[:, 3:, 3:].add(bind)
        mixed = carried.at[:, 3:, 3:].add(-bind)
        right = pull.at[:, :3].add(step.pull[joint] - step.stiffness[joint][:, None] * step.stretch[joint])
        right = right.at[:, 3:].add(-turned)[..., None]
        both = jnp.concatenate([mixed, right], axis=-1)
        solved = solve_small(own, both)
        above = jnp.concatenate([carried[:, :3], multiply(lever.swapaxes(-1, -2), carried[:, :3])], axis=-2)
        above = above.at[:, 3:, 3:].add(bind)
        push = jnp.concatenate([pull[:, :3], (lever * pull[:, :3, None]).sum(axis=-2) + turned], axis=-1)
        message = multiply(mixed.swapaxes(-1, -2), solved)
        hessian = hessian.at[parents[joint]].add(above - message[..., :6])
        gradient = gradient.at[parents[joint]].add(push - message[..., 6])
        return (hessian, gradient), solved

    _, solved = jax.lax.scan(eliminate, (hessian, gradient), jnp.arange(count), reverse=True)

    def substitute(moves: Array, joint: Array) -> tuple[Array, Array]:
        above = moves[parents[joint]]
        own = solved[joint][..., 6] - (solved[joint][..., :6] * above[:, None, :]).sum(axis=-1)
        head = above[:, :3] + jnp.cross(above[:, 3:], step.arms[joint]) + own[:, :3]
        return moves.at[joint].set(jnp.concatenate([head, own[:, 3:]], axis=-1)), own

    start = jnp.zeros((count + 1, frames, 6), step.gradient.dtype)
    _, own = jax.lax.scan(substitute, start, jnp.arange(count))
    return own[..., :3], own[..., 3:]
