"""A small motion with known answers, for tests of exports."""

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Gaussians
from dimo_jax.io.motion import Motion, skin_points


def turn_about(axis, angle):
    """Unit quaternions wxyz [...,4] about axes [...,3] by angles [...]."""
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle / 2)[..., None], np.sin(angle / 2)[..., None] * axis], axis=-1)


def make_motion(*, num=30, num_key_points=10, num_neighbors=8, num_frames=5, degree=0, seed=0):
    """Gaussians moved by key points that travel and turn; the last Gaussian is dead, the one before it invalid."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    rest = normal(num_key_points, 3)
    steps = np.arange(num_frames)[:, None]
    turns = turn_about(normal(num_key_points, 3)[None].repeat(num_frames, 0), 0.3 * steps * normal(num_key_points))
    tracks = rest + 0.1 * steps[..., None] * normal(num_key_points, 3)
    weights = rng.uniform(0.05, 1, (num, num_neighbors))
    neighbors = np.stack([rng.permutation(num_key_points)[:num_neighbors] for _ in range(num)])
    means, logits = normal(num, 3), normal(num)
    logits[-1], means[-2, 0] = -np.inf, np.nan
    motion = Motion(
        name="walk",
        frame_rate=10.0,
        times=np.arange(num_frames, dtype=np.float32) / num_frames,
        codes=normal(num_frames, 4),
        canonical=Gaussians(means, normal(num, 3) - 3, normal(num, 4), logits, normal(num, (degree + 1) ** 2, 3)),
        means=np.zeros((num_frames, num, 3), np.float32),
        quats=normal(num_frames, num, 4),
        rest=rest,
        radii=np.ones(num_key_points, np.float32),
        tracks=tracks.astype(np.float32),
        turns=turns.astype(np.float32),
        neighbors=neighbors,
        weights=(weights / weights.sum(1, keepdims=True)).astype(np.float32),
    )
    motion.means[:] = skin_points(motion, motion.neighbors, motion.weights)
    return motion


def as_jax(gaussians):
    return gaussians.replace(**{name: jnp.asarray(value) for name, value in vars(gaussians).items()})
