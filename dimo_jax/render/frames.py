"""Many pictures at once: Gaussians over time, seen by one camera or by several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from dimo_jax.core.types import Array, Camera, Gaussians
from dimo_jax.render.pipeline import render
from dimo_jax.render.project import DILATION
from dimo_jax.render.rasterize.api import first_capacity

Result = TypeVar("Result")


class FrameRenderer:
    """Renders over one background; compiled once per number of frames and cameras, with buffers that grow."""

    def __init__(
        self,
        *,
        background: Sequence[float],
        implementation: str | None,
        capacity: int | None,
        num_gaussians: int,
        dilation: float = DILATION,
    ) -> None:
        """Args:
        background: three numbers from 0 to 1.
        implementation: of `render`.
        capacity: of `render`; None: as many pairs as so many Gaussians usually need, and more where they need more.
        num_gaussians: N.
        dilation: of `render`.
        """
        self.background = jnp.asarray(background, jnp.float32)
        self.implementation, self.dilation = implementation, dilation
        self._capacity: int | None = capacity or first_capacity(num_gaussians, implementation)
        self._render, self._film = (
            jax.jit(
                functools.partial(draw, implementation=implementation, dilation=dilation), static_argnames="capacity"
            )
            for draw in (render_all, _film)
        )

    def render(self, gaussians: Gaussians, cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Gaussians with a leading axis T seen by cameras with a leading axis V.

        Returns:
          RGB over the background [V,T,H,W,3] and alpha [V,T,H,W], float32 in 0..1.

        Where the backend's static buffers prove too small they grow, and the pictures are rendered again.
        """
        return self._render_with_buffers(self._render, gaussians, cameras)

    def film(self, gaussians: Gaussians, camera: Camera) -> np.ndarray:
        """Gaussians with a leading axis T seen by one camera, or by one per frame (leading axis T).

        Returns:
          RGB [T,H,W,3], float32 in 0..1.
        """
        if np.ndim(camera.world_to_camera) == 3:
            return self._render_with_buffers(self._film, gaussians, camera)[0]
        return self.render(gaussians, jax.tree.map(lambda x: jnp.asarray(x)[None], camera))[0][0]

    def with_buffers(self, draw: Callable[[int | None], tuple[Result, Array]]) -> Result:
        """Draws with static buffers of a capacity, and anew with larger ones while they overflow.

        `draw` takes the capacity and returns a result and how many pairs found no room.
        """
        while True:
            result, overflow = draw(self._capacity)
            if not int(overflow):
                return result
            assert self._capacity is not None  # a backend without static buffers has room for all
            self._capacity *= 2
            logging.info("render buffers grow to %d pairs an image", self._capacity)

    def _render_with_buffers(self, draw: Any, gaussians: Gaussians, cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
        def attempt(capacity: int | None) -> tuple[tuple[Array, Array], Array]:
            rgb, alpha, overflow = draw(gaussians, cameras, self.background, capacity=capacity)
            return (rgb, alpha), overflow

        rgb, alpha = self.with_buffers(attempt)
        return np.asarray(rgb), np.asarray(alpha)


def _render_one(gaussians: Gaussians, camera: Camera, background: Array, **options: Any) -> tuple[Array, Array, Array]:
    rendering = render(gaussians, camera, background, **options)
    return rendering.rgb, rendering.alpha, rendering.overflow


def _film(gaussians: Gaussians, cameras: Camera, background: Array, **options: Any) -> tuple[Array, Array, Array]:
    one: Callable[..., tuple[Array, Array, Array]] = functools.partial(_render_one, **options)
    rgb, alpha, overflow = jax.vmap(one, in_axes=(0, 0, None))(gaussians, cameras, background)
    return rgb, alpha, jnp.sum(overflow)


def render_all(gaussians: Gaussians, cameras: Camera, background: Array, **options: Any) -> tuple[Array, Array, Array]:
    """What `FrameRenderer.render` compiles: RGB [V,T,H,W,3], alpha [V,T,H,W] and the pairs that found no room."""
    one: Callable[..., tuple[Array, Array, Array]] = functools.partial(_render_one, **options)
    per_camera = jax.vmap(one, in_axes=(0, None, None))
    rgb, alpha, overflow = jax.vmap(per_camera, in_axes=(None, 0, None))(gaussians, cameras, background)
    return rgb, alpha, jnp.sum(overflow)
