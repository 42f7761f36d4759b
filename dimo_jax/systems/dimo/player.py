"""Plays motions of a trained model: latent code and times in, pictures and trajectories out, in one pass."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, Gaussians, Params
from dimo_jax.render.frames import FrameRenderer
from dimo_jax.skinning.weights import control_radii
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import Components
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import Move
from dimo_jax.training.gaussians import mask_dead
from dimo_jax.training.images import find_dilation


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clip:
    """A motion at T times: Gaussians with a leading axis T, and key points [T,K,3]."""

    gaussians: Gaussians
    key_points: Array

    def at(self, frames: np.ndarray) -> Clip:
        """Some of its frames, by index. A program is compiled per number of times that are played, but not for this."""
        return jax.tree.map(lambda x: np.asarray(x)[frames], self)


class Player(FrameRenderer):
    """A trained model, ready to play: compiled once per number of frames and cameras."""

    def __init__(self, config: ConfigDict, components: Components, state: TrainState, *, num_frames: int) -> None:
        """`num_frames` is that of the training videos: the motion graph is built over their times."""
        self.params: Params = state.params.replace(gaussians=mask_dead(state.params.gaussians, state.alive))
        self.components = components
        self.alive = np.asarray(state.alive)
        # Of which power of a length the control radii are; early configs do not say, and mean the paper's square.
        self._radius_power = float(config.get("radius_power", 2.0))
        graph_times = stages.frame_times(num_frames)
        self.move: Move = resolve(config.stage2.move, key="stage2.move")
        how: dict[str, Any] = dict(graph_times=graph_times, move=self.move)
        self._animate = jax.jit(functools.partial(dimo.animate, components, **how))
        self._walk = jax.jit(functools.partial(_walk, components, **how))
        self._trace = jax.jit(functools.partial(_trace, components))
        super().__init__(
            background=config.render.background,
            implementation=config.render.implementation,
            capacity=config.render.capacity,
            num_gaussians=len(self.alive),
            dilation=find_dilation(config),
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

    def trace(self, codes: Any, times: Any) -> Array:
        """Where the key points go: codes [S,D] at times [T] -> [S,T,K,3]; far cheaper than `play`."""
        return self._trace(self.params, jnp.asarray(codes), jnp.asarray(times, jnp.float32))

    def walk(self, codes: Array, times: Any) -> Clip:
        """One clip whose code changes while its time runs: codes [T,D] and times [T], one of each per frame."""
        gaussians, key_points = self._walk(self.params, codes, jnp.asarray(times, jnp.float32))
        return Clip(gaussians, key_points)


def _trace(components: Components, params: Params, codes: Array, times: Array) -> Array:
    positions = params.key_points.positions
    return jax.lax.map(lambda z: dimo.decode_trajectories(components, params, z, positions, times)[0], codes)


def _walk(
    components: Components, params: Params, codes: Array, times: Array, *, graph_times: Array, move: Move
) -> tuple[Any, Array]:
    def one(code_and_time: tuple[Array, Array]) -> tuple[Any, Array]:
        z, time = code_and_time
        return dimo.animate(components, params, z, time[None], graph_times, move=move)

    moved = jax.lax.map(one, (codes, times))
    return jax.tree.map(lambda x: x[:, 0], moved)
