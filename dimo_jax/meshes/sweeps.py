"""Whether a part that moves runs into a body: rays along the paths of its points (embreex)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError


class Obstacle:
    """A body's triangles behind an index for rays. Its unit of length should be near the body's size (float32)."""

    def __init__(self, corners: np.ndarray) -> None:
        """Builds the index over triangles [F,3,3]."""
        try:
            from embreex import mesh_construction, rtcore_scene
        except ImportError:
            raise UserError("embreex is not installed, expected it: pip install 'dimo_jax[articulate]'") from None
        self._scene: Any = rtcore_scene.EmbreeScene()
        self._mesh = mesh_construction.TriangleMesh(self._scene, np.ascontiguousarray(corners, np.float32))
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.normals = cross / np.maximum(np.linalg.norm(cross, axis=1), 1e-30)[:, None]

    def first_hits(self, starts: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First triangle between `starts` [N,3] and `starts + moves`: index [N] (-1: none), share [N] of the way."""
        length = np.linalg.norm(moves, axis=1)
        safe = np.maximum(length, 1e-12)
        found = self._scene.run(
            np.ascontiguousarray(starts, np.float32),
            np.ascontiguousarray(moves / safe[:, None], np.float32),
            dists=np.ascontiguousarray(length, np.float32),
            output=True,
        )
        hit = found["primID"].astype(np.int64)
        hit[(found["tfar"] > length) | (length < 1e-9)] = -1
        return hit, np.clip(found["tfar"] / safe, 0, 1)


def blocked_shares(obstacle: Obstacle, paths: np.ndarray, *, depth: float, two_sided: np.ndarray) -> np.ndarray:
    """Which share of points is inside the body that it met on its way.

    A point counts at a step if its path crossed a triangle from outside and it is now deeper than `depth` behind it.
    Leaving a body that it was in at rest is free.

    Args:
      obstacle: the body.
      paths: [C,K+1,N,3] places of N points at rest and at K steps, of C motions.
      depth: what is forgiven, same unit.
      two_sided: [F] bool, triangles of the body without an inside, which block from either side.

    Returns:
      [C,K] shares in 0..1.
    """
    count, steps, num = paths.shape[0], paths.shape[1] - 1, paths.shape[2]
    starts = paths[:, :-1].reshape(-1, 3)
    moves = (paths[:, 1:] - paths[:, :-1]).reshape(-1, 3)
    hit, fraction = obstacle.first_hits(starts, moves)
    normals = obstacle.normals[np.maximum(hit, 0)]
    side = np.einsum("nd,nd->n", normals, moves)
    normals = np.where((side > 0)[:, None], -normals, normals)  # against the motion
    enters = (hit >= 0) & ((side < 0) | two_sided[np.maximum(hit, 0)])
    places = starts + fraction[:, None] * moves
    enters = enters.reshape(count, steps, num)
    first = np.where(enters.any(axis=1), enters.argmax(axis=1), steps)  # [C,N]
    index = (np.arange(count)[:, None] * steps + np.minimum(first, steps - 1)) * num + np.arange(num)
    plane, point = normals[index], places[index]  # [C,N,3]
    blocked = np.zeros((count, steps))
    for step in range(steps):
        behind = np.einsum("cnd,cnd->cn", point - paths[:, step + 1], plane)
        blocked[:, step] = ((first <= step) & (behind > depth)).mean(axis=1)
    return blocked
