"""Plays motions of a trained model: latent code and times in, pictures and trajectories out, in one pass."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, Camera, Gaussians, Params
from dimo_jax.render import first_capacity, render
from dimo_jax.skinning.weights import control_radii
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.gaussians import mask_dead
from dimo_jax.systems.dimo.model import Components
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import Move

Result = TypeVar("Result")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clip:
    """A motion at T times: Gaussians with a leading axis T, and key points [T,K,3]."""

    gaussians: Gaussians
    key_points: Array

    def at(self, frames: np.ndarray) -> Clip:
        """Some of its frames, by index. A program is compiled per number of times that are played, but not for this."""
        return jax.tree.map(lambda x: np.asarray(x)[frames], self)


class Player:
    """A trained model, ready to play: compiled once per number of frames and cameras."""

    def __init__(self, config: ConfigDict, components: Components, state: TrainState, *, num_frames: int) -> None:
        """`num_frames` is that of the training videos: the motion graph is built over their times."""
        self.params: Params = state.params.replace(gaussians=mask_dead(state.params.gaussians, state.alive))
        self.components = components
        self.alive = np.asarray(state.alive)
        self.background = jnp.asarray(config.render.background, jnp.float32)
        # Of which power of a length the control radii are; early configs do not say, and mean the paper's square.
        self._radius_power = float(config.get("radius_power", 2.0))
        graph_times = stages.frame_times(num_frames)
        self.move: Move = resolve(config.stage2.move, key="stage2.move")
        how: dict[str, Any] = dict(graph_times=graph_times, move=self.move)
        self._animate = jax.jit(functools.partial(dimo.animate, components, **how))
        self._walk = jax.jit(functools.partial(_walk, components, **how))
        self.implementation: str | None = config.render.implementation
        first = first_capacity(len(self.alive), self.implementation)
        self._capacity: int | None = config.render.capacity or first
        self._render, self._film = (
            jax.jit(functools.partial(draw, implementation=self.implementation), static_argnames="capacity")
            for draw in (_render_all, _film)
        )

    def with_params(self, params: Params) -> Player:
        """The same player with other parameters, whose dead Gaussians are masked already; this one is not changed."""
        other = copy.copy(self)
        other.params = params
        return other

    @property
    def control_radii(self) -> np.ndarray:
        """Control radii [K] of the key points as lengths, world units, whatever `config.radius_power` is."""
        return np.asarray(control_radii(self.params.key_points.log_radii, power=self._radius_power))

    def latent(self, motion: int) -> Array:
        """The mean code mu_m [D] of a training motion."""
        return self.params.latents.mu[motion]

    def play(self, z: Array, times: Any) -> Clip:
        """The motion of latent code z [D] at times [T] in 0..1."""
        gaussians, key_points = self._animate(self.params, z=z, times=jnp.asarray(times, jnp.float32))
        return Clip(gaussians, key_points)

    def walk(self, codes: Array, times: Any) -> Clip:
        """One clip whose code changes while its time runs: codes [T,D] and times [T], one of each per frame."""
        gaussians, key_points = self._walk(self.params, codes, jnp.asarray(times, jnp.float32))
        return Clip(gaussians, key_points)

    def render(self, gaussians: Gaussians, cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Gaussians with a leading axis T seen by cameras with a leading axis V.

        Returns:
          RGB over the background [V,T,H,W,3] and alpha [V,T,H,W], float32 in 0..1.

        Where the backend's static buffers prove too small they grow, and the pictures are rendered again.
        """
        return self._render_with_room(self._render, gaussians, cameras)

    def film(self, gaussians: Gaussians, camera: Camera) -> np.ndarray:
        """Gaussians with a leading axis T seen by one camera, or by one per frame (leading axis T).

        Returns:
          RGB [T,H,W,3], float32 in 0..1.
        """
        if np.ndim(camera.world_to_camera) == 3:
            return self._render_with_room(self._film, gaussians, camera)[0]
        return self.render(gaussians, jax.tree.map(lambda x: jnp.asarray(x)[None], camera))[0][0]

    def with_room(self, draw: Callable[[int | None], tuple[Result, Array]]) -> Result:
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

    def _render_with_room(self, draw: Any, gaussians: Gaussians, cameras: Camera) -> tuple[np.ndarray, np.ndarray]:
        def attempt(capacity: int | None) -> tuple[tuple[Array, Array], Array]:
            rgb, alpha, overflow = draw(gaussians, cameras, self.background, capacity=capacity)
            return (rgb, alpha), overflow

        rgb, alpha = self.with_room(attempt)
        return np.asarray(rgb), np.asarray(alpha)


def _walk(
    components: Components, params: Params, codes: Array, times: Array, *, graph_times: Array, move: Move
) -> tuple[Any, Array]:
    def one(code_and_time: tuple[Array, Array]) -> tuple[Any, Array]:
        z, time = code_and_time
        return dimo.animate(components, params, z, time[None], graph_times, move=move)

    moved = jax.lax.map(one, (codes, times))
    return jax.tree.map(lambda x: x[:, 0], moved)


def _render_one(
    gaussians: Gaussians, camera: Camera, background: Array, *, implementation: str | None, capacity: int | None
) -> tuple[Array, Array, Array]:
    rendering = render(gaussians, camera, background, implementation=implementation, capacity=capacity)
    return rendering.rgb, rendering.alpha, rendering.overflow


def _film(gaussians: Gaussians, cameras: Camera, background: Array, **options: Any) -> tuple[Array, Array, Array]:
    one: Callable[..., tuple[Array, Array, Array]] = functools.partial(_render_one, **options)
    rgb, alpha, overflow = jax.vmap(one, in_axes=(0, 0, None))(gaussians, cameras, background)
    return rgb, alpha, jnp.sum(overflow)


def _render_all(gaussians: Gaussians, cameras: Camera, background: Array, **options: Any) -> tuple[Array, Array, Array]:
    one: Callable[..., tuple[Array, Array, Array]] = functools.partial(_render_one, **options)
    per_camera = jax.vmap(one, in_axes=(0, None, None))
    rgb, alpha, overflow = jax.vmap(per_camera, in_axes=(None, 0, None))(gaussians, cameras, background)
    return rgb, alpha, jnp.sum(overflow)


def select_cameras(cameras: Camera, indices: Any) -> Camera:
    """Some of the cameras of a stack."""
    return jax.tree.map(lambda x: jnp.asarray(x)[np.asarray(indices)], cameras)
