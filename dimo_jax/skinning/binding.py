"""Binds the vertices of a known surface to key points: which ones move a vertex, how much, and from where.

The vertices' true trajectories and the model's own key points over the same training motions are given. Key point k
carries a vertex v, at rest in the source's own rest pose, to R_k(t) (A_k v) + P_k(t), where the rigid A_k ("bind") is
one a key point, and a vertex is the weighted mean of what its key points make of it: linear blend skinning, as in Eq. 7
of the paper and in glTF, whose inverse bind matrices the A_k are.

Both unknowns are least squares, in turn, as in skinning decompositions (Le and Deng 2012, SSDR) but with bones whose
motion is given. The candidates of a vertex are the key points relative to which it rests most and that stay nearest,
over all motions: Eq. 3's distance between whole trajectories; it starts with what Eq. 1 would give them. For given
weights the best A_k, the others held, is a weighted Procrustes fit to the mean over time of what is left to explain, in
the key point's own frame. For given A_k the weights of a vertex are a small quadratic program on the simplex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.runtime.progress import track

NUM_CANDIDATES = 12
NUM_ROUNDS = 2
MAX_FRAMES = 64  # of all motions, for the weights; more changes nothing but time
LEAST = 1e-3  # weights below it say nothing of a bind
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
      The binding. Key points that move no vertex get their pose in the first frame.
    """
    stillness, distances, means = _compare_trajectories(truth, tracks, turns)
    score = stillness + locality * distances
    neighbors = np.argsort(score, axis=1, kind="stable")[:, :NUM_CANDIDATES]
    chosen = np.take_along_axis(score, neighbors, axis=1)
    # Eq. 1 with the mean over time in place of the canonical distance; the width is the surface's own.
    weights = np.exp(-0.5 * (chosen - chosen[:, :1]) / max(float(np.median(chosen[:, 0])), 1e-30))
    weights /= weights.sum(axis=1, keepdims=True)
    begin, few = weights, slice(None, None, -(-len(truth) // MAX_FRAMES))
    binds = _place_binds(rest, means, neighbors, weights, np.linalg.inv(_to_affine(turns[0], tracks[0]))[:, :3])
    pairs = _compare_key_points(tracks, turns)
    for _ in track(range(NUM_ROUNDS), "binding the mesh", unit="round"):
        weights = _fit_weights(rest, truth[few], tracks[few], turns[few], binds, neighbors, begin, ridge)
        binds = _refine_binds(rest, means, pairs, neighbors, weights, binds)
    order = np.argsort(-weights, axis=1, kind="stable")[:, :num_influences]
    neighbors, weights = np.take_along_axis(neighbors, order, axis=1), np.take_along_axis(weights, order, axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    return Binding(_refine_binds(rest, means, pairs, neighbors, weights, binds), neighbors, weights)


def _to_affine(turns: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Matrices [K,4,4] of rotations [K,3,3] and places [K,3]."""
    matrices = np.tile(np.eye(4), (len(turns), 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = turns, tracks
    return matrices


def _compare_trajectories(
    truth: np.ndarray, tracks: np.ndarray, turns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How vertices move relative to key points, over all frames.

    Returns:
      The variance [P,K] of the vertex in the key point's own frame (0: it moves with it rigidly), the mean squared
      distance [P,K], and the mean place [P,K,3] in that frame.
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


def _compare_key_points(tracks: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Means over all frames of key point j's pose in the frame of key point k, without k's own place: [K,K,3,4].

    Applied to a point in j's frame, [k,j] gives the mean of R_k' (R_j x + P_j).
    """
    count, num = tracks.shape[:2]
    columns = np.concatenate([turns, tracks[..., None]], axis=-1)  # [F,K,3,4]
    rows = turns.transpose(1, 3, 0, 2).reshape(3 * num, 3 * count)
    products = rows @ columns.transpose(0, 2, 1, 3).reshape(3 * count, 4 * num) / count
    return products.reshape(num, 3, num, 4).swapaxes(1, 2)


def _fit_rigid(points: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The rigid map [3,4] that brings points [n,3] nearest to targets [n,3], with weights [n] (Kabsch 1976)."""
    share = (weights / weights.sum())[:, None]
    middle, aim = (share * points).sum(axis=0), (share * targets).sum(axis=0)
    left, _, right = np.linalg.svd((share * (points - middle)).T @ (targets - aim))
    rotation = (left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right).T
    return np.column_stack([rotation, aim - rotation @ middle])


def _place_binds(
    rest: np.ndarray, means: np.ndarray, neighbors: np.ndarray, weights: np.ndarray, spare: np.ndarray
) -> np.ndarray:
    """First binds [K,3,4]: each key point by itself explains what it moves; `spare` where it moves nothing."""
    binds = spare.copy()
    vertices, slots = np.nonzero(weights > LEAST)
    owners = neighbors[vertices, slots]
    for key_point in np.unique(owners):
        mine = vertices[owners == key_point]
        binds[key_point] = _fit_rigid(rest[mine], means[mine, key_point], weights[mine, slots[owners == key_point]])
    return binds


def _refine_binds(
    rest: np.ndarray,
    means: np.ndarray,
    pairs: np.ndarray,
    neighbors: np.ndarray,
    weights: np.ndarray,
    binds: np.ndarray,
) -> np.ndarray:
    """One sweep over the key points: each bind [3,4] explains what the others leave, in the mean over all frames."""
    binds = binds.copy()
    vertices, slots = np.nonzero(weights > LEAST)
    owners = neighbors[vertices, slots]
    for key_point in np.unique(owners):
        mine, slot = vertices[owners == key_point], slots[owners == key_point]
        weight, near = weights[mine, slot], neighbors[mine]
        local = np.einsum("njab,nb->nja", binds[near, :, :3], rest[mine]) + binds[near, :, 3]
        seen = np.einsum("njab,njb->nja", pairs[key_point, near, :, :3], local) + pairs[key_point, near, :, 3]
        own = seen[np.arange(len(mine)), slot]
        # `own` is the vertex's present place in this frame, but for the key point's own mean place, which cancels.
        left = means[mine, key_point] + pairs[key_point, key_point, :, 3] - np.einsum("nj,nja->na", weights[mine], seen)
        binds[key_point] = _fit_rigid(
            rest[mine], own - pairs[key_point, key_point, :, 3] + left / weight[:, None], weight**2
        )
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
