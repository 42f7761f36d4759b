"""Binds the vertices of a known surface to key points: which ones move a vertex, how much, and from where.

The vertices' true trajectories and the model's own key points over the same training motions are given. Key point k
carries a vertex v, at rest in the source's own rest pose, to R_k(t) (A_k v) + P_k(t), where the rigid A_k ("bind") is
one a key point, and a vertex is the weighted mean of what its key points make of it: linear blend skinning, as in Eq. 7
of the paper and in glTF, whose inverse bind matrices the A_k are.

Both unknowns are least squares, in turn. For given weights the best A_k is a weighted Procrustes fit to the mean over
time of the true vertices in the key point's own frame. For given A_k the weights of a vertex are a small quadratic
program on the simplex. The candidates of a vertex are the key points relative to which it rests most and that stay
nearest, over all motions: Eq. 3's distance between whole trajectories, and what Eq. 1 would weigh is where they start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

NUM_CANDIDATES = 12
NUM_ROUNDS = 2
MAX_FRAMES = 64  # of all motions, for the weights; more changes nothing but time
_CHUNK = 512  # vertices at a time


@dataclass(frozen=True, eq=False)
class Binding:
    """How P vertices follow K key points."""

    binds: np.ndarray  # [K,3,4] rigid: rest pose to the key point's own frame
    neighbors: np.ndarray  # [P,J] int
    weights: np.ndarray  # [P,J], rows summing to 1

    def pose(self, rest: np.ndarray, tracks: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """Vertices at one time: rest [P,3], tracks [K,3] and rotation matrices [K,3,3] -> [P,3]."""
        moved = np.zeros_like(rest)
        for nearest, weight in zip(self.neighbors.T, self.weights.T):
            local = np.einsum("pab,pb->pa", self.binds[nearest, :, :3], rest) + self.binds[nearest, :, 3]
            moved += weight[:, None] * (np.einsum("pab,pb->pa", turns[nearest], local) + tracks[nearest])
        return moved


def fit_binding(
    rest: np.ndarray,
    truth: np.ndarray,
    tracks: np.ndarray,
    turns: np.ndarray,
    *,
    num_influences: int = 8,
    locality: float = 0.3,
    ridge: float = 0.05,
) -> Binding:
    """Fits a binding to true trajectories.

    Args:
      rest: [P,3] vertices in the rest pose.
      truth: [F,P,3] true vertices in F frames of any motions.
      tracks: [F,K,3] key points of the model in those frames.
      turns: [F,K,3,3] their rotations.
      num_influences: key points of a vertex at most.
      locality: how much the distance to a key point counts, beside how still the vertex rests relative to it, when
        candidates are chosen.
      ridge: pull of the weights towards those they start from, as a share of the mean squared error.

    Returns:
      The binding. Key points that move no vertex get the bind of the first frame.
    """
    stillness, distances, means = _compare_trajectories(truth, tracks, turns)
    score = stillness + locality * distances
    neighbors = np.argsort(score, axis=1, kind="stable")[:, :NUM_CANDIDATES]
    chosen = np.take_along_axis(score, neighbors, axis=1)
    # Eq. 1 with the mean over time in place of the canonical distance; the width is the surface's own.
    weights = np.exp(-0.5 * (chosen - chosen[:, :1]) / max(float(np.median(chosen[:, 0])), 1e-30))
    weights /= weights.sum(axis=1, keepdims=True)
    begin, few = weights, slice(None, None, -(-len(truth) // MAX_FRAMES))
    spare = np.concatenate([turns[0].swapaxes(-1, -2), np.zeros((tracks.shape[1], 3, 1))], axis=-1)
    spare[:, :, 3] = -np.einsum("kab,kb->ka", spare[:, :, :3], tracks[0])
    binds = spare
    for _ in tqdm(range(NUM_ROUNDS), desc="binding the mesh", unit="round", delay=2.0, leave=False):
        binds = _fit_binds(rest, means, neighbors, weights, spare)
        weights = _fit_weights(rest, truth[few], tracks[few], turns[few], binds, neighbors, begin, ridge)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :num_influences]
    neighbors, weights = np.take_along_axis(neighbors, order, axis=1), np.take_along_axis(weights, order, axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    return Binding(_fit_binds(rest, means, neighbors, weights, spare), neighbors, weights)


def _compare_trajectories(
    truth: np.ndarray, tracks: np.ndarray, turns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How vertices move relative to key points, over all frames.

    Returns:
      The variance [P,K] of the vertex in the key point's own frame (0: it moves with it rigidly), the mean squared
      distance [P,K], and the mean position [P,K,3] in that frame.
    """
    count, num_vertices = truth.shape[:2]
    num_key_points = tracks.shape[1]
    columns = truth.transpose(0, 2, 1).reshape(3 * count, num_vertices)
    to_local = turns.transpose(1, 3, 0, 2).reshape(3 * num_key_points, 3 * count)
    own = np.einsum("fkab,fka->kb", turns, tracks) / count
    means = (to_local @ columns / count).reshape(num_key_points, 3, num_vertices).transpose(2, 0, 1) - own
    cross = columns.T @ tracks.transpose(0, 2, 1).reshape(3 * count, num_key_points)
    squares = (truth**2).sum(axis=(0, 2))[:, None] + (tracks**2).sum(axis=(0, 2))
    distances = np.maximum((squares - 2 * cross) / count, 0)
    return np.maximum(distances - (means**2).sum(axis=-1), 0), distances, means


def _fit_binds(
    rest: np.ndarray, means: np.ndarray, neighbors: np.ndarray, weights: np.ndarray, spare: np.ndarray
) -> np.ndarray:
    """The rigid maps [K,3,4] that bring rest vertices nearest to their mean places in each key point's frame."""
    binds = spare.copy()
    vertices, slots = np.nonzero(weights > 1e-4)
    owners = neighbors[vertices, slots]
    for key_point in np.unique(owners):
        mine = owners == key_point
        weight = weights[vertices[mine], slots[mine]][:, None]
        points, targets = rest[vertices[mine]], means[vertices[mine], key_point]
        middle, aim = ((weight * each).sum(axis=0) / weight.sum() for each in (points, targets))
        left, _, right = np.linalg.svd((weight * (points - middle)).T @ (targets - aim))
        flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
        rotation = (left @ flip @ right).T
        binds[key_point] = np.column_stack([rotation, aim - rotation @ middle])
    return binds


def _fit_weights(
    rest: np.ndarray,
    truth: np.ndarray,
    tracks: np.ndarray,
    turns: np.ndarray,
    binds: np.ndarray,
    neighbors: np.ndarray,
    begin: np.ndarray,
    ridge: float,
) -> np.ndarray:
    """Weights [P,C] on the simplex that bring posed vertices nearest to the truth, over all frames."""
    weights = np.empty_like(begin)
    truth, tracks, turns = (each.astype(np.float32) for each in (truth, tracks, turns))
    for start in range(0, len(rest), _CHUNK):
        rows = slice(start, start + _CHUNK)
        errors = np.empty((*neighbors[rows].shape, len(truth), 3), np.float32)
        for slot, nearest in enumerate(neighbors[rows].T):
            local = np.einsum("pab,pb->pa", binds[nearest, :, :3], rest[rows]) + binds[nearest, :, 3]
            posed = (
                np.matmul(turns[:, nearest], local.astype(np.float32)[None, :, :, None])[..., 0] + tracks[:, nearest]
            )
            errors[:, slot] = (posed - truth[:, rows]).swapaxes(0, 1)
        flat = errors.reshape(*errors.shape[:2], -1)
        products = np.matmul(flat, flat.swapaxes(1, 2)).astype(np.float64) / len(truth)
        pull = ridge * np.trace(products, axis1=1, axis2=2)[:, None] / products.shape[1]
        products += (pull[..., None] + 1e-12) * np.eye(products.shape[1])
        weights[rows] = minimize_on_simplex(products, pull * begin[rows])
    return weights


def minimize_on_simplex(products: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Minimizes w' E w / 2 - h' w over w >= 0 that sum to 1, for many small problems.

    An active-set descent that drops the most negative weight of each problem until none is left: exact where no dropped
    weight would return, which is the usual case for these problems, and feasible always.

    Args:
      products: E [n,C,C], symmetric and positive definite.
      linear: h [n,C].

    Returns:
      w [n,C].
    """
    num, size = linear.shape
    active = np.ones((num, size), bool)
    solution = np.full((num, size), 1 / size)
    for _ in range(size):
        system = np.zeros((num, size + 1, size + 1))
        system[:, :size, :size] = products * (active[:, :, None] & active[:, None])
        system[:, np.arange(size), np.arange(size)] += ~active
        system[:, :size, size] = system[:, size, :size] = active
        right = np.concatenate([linear * active, np.ones((num, 1))], axis=1)
        solution = np.linalg.solve(system, right[..., None])[:, :size, 0]
        wrong = np.flatnonzero((solution < 0).any(axis=1))
        if not len(wrong):
            break
        active[wrong, solution[wrong].argmin(axis=1)] = False
    solution = np.maximum(solution, 0)
    return solution / solution.sum(axis=1, keepdims=True)
