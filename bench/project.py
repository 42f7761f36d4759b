"""Projection alone: XLA's and the native backend's, forward and with its derivative, at the demo's batch.

    python -m bench.project [--degree=3]

Random Gaussians of 8 motions x 3 times, one camera for each motion; which of their parameters differ between the
images is as in training: means and rotations do, the rest does too once `vmap` has stacked it. Milliseconds, median
and smallest of --repeats runs that take turns.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from bench.timing import compile_for
from dimo_jax.core.types import Camera, Gaussians
from dimo_jax.render import project
from dimo_jax.render.rasterize import api

MOTIONS, VIEWS, TIMES = 8, 1, 3
NUM = flags.DEFINE_integer("num", 5_120, "Gaussians")
SIZE = flags.DEFINE_integer("size", 128, "pixels")
DEGREE = flags.DEFINE_integer("degree", 0, "of the spherical harmonics, 0..3")
REPEATS = flags.DEFINE_integer("repeats", 31, "runs of each")


def make_scene() -> tuple[Gaussians, Camera]:
    """Gaussians [M,F,N,...] in a ball of radius 0.5, cameras [M,V,...] two units away."""
    rng = np.random.default_rng(0)
    lead = (MOTIONS, TIMES, NUM.value)
    means = rng.normal(size=(*lead, 3))
    means *= 0.5 * rng.uniform(size=(*lead, 1)) ** (1 / 3) / np.linalg.norm(means, axis=-1, keepdims=True)
    arrays = dict(
        means=means,
        log_scales=rng.uniform(-5.5, -3.5, size=(*lead, 3)),
        quats=rng.normal(size=(*lead, 4)),
        logit_opacities=rng.uniform(-3, 4, size=lead),
        sh=0.5 * rng.normal(size=(*lead, (DEGREE.value + 1) ** 2, 3)),
    )
    gaussians = Gaussians(**{name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()})
    world_to_camera = jnp.broadcast_to(jnp.eye(4).at[2, 3].set(2.0), (MOTIONS, VIEWS, 4, 4))
    focal = SIZE.value / 2 / np.tan(np.radians(33.9) / 2)
    camera = Camera(
        world_to_camera=world_to_camera,
        focal=jnp.full((MOTIONS, VIEWS, 2), focal, jnp.float32),
        center=jnp.full((MOTIONS, VIEWS, 2), SIZE.value / 2, jnp.float32),
        height=SIZE.value,
        width=SIZE.value,
    )
    return gaussians, camera


def over_images(function: Callable[..., Any]) -> Callable[..., Any]:
    over_frames = jax.vmap(function, in_axes=(0, None))
    return jax.vmap(jax.vmap(over_frames, in_axes=(None, 0)))


def main(argv: list[str]) -> None:
    del argv
    gaussians, camera = make_scene()
    print(
        f"{jax.devices()[0].device_kind}, {jax.local_device_count()} device: {MOTIONS * VIEWS * TIMES} images x "
        f"{NUM.value} Gaussians, degree {DEGREE.value}, {SIZE.value} px"
    )
    calls = {}
    for name in ("xla", "native"):
        reason = api.why_unavailable(name)
        if reason is not None:
            print(f"{name:8s} left out: {reason}")
            continue
        forward = over_images(functools.partial(project, implementation=name))

        def both(gaussians: Gaussians, forward: Callable[..., Any] = forward) -> Any:
            splats, pull = jax.vjp(lambda g: forward(g, camera), gaussians)
            return splats, pull(jax.tree.map(jnp.ones_like, splats))

        calls[name] = (
            compile_for(lambda g, forward=forward: forward(g, camera), gaussians),
            compile_for(both, gaussians),
        )
    seconds: dict[tuple[str, int], list[float]] = {(name, i): [] for name in calls for i in range(2)}
    for repeat in range(REPEATS.value + 1):
        for (name, i), found in seconds.items():
            start = time.perf_counter()
            jax.block_until_ready(calls[name][i](gaussians))
            if repeat:  # the first does not count
                found.append(time.perf_counter() - start)
    print(f"{'':8s} {'forward':>17s} {'forward+backward':>17s}   (median, smallest)")
    for name in calls:
        row = [f"{1e3 * np.median(seconds[name, i]):8.1f} {1e3 * min(seconds[name, i]):8.1f}" for i in range(2)]
        print(f"{name:8s} {row[0]} {row[1]} ms")


if __name__ == "__main__":
    app.run(main)
