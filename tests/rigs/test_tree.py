"""Elimination along the tree, against the dense system that it stands for."""

import jax
import numpy as np

from dimo_jax.rigs.tree import Step, cross_matrix, solve_small, solve_tree

PARENTS = np.array([5, 0, 1, 1, 5])  # two roots, a fork
COUNT, FRAMES = len(PARENTS), 3


def _random_step(rng):
    root = rng.normal(size=(COUNT, FRAMES, 6, 4))
    turn = rng.normal(size=(COUNT, FRAMES, 3, 3))
    return Step(
        hessian=root @ root.swapaxes(-1, -2),
        gradient=rng.normal(size=(COUNT, FRAMES, 6)),
        arms=rng.normal(size=(COUNT, FRAMES, 3)),
        stretch=rng.normal(size=(COUNT, FRAMES, 3)),
        stiffness=rng.uniform(0.1, 3, size=(COUNT, FRAMES)),
        pull=rng.normal(size=(COUNT, FRAMES, 3)),
        inertia=rng.uniform(0.1, 1, size=FRAMES),
        turn=rng.normal(size=(COUNT, FRAMES, 3)),
        prior=turn @ turn.swapaxes(-1, -2),
        damping=rng.uniform(0.1, 1, size=FRAMES),
    )


def _solve_dense(step, frame):
    """Normal equations over all stretches and turns: x and w of every joint as linear maps of these."""
    size = 6 * COUNT
    heads, turns = np.zeros((COUNT + 1, 3, size)), np.zeros((COUNT + 1, 3, size))
    hessian, gradient = np.zeros((size, size)), np.zeros(size)
    eye = np.eye(3)
    for joint, parent in enumerate(PARENTS):
        stretch = np.zeros((3, size))
        stretch[:, 6 * joint : 6 * joint + 3] = eye
        turns[joint, :, 6 * joint + 3 : 6 * joint + 6] = eye
        lever = -np.asarray(cross_matrix(step.arms[joint, frame]))
        heads[joint] = heads[parent] + lever @ turns[parent] + stretch
        state = np.concatenate([heads[joint], turns[joint]])
        hessian += state.T @ step.hessian[joint, frame] @ state
        gradient += state.T @ step.gradient[joint, frame]
        hessian += (step.stiffness[joint, frame] + step.inertia[frame]) * stretch.T @ stretch
        gradient += stretch.T @ (step.pull[joint, frame] - step.stiffness[joint, frame] * step.stretch[joint, frame])
        relative = turns[joint] - turns[parent]
        prior = step.prior[joint, frame]
        hessian += relative.T @ (prior + step.damping[frame] * eye) @ relative
        gradient -= relative.T @ prior @ step.turn[joint, frame]
    return np.linalg.solve(hessian, gradient).reshape(COUNT, 2, 3)


def test_steps_along_the_tree_equal_dense_ones():
    step = _random_step(np.random.default_rng(0))
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), step)
    stretches, turns = jax.jit(solve_tree)(single, PARENTS)
    for frame in range(FRAMES):
        expected = _solve_dense(step, frame)
        np.testing.assert_allclose(stretches[:, frame], expected[:, 0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(turns[:, frame], expected[:, 1], rtol=1e-3, atol=1e-3)
        assert np.abs(expected).max() > 0.1


def test_small_systems():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(7, 6, 6))
    matrix, right = root @ root.swapaxes(-1, -2) + 0.5 * np.eye(6), rng.normal(size=(7, 6, 2))
    found = jax.jit(solve_small)(matrix.astype(np.float32), right.astype(np.float32))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), atol=1e-3)
