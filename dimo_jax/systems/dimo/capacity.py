"""Capacity for Gaussian-tile pairs, measured on the data."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax

from dimo_jax.core.types import Array, Batch, Camera, Splats
from dimo_jax.render import choose_backend, measure_capacity, project
from dimo_jax.systems.dimo.model import Components
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import StepOptions, visible_params
from dimo_jax.training.system import Capacity


def needs_capacity(implementation: str | None) -> bool:
    """Whether the backend that would run has buffers of static size."""
    return choose_backend(implementation) != "native"


def measure(state: TrainState, components: Components, options: StepOptions, batch: Batch) -> Capacity:
    """A capacity with room to spare for the images of `batch` as the model now stands."""
    if options.capacity is not None:
        return Capacity(options.capacity)
    if not needs_capacity(options.implementation):
        return Capacity(None)
    params = visible_params(state.params, state.alive, options)

    @jax.jit
    def splats(batch: Batch) -> Splats:
        def one_motion(motion: Array, times: Array, cameras: Camera) -> Splats:
            near = jax.tree.map(lambda x: x[motion], state.neighbors)
            z = params.latents.mu[motion]
            moved = jax.vmap(lambda t: options.move(components, params, near, z, t).gaussians)(times)
            see = functools.partial(project, implementation=options.implementation)
            return jax.vmap(lambda camera: jax.vmap(lambda g: see(g, camera))(moved))(cameras)

        return jax.vmap(one_motion)(batch.motions, batch.times, batch.cameras)

    height, width = batch.cameras.height, batch.cameras.width
    return Capacity(measure_capacity(splats(batch), height=height, width=width, implementation=options.implementation))


def with_buffers(options: StepOptions, buffers: Capacity) -> StepOptions:
    """The options of a step whose buffers hold `buffers`."""
    return replace(options, capacity=buffers.pairs)
