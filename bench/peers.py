"""Other rasterizers on the same scene, where they are installed: splax (JAX) and gsplat (torch), both for CUDA.

A peer gives the same two functions: a picture, and a picture with the gradients by every parameter of the Gaussians
for fixed cotangents. What they draw differs in the last digits of the contract (thresholds), hence the loose agreement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from bench.timing import median_ms
from dimo_jax.core.types import Camera, Gaussians

FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")


class Peer(NamedTuple):
    """A peer ready to run: milliseconds forward and forward + backward, and its picture [H,W,3]."""

    forward_ms: float
    both_ms: float
    picture: np.ndarray


def run_splax(gaussians: Gaussians, camera: Camera, repeats: int) -> Peer:
    """splax.render; raises ImportError where it is not installed."""
    import splax

    focal, center = (tuple(float(x) for x in value) for value in (camera.focal, camera.center))

    def draw(parameters: tuple[jax.Array, ...]) -> jax.Array:
        picture, _ = splax.render(
            *parameters,
            viewmat=camera.world_to_camera,
            background=jax.numpy.ones(3),
            img_shape=(camera.height, camera.width),
            f=focal,
            c=center,
        )
        return picture

    names = ("means", "log_scales", "quats", "sh", "logit_opacities")
    parameters = tuple(getattr(gaussians, name) for name in names)
    forward = jax.jit(draw)
    both = jax.jit(jax.value_and_grad(lambda p: draw(p).sum()))
    return Peer(
        forward_ms=median_ms(forward, parameters, repeats=repeats),
        both_ms=median_ms(both, parameters, repeats=repeats),
        picture=np.asarray(forward(parameters)),
    )


def run_gsplat(gaussians: Gaussians, camera: Camera, repeats: int) -> Peer:
    """gsplat.rasterization; raises ImportError where it or torch is not installed."""
    import torch
    from gsplat import rasterization

    tensors = {name: torch.tensor(np.asarray(getattr(gaussians, name)), device="cuda") for name in FIELDS}
    for tensor in tensors.values():
        tensor.requires_grad_()
    pose = torch.tensor(np.asarray(camera.world_to_camera), device="cuda")[None]
    (fx, fy), (cx, cy) = np.asarray(camera.focal).tolist(), np.asarray(camera.center).tolist()
    intrinsics = torch.tensor([[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]], device="cuda")
    background = torch.ones((1, 3), device="cuda")

    def draw() -> Any:
        return rasterization(
            tensors["means"],
            tensors["quats"],
            tensors["log_scales"].exp(),
            tensors["logit_opacities"].sigmoid(),
            tensors["sh"],
            pose,
            intrinsics,
            camera.width,
            camera.height,
            sh_degree=0,
            backgrounds=background,
        )[0][0]

    def measure(call: Callable[[], Any]) -> float:
        call()
        seconds = []
        for _ in range(repeats):
            torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return 1e3 * float(np.median(seconds))

    with torch.no_grad():
        forward_ms = measure(draw)
    both_ms = measure(lambda: draw().sum().backward())
    return Peer(forward_ms, both_ms, draw().detach().cpu().numpy())


PEERS = {"splax": run_splax, "gsplat": run_gsplat}
