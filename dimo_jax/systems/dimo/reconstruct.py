"""Fits a motion that training never saw: its latent code alone, all else frozen (paper Sec. 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Camera, Params
from dimo_jax.render import first_capacity, render
from dimo_jax.render.project import DILATION
from dimo_jax.runtime.progress import track
from dimo_jax.systems.dimo.model import Components, Moved, Neighbors, find_neighbors
from dimo_jax.systems.dimo.step import Move
from dimo_jax.training.images import composite_truth
from dimo_jax.training.schedules import log_linear


@dataclass(frozen=True)
class FitOptions:
    """Static choices of a fit."""

    num_steps: int = 300  # the paper's code converges within as many
    batch_views: int = 2  # images of a step: so many views times so many frames
    batch_frames: int = 5
    code_rate: float = 0.05  # Adam's, falling to a tenth; 0 keeps the code
    decoder_rate: float = 0.0  # likewise; 0 keeps the decoder
    mask_weight: float = 0.1  # of alpha's squared error beside colour's, as in training
    refresh_every: int = 25  # steps between motion graphs of the present code
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    implementation: str | None = None
    dilation: float = DILATION  # of pixels, see `render`
    capacity: int | None = None


class FitState(flax.struct.PyTreeNode):
    """What a fit moves: "z" [D] and, where it learns, "decoder"."""

    variables: dict[str, Any]
    optimizer: Any


@dataclass(frozen=True)
class Fitted:
    """The result of a fit."""

    z: Array  # [D]
    params: Params  # with the decoder fine-tuned, where that was asked for
    losses: np.ndarray  # [num_steps]


def fit_code(
    components: Components,
    params: Params,
    z: Array,
    images: np.ndarray,
    cameras: Camera,
    times: np.ndarray,
    *,
    move: Move,
    graph_times: Array,
    options: FitOptions,
    seed: int = 0,
    description: str = "fitting",
) -> Fitted:
    """Optimizes a latent code, from `z` on, until its motion looks like the given videos.

    The loss is the mean squared error of colour and alpha, no regularization, as in the paper. Batches are random
    views and frames; one function is compiled and called in every step.

    Args:
      components, params: the model, whose dead Gaussians are masked (`mask_dead`); it is not changed.
      z: [D] to begin with.
      images: [V,T,H,W,4] uint8, straight alpha.
      cameras: of the views, leading axis V.
      times: [T] in 0..1.
      move: how the Gaussians follow (`config.stage2.move`).
      graph_times: times over which the motion graph is built, as in training.
      options: see `FitOptions`; the batch is cut to the views and frames that there are.
      seed: of the batches.
      description: beside the progress bar.

    Raises:
      UserError: the loss or the code is not finite.
    """
    num_views, num_frames = images.shape[:2]
    chex.assert_shape(images, (num_views, num_frames, cameras.height, cameras.width, 4))
    optimizer = _build_optimizer(options)
    find = jax.jit(lambda z, decoder: find_neighbors(components, params.replace(decoder=decoder), z, graph_times))
    z = jnp.asarray(z, jnp.float32)  # a weak type would compile the step twice
    variables = {"z": z} | ({"decoder": params.decoder} if options.decoder_rate else {})
    state = FitState(variables=variables, optimizer=optimizer.init(variables))
    capacity = options.capacity or first_capacity(len(params.gaussians.means), options.implementation)
    step = jax.jit(build_fit_step(components, move, optimizer, options, capacity=capacity))
    rng = np.random.default_rng(seed)
    losses: list[Array] = []
    overflowed: list[Array] = []
    neighbors = find(z, params.decoder)
    for index in track(range(options.num_steps), description, unit="step"):
        if index and index % options.refresh_every == 0:
            neighbors = find(state.variables["z"], state.variables.get("decoder", params.decoder))
            if any(int(x) for x in overflowed):
                assert capacity is not None  # a backend without static buffers has room for all
                capacity *= 2
                logging.info("render buffers grow to %d pairs an image; the step recompiles", capacity)
                step = jax.jit(build_fit_step(components, move, optimizer, options, capacity=capacity))
            overflowed.clear()
        views = rng.choice(num_views, min(options.batch_views, num_views), replace=False)
        frames = rng.choice(num_frames, min(options.batch_frames, num_frames), replace=False)
        chosen = jax.tree.map(lambda x, v=views: jnp.asarray(np.asarray(x)[v]), cameras)
        state, loss, overflow = step(state, params, neighbors, images[np.ix_(views, frames)], chosen, times[frames])
        losses.append(loss)
        overflowed.append(overflow)
    if any(int(x) for x in overflowed):
        logging.warning(
            "%s: in its last steps some of the farthest Gaussians found no room in the pictures", description
        )
    history = np.asarray(losses, np.float32)
    # A code that is not finite draws nothing, whose loss is finite.
    if not np.isfinite(history).all() or not bool(jnp.all(jnp.isfinite(state.variables["z"]))):
        raise UserError(f"{description}: loss or code are no longer finite after {len(history)} steps")
    decoder = state.variables.get("decoder", params.decoder)
    return Fitted(z=state.variables["z"], params=params.replace(decoder=decoder), losses=history)


def _build_optimizer(options: FitOptions) -> optax.GradientTransformation:
    def adam(rate: float) -> optax.GradientTransformation:
        if not rate:
            return optax.set_to_zero()
        return optax.adam(log_linear(initial=rate, final=0.1 * rate, num_steps=options.num_steps))

    transforms = {"z": adam(options.code_rate), "decoder": adam(options.decoder_rate)}
    return optax.multi_transform(transforms, lambda variables: {name: name for name in variables})


def build_fit_step(
    components: Components,
    move: Move,
    optimizer: optax.GradientTransformation,
    options: FitOptions,
    *,
    capacity: int | None,
) -> Callable[..., tuple[FitState, Array, Array]]:
    """One step as a pure function.

    (state, params, neighbors, images [V,F,H,W,4] uint8, cameras [V], times [F]) -> (state, loss [], overflow []).
    """
    background = jnp.asarray(options.background, jnp.float32)
    how: dict[str, Any] = dict(implementation=options.implementation, dilation=options.dilation)

    def loss_of(
        variables: dict[str, Any], params: Params, neighbors: Neighbors, images: Array, cameras: Camera, times: Array
    ) -> tuple[Array, Array]:
        model = params.replace(decoder=variables.get("decoder", params.decoder))

        def at(time: Array) -> Moved:
            return move(components, model, neighbors, variables["z"], time)

        def draw(gaussians: Any, camera: Camera) -> Any:
            return render(gaussians, camera, background, capacity=capacity, **how)

        gaussians = jax.vmap(at)(times).gaussians
        rendered = jax.vmap(jax.vmap(draw, in_axes=(0, None)), in_axes=(None, 0))(gaussians, cameras)
        rgb, alpha = composite_truth(images, background)
        error = jnp.mean((rendered.rgb - rgb) ** 2) + options.mask_weight * jnp.mean((rendered.alpha - alpha) ** 2)
        return error, jnp.sum(rendered.overflow)

    def step(
        state: FitState, params: Params, neighbors: Neighbors, images: Array, cameras: Camera, times: Array
    ) -> tuple[FitState, Array, Array]:
        differentiate = jax.value_and_grad(loss_of, has_aux=True)
        (loss, overflow), gradients = differentiate(state.variables, params, neighbors, images, cameras, times)
        updates, moments = optimizer.update(gradients, state.optimizer, state.variables)
        return FitState(optax.apply_updates(state.variables, updates), moments), loss, overflow

    return step
