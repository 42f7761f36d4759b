"""Levenberg-Marquardt on points of a tree of rigid joints, for all frames at once, each step solved along the tree."""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.geometry import quaternion
from dimo_jax.rigs.tree import Step, cross_matrix, solve_tree

HARD = 1e6  # stiffness of a bone that keeps its length
DAMPING = (1e-7, 1e-3, 1e3)  # smallest, first and largest
ROUND = 32  # numbers of joints, points and frames are rounded up to its multiples


class Problem(flax.struct.PyTreeNode):
    """What is fitted: J solved joints, M points, T frames (or 1, which stands for all). Lengths in the rig's size."""

    parents: Array  # [J], J for the topmost
    ancestors: Array  # [J,J] 1 where the column is the row or above it
    arms: Array  # [J,T,3] in the parent's frame, at rest; a topmost's place in the world
    rests: Array  # [J,T,4] turn against the parent, at rest
    priors: Array  # [J,T,3,3] of the turn away from rest, in the frame at rest
    stiffness: Array  # [J]
    still_turns: Array  # [J,T,4] in the world, at rest
    still_heads: Array  # [J,T,3]
    still_points: Array  # [M,T,3]
    joints: Array  # [M] place among the solved
    offsets: Array  # [M,T,3] in the joint's frame
    targets: Array  # [M,T,3]
    confidences: Array  # [M,T]
    facings: Array  # [J,T,4] orientations to meet
    facing_confidences: Array  # [J,T]
    smooth: Array  # [T] weight of the second difference of turns, and of places, about each frame


def _above(problem: Problem, values: Array, outside: Array) -> Array:
    """Values [J,T,...] of the joints' parents; `outside` for the topmost."""
    padded = jnp.concatenate([values, jnp.broadcast_to(outside, (1, *values.shape[1:]))])
    return padded[problem.parents]


def place_points(problem: Problem, turns: Array, moves: Array) -> tuple[Array, Array]:
    """Heads [J,T,3] and points [M,T,3] of joints that are turned and, in their parent's frame, moved."""
    lever = quaternion.rotate(_above(problem, turns, quaternion.identity()), problem.arms + moves)
    heads = (problem.ancestors[:, :, None, None] * lever[None]).sum(axis=1)
    return heads, heads[problem.joints] + quaternion.rotate(turns[problem.joints], problem.offsets)


def _turn_from_rest(problem: Problem, turns: Array) -> tuple[Array, Array]:
    """How far joints are turned from where their parents' turns alone would have them: [J,T,3], and that frame."""
    expected = quaternion.multiply(_above(problem, turns, quaternion.identity()), problem.rests)
    return quaternion.to_axis_angle(quaternion.multiply(turns, quaternion.conjugate(expected))), expected


def _curve(values: Array) -> Array:
    """Second differences along axis 1, with as many entries, 0 at the ends."""
    inner = values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]
    return jnp.pad(inner, [(0, 0), (1, 1), (0, 0)]) if values.shape[1] > 2 else jnp.zeros_like(values)


def _bend(turns: Array) -> Array:
    """Second differences of rotations [J,T,4] along time, as rotation vectors [J,T,3]; 0 at the ends."""
    if turns.shape[1] < 3:
        return jnp.zeros_like(turns[..., 1:])
    speed = quaternion.to_axis_angle(quaternion.multiply(turns[:, 1:], quaternion.conjugate(turns[:, :-1])))
    return jnp.pad(speed[:, 1:] - speed[:, :-1], [(0, 0), (1, 1), (0, 0)])


def _spread(bends: Array) -> Array:
    """The transpose of second differences: what each frame's value does to all of them."""
    padded = jnp.pad(bends, [(0, 0), (1, 1), (0, 0)])
    return padded[:, 2:] - 2 * bends + padded[:, :-2]


def _cost(problem: Problem, turns: Array, moves: Array) -> Array:
    """Twice the cost of each frame [T]; a curve in time counts at its middle frame."""
    _, points = place_points(problem, turns, moves)
    away, expected = _turn_from_rest(problem, turns)
    away = quaternion.rotate(quaternion.conjugate(expected), away)
    off = quaternion.to_axis_angle(quaternion.multiply(problem.facings, quaternion.conjugate(turns)))
    total = (problem.confidences * jnp.square(points - problem.targets).sum(-1)).sum(0)
    total += (problem.stiffness[:, None] * jnp.square(moves).sum(-1)).sum(0)
    total += ((problem.priors * away[..., None, :]).sum(-1) * away).sum(-1).sum(0)
    total += (problem.facing_confidences * jnp.square(off).sum(-1)).sum(0)
    bends = jnp.square(_bend(turns)) + jnp.square(_curve(moves))
    return total + problem.smooth * bends.sum(-1).sum(0)


def _linearize(problem: Problem, turns: Array, moves: Array, damping: Array) -> Step:
    """The Gauss-Newton step's terms. Curves in time are bounded by what is separate in frames (their largest, 16)."""
    _, points = place_points(problem, turns, moves)
    up = _above(problem, turns, quaternion.identity())
    levers = quaternion.rotate(turns[problem.joints], problem.offsets)
    misses, weights = points - problem.targets, problem.confidences[..., None, None]
    lever = cross_matrix(levers)
    eye = jnp.broadcast_to(jnp.eye(3), lever.shape)
    top = jnp.concatenate([eye, -lever], axis=-1)
    square = (lever[..., :, :, None] * lever[..., :, None, :]).sum(axis=-3)
    hessians = weights * jnp.concatenate([top, jnp.concatenate([lever, square], axis=-1)], axis=-2)
    gradients = -weights[..., 0] * jnp.concatenate([misses, jnp.cross(levers, misses)], axis=-1)
    count, frames = moves.shape[:2]
    hessian = jnp.zeros((count, frames, 6, 6)).at[problem.joints].add(hessians)
    gradient = jnp.zeros((count, frames, 6)).at[problem.joints].add(gradients)
    off = quaternion.to_axis_angle(quaternion.multiply(problem.facings, quaternion.conjugate(turns)))
    aim = problem.facing_confidences[..., None]
    smooth, bound = problem.smooth[:, None], 16 * problem.smooth.max()
    hessian = hessian.at[..., 3:, 3:].add((aim + bound)[..., None] * jnp.eye(3))
    gradient = gradient.at[..., 3:].add(aim * off - _spread(smooth * _bend(turns)))
    away, expected = _turn_from_rest(problem, turns)
    axes = quaternion.to_matrix(expected)
    turned = (axes[..., :, :, None] * problem.priors[..., None, :, :]).sum(axis=-2)
    return Step(
        hessian=hessian,
        gradient=gradient,
        arms=quaternion.rotate(up, problem.arms + moves),
        stretch=quaternion.rotate(up, moves),
        stiffness=jnp.broadcast_to(problem.stiffness[:, None], (count, frames)),
        pull=-quaternion.rotate(up, _spread(smooth * _curve(moves))),
        inertia=damping + bound,
        turn=away,
        prior=(turned[..., :, None, :] * axes[..., None, :, :]).sum(axis=-1),
        damping=damping,
    )


def _align(problem: Problem, weights: Array, joint: Array) -> tuple[Array, Array, Array, Array]:
    """What turns a joint as a whole towards points below it, of weights [M,T].

    Returns:
      The correlation [T,3,3] of their places with those at rest in the joint's frame, both about their centres, these
      centres [T,3], and how far the points are spread [T,1].
    """
    total = jnp.maximum(weights.sum(axis=0), 1e-12)[:, None]
    rest = jnp.broadcast_to(problem.still_points - problem.still_heads[joint], problem.targets.shape)
    rest = quaternion.rotate(quaternion.conjugate(problem.still_turns[joint]), rest)
    center, rest_center = ((weights[..., None] * each).sum(axis=0) / total for each in (problem.targets, rest))
    ends, arms = problem.targets - center, rest - rest_center
    pull = (weights[..., None, None] * ends[..., :, None] * arms[..., None, :]).sum(axis=0)
    return pull, center, rest_center, (weights * jnp.square(arms).sum(-1)).sum(axis=0)[:, None]


def _start(problem: Problem) -> tuple[Array, Array]:
    """Turns and moves from the root down: every joint turns what hangs on it to its targets, as little as it can."""
    count, frames = problem.facings.shape[:2]
    is_head = jnp.all(problem.offsets == 0, axis=-1).all(axis=-1)
    sure = jnp.where(is_head[:, None], problem.confidences, 0.0)
    weight = jnp.zeros((count + 1, frames)).at[problem.joints].add(sure)
    seen = jnp.zeros((count + 1, frames, 3)).at[problem.joints].add(sure[..., None] * problem.targets)
    seen = seen / jnp.maximum(weight, 1e-12)[..., None]
    children = problem.parents[None, :] == jnp.arange(count)[:, None]
    hung = problem.joints[None, :] == jnp.arange(count)[:, None]
    below = problem.ancestors[problem.joints].T  # [J,M]

    def turn(state: tuple[Array, Array], joint: Array) -> tuple[tuple[Array, Array], None]:
        turns, places = state
        above, known = problem.parents[joint], weight[joint][:, None] > 0
        expected = quaternion.multiply(turns[above], jnp.broadcast_to(problem.rests[joint], (frames, 4)))
        place = jnp.where(known, seen[joint], places[above] + quaternion.rotate(turns[above], problem.arms[joint]))
        ends = jnp.concatenate([seen[:count], problem.targets]) - place
        arms = jnp.concatenate([jnp.broadcast_to(problem.arms, (count, frames, 3)),
                                jnp.broadcast_to(problem.offsets, problem.targets.shape)])  # fmt: skip
        shares = jnp.concatenate([children[joint][:, None] * (weight[:count] > 0),
                                  hung[joint][:, None] * problem.confidences])  # fmt: skip
        whole, center, rest_center, any_below = _align(problem, below[joint][:, None] * problem.confidences, joint)
        pull = (shares[..., None, None] * ends[..., :, None] * arms[..., None, :]).sum(axis=0)
        pull = jnp.where(known[..., None], pull, whole)
        scale = jnp.where(known, (shares * jnp.square(arms).sum(-1)).sum(axis=0)[:, None], any_below)
        pull = pull + 1e-3 * (scale + 1e-8)[..., None] * quaternion.to_matrix(expected)
        u, _, vt = jnp.linalg.svd(pull)
        u = u.at[..., :, 2].multiply(jnp.linalg.det(u @ vt)[..., None])
        turned = quaternion.from_matrix(u @ vt)
        moved = center - quaternion.rotate(turned, rest_center)
        place = jnp.where(known | (any_below == 0), place, moved)
        return (turns.at[joint].set(turned), places.at[joint].set(place)), None

    zeros = jnp.zeros((count + 1, frames, 3))
    (turns, places), _ = jax.lax.scan(
        turn, (jnp.tile(quaternion.identity(), (count + 1, frames, 1)), zeros), jnp.arange(count)
    )
    up = turns[problem.parents]
    moves = quaternion.rotate(quaternion.conjugate(up), places[:count] - places[problem.parents]) - problem.arms
    soft = problem.stiffness < HARD
    return turns[:count], jnp.where(soft[:, None, None], moves, 0.0)


def fit_points(problem: Problem, num_iterations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fits all frames.

    Returns:
      Turns [J,T,4] of the joints in the world, moves [J,T,3] of their heads in their parents' frames, and where that
      puts heads [J,T,3] and points [M,T,3].
    """
    (count, frames), points = problem.facings.shape[:2], len(problem.joints)
    found = [np.asarray(each)[:, :frames] for each in _fit(_pad(problem), num_iterations)]
    return found[0][:count], found[1][:count], found[2][:count], found[3][:points]


def _pad(problem: Problem) -> Problem:
    """The problem with joints, points and frames that change nothing, so that few sizes are compiled.

    In NumPy: each operation of JAX would be compiled anew for every size that it is given.
    """
    (count, frames), points = problem.facings.shape[:2], len(problem.joints)
    more, later, beside = (-size % ROUND for size in (count, frames, points))

    base = later if problem.arms.shape[1] > 1 else 0  # one frame that stands for all still does

    def grow(values: Array | np.ndarray, *added: int) -> Array:
        widths = [(0, extra) for extra in added] + [(0, 0)] * (values.ndim - len(added))
        return jnp.asarray(np.pad(np.asarray(values), widths, mode="edge"))

    def pad(values: Array | np.ndarray, *widths: tuple[int, int], value: float = 0) -> Array:
        return jnp.asarray(np.pad(np.asarray(values), widths, constant_values=value))

    parents = np.asarray(problem.parents)
    inner = np.where(parents == count, count + more, parents)
    return Problem(
        parents=pad(inner, (0, more), value=count + more),
        ancestors=pad(problem.ancestors, (0, more), (0, more)),
        arms=grow(pad(problem.arms, (0, more), (0, 0), (0, 0)), 0, base),
        rests=grow(problem.rests, more, base),
        priors=grow(problem.priors, more, base),
        stiffness=pad(problem.stiffness, (0, more), value=1.0),
        still_turns=grow(problem.still_turns, more, base),
        still_heads=grow(problem.still_heads, more, base),
        still_points=grow(problem.still_points, beside, base),
        joints=pad(problem.joints, (0, beside)),
        offsets=grow(problem.offsets, beside, base),
        targets=grow(problem.targets, beside, later),
        confidences=pad(problem.confidences, (0, beside), (0, later)),
        facings=grow(problem.facings, more, later),
        facing_confidences=pad(problem.facing_confidences, (0, more), (0, later)),
        smooth=pad(problem.smooth, (0, later)),
    )


_Search = tuple[Array, Array, Array, Array]  # turns, moves, cost and damping


@functools.partial(jax.jit, static_argnums=1)
def _fit(problem: Problem, num_iterations: int) -> tuple[Array, Array, Array, Array]:
    """What `fit_points` returns."""
    frames = problem.facings.shape[1]
    low, first, high = DAMPING

    def improve(state: _Search, _: None) -> tuple[_Search, None]:
        turns, moves, cost, damping = state
        step = _linearize(problem, turns, moves, damping)
        stretch, turn = solve_tree(step, problem.parents)
        up = _above(problem, turns, quaternion.identity())
        new_turns = quaternion.normalize(quaternion.multiply(quaternion.from_axis_angle(turn), turns))
        new_moves = moves + quaternion.rotate(quaternion.conjugate(up), stretch)
        new_cost = _cost(problem, new_turns, new_moves)
        better = new_cost < cost  # false where it is NaN
        turns = jnp.where(better[:, None], new_turns, turns)
        moves = jnp.where(better[:, None], new_moves, moves)
        damping = jnp.clip(jnp.where(better, damping / 5, damping * 4), low, high)
        cost = _cost(problem, turns, moves)
        return (turns, moves, cost, damping), None

    turns, moves = _start(problem)
    state = (turns, moves, _cost(problem, turns, moves), jnp.full((frames,), first))
    (turns, moves, _, _), _ = jax.lax.scan(improve, state, None, length=num_iterations)
    return turns, moves, *place_points(problem, turns, moves)
