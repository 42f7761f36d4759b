"""Moves points by a few key points: weights of Eq. 1, linear blend skinning of Eq. 7.

    python examples/02_skin_points.py --out=out

A bar bends with five key points. Colours are weights: the larger a control radius, the further a key point reaches.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import dimo_jax as dj

COLORS = np.array([[0.90, 0.22, 0.20], [0.95, 0.65, 0.10], [0.25, 0.65, 0.30], [0.15, 0.50, 0.85], [0.55, 0.30, 0.75]])


def bend(positions, angle):
    """Poses of key points [K,3] that lay the x axis along an arc of `angle` radians: translations, rotations wxyz."""
    angle = max(angle, 1e-3)  # an arc all the same, whose radius is finite
    turned, radius = angle * positions[:, 0], 1 / angle
    moved = jnp.stack([radius * jnp.sin(turned), radius * (1 - jnp.cos(turned)), 0 * turned], axis=-1)
    return moved - positions, jnp.stack([jnp.cos(turned / 2), 0 * turned, 0 * turned, jnp.sin(turned / 2)], axis=-1)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="out", help="folder for what is written")
parser.add_argument("--tiny", action="store_true", help="as small as it gets, for tests")
args = parser.parse_args()
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)

num_points, size = (200, 48) if args.tiny else (6_000, 192)
points = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (num_points, 3)) * [0.5, 0.08, 0.08], jnp.float32)
quats = jnp.tile(jnp.array([1.0, 0, 0, 0]), (num_points, 1))
positions = jnp.stack([jnp.linspace(-0.4, 0.4, 5), jnp.zeros(5), jnp.zeros(5)], axis=-1)
neighbors = jnp.tile(jnp.arange(5), (num_points, 1))  # every key point may move every point
camera = dj.orbit_camera(elevation=15, size=size)

rows = []
for reach in (0.05, 0.25):  # control radii as lengths; r_k of Eq. 1 is their square
    log_radii = jnp.full(neighbors.shape, 2 * np.log(reach))
    weights = dj.rbf_weights(points, positions[neighbors], log_radii)
    for angle in (0.0, 1.5, 3.0):
        means, turned = dj.linear_blend(points, quats, positions, *bend(positions, angle), neighbors, weights)
        bar = dj.Gaussians(
            means=means,
            log_scales=jnp.full((num_points, 3), np.log(0.03 if args.tiny else 0.012)),
            quats=turned,
            logit_opacities=jnp.full(num_points, 3.0),
            sh=(weights @ COLORS - 0.5)[:, None].astype(jnp.float32) / 0.2820948,
        )
        rows.append(np.asarray(dj.render(bar, camera).rgb))
labels = dict(row_labels=["radius 0.05", "radius 0.25"], column_labels=["at rest", "1.5 rad", "3 rad"])
dj.tile(np.reshape(rows, (2, 3, size, size, 3)), **labels).save(out / "skinning.png")
print(f"a bar, bent by five key points: {out / 'skinning.png'}")
