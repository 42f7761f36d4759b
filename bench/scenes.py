"""Random scenes for the rasterizer's benchmarks.

Means: uniform directions, distance from the origin uniform in 0.3 to 0.5 (a thick shell). Standard deviations: uniform
in 0.3 to 1 times the scene's largest, per axis. Rotations: uniform. Opacities: uniform in 0.1 to 0.95. Colours: uniform
in 0 to 1, degree 0. The camera stands 2 units away and has a field of view of 33.9 degrees; a batch's cameras stand on
a circle.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Camera, Gaussians
from dimo_jax.geometry import harmonics

DISTANCE, FOV_DEG = 2.0, 33.9
# name: (Gaussians, pixels a side, largest standard deviation in world units)
SCENES = {"small": (5_000, 128, 0.020), "medium": (20_000, 256, 0.015), "large": (80_000, 512, 0.010)}


def make_gaussians(name: str, *, seed: int = 0) -> Gaussians:
    """The Gaussians of one scene."""
    count, _, largest = SCENES[name]
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    means = directions * rng.uniform(0.3, 0.5, size=(count, 1))
    opacities = rng.uniform(0.1, 0.95, size=count)
    return Gaussians(
        means=jnp.asarray(means, jnp.float32),
        log_scales=jnp.asarray(np.log(largest * rng.uniform(0.3, 1.0, size=(count, 3))), jnp.float32),
        quats=jnp.asarray(rng.normal(size=(count, 4)), jnp.float32),
        logit_opacities=jnp.asarray(np.log(opacities / (1 - opacities)), jnp.float32),
        sh=harmonics.from_rgb(jnp.asarray(rng.uniform(size=(count, 3)), jnp.float32))[:, None],
    )


def make_cameras(name: str, count: int) -> Camera:
    """`count` cameras on a circle around the scene."""
    side = SCENES[name][1]
    azimuths = tuple(360.0 * i / count for i in range(count))
    return orbit(azimuths, (0.0,), radius=DISTANCE, fov_deg=FOV_DEG, height=side, width=side)
