"""The third stage, ours: pictures move each key point of each trained frame by itself; the decoder then learns how.

What a step of the second stage asks of one key point at one time, the decoder has to give with weights that all motions
share, and learns slowly. Here every pose is a parameter of its own for a while, which pictures can move at once, and
the decoder is fitted to all of them together (`fit_decoder`), which costs no rendering.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dimo_jax.core.types import Array, Batch, Gaussians, Params
from dimo_jax.losses.total import combine
from dimo_jax.systems.dimo import model
from dimo_jax.systems.dimo.model import Components, Moved, Neighbors
from dimo_jax.systems.dimo.state import TrainState, fields_of
from dimo_jax.systems.dimo.step import StepOptions, compute_loss
from dimo_jax.training import step
from dimo_jax.training.optimizer import GAUSSIANS, POSES, build_optimizer
from dimo_jax.training.step import Part
from dimo_jax.training.system import Metrics, Step

GROUPS = (*POSES, *GAUSSIANS)  # that have a learning rate


class Free(flax.struct.PyTreeNode):
    """What moves in this stage."""

    translations: Array  # [M,T,K,3] of key points, from their canonical positions, at all frames of all motions
    rotations: Array  # [M,T,K,4] wxyz, not unit
    gaussians: Gaussians


class FreeState(TrainState):
    """A `TrainState` whose motions are free: `optimizer` is the second stage's, at rest, and `params` wait for the end.

    Its decoder and Gaussians are those with which the stage began.
    """

    free: Free
    moments: Any  # optax state of `free`


def build_free_optimizer(stage: Mapping[str, Any]) -> optax.GradientTransformation:
    """Of `config.stage3`."""
    return build_optimizer(stage["rates"], key="stage3.rates", groups=GROUPS, b2=stage["adam_b2"])


def begin(state: TrainState, components: Components, *, stage: Mapping[str, Any], times: Array) -> FreeState:
    """Poses as the decoder gives them at times [T], and the motion graph that they make."""
    params = state.params

    def decode(z: Array) -> tuple[tuple[Array, Array], Neighbors]:
        at = functools.partial(model.decode, components, params, z, params.key_points.positions)
        return jax.vmap(at)(times), model.find_neighbors(components, params, z, times)

    (translations, rotations), neighbors = jax.lax.map(decode, params.latents.mu)
    free = Free(translations=translations, rotations=rotations, gaussians=params.gaussians)
    fields = fields_of(state) | dict(neighbors=neighbors)
    return FreeState(**fields, free=free, moments=build_free_optimizer(stage).init(free))


def end(state: FreeState, params: Params) -> TrainState:
    """The state without free poses, with parameters that have learnt from them."""
    fields = fields_of(state) | dict(params=params)
    del fields["free"], fields["moments"]
    return TrainState(**fields)


def _move(free: Free, components: Components, params: Params, neighbors: Neighbors, z: Array, batch: Batch) -> Moved:
    """`params`' Gaussians by the free poses of a batch's motions and times [M,F,...]; the codes do not matter."""
    del z
    frames = jnp.round(batch.times * free.translations.shape[1]).astype(jnp.int32)
    at = batch.motions[:, None], frames
    follow = functools.partial(model.follow_key_points, components, params)
    over_times = jax.vmap(follow, in_axes=(None, 0, 0))
    return jax.vmap(over_times)(neighbors, free.translations[at], free.rotations[at])


def _differentiate(
    components: Components, options: StepOptions, state: FreeState, batch: Batch, fixed: Mapping[str, Any], key: Array
) -> tuple[Part, Array]:
    probe = jnp.zeros((*batch.images.shape[:3], state.alive.shape[0], 2))

    def loss(free: Free) -> tuple[Array, Metrics]:
        params = state.params.replace(gaussians=free.gaussians)
        move = functools.partial(_move, free)
        return compute_loss(params, probe, state, batch, fixed, key, components, options, move=move)

    (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.free)
    return Part(means=(gradients, metrics.terms, metrics.psnr), sums=metrics.overflow), metrics.preview


def _update(options: StepOptions, state: FreeState, total: Part, preview: Array) -> tuple[FreeState, Metrics]:
    gradients, terms, psnr = total.means
    loss = combine(options.terms, terms, state.step - options.first_step)
    updates, moments = options.optimizer.update(gradients, state.moments, state.free)
    after = state.replace(step=state.step + 1, free=optax.apply_updates(state.free, updates), moments=moments)
    return after, Metrics(loss=loss, terms=terms, psnr=psnr, overflow=total.sums, preview=preview)


def build_step(
    components: Components, options: StepOptions, *, axis_name: str | None = None, accumulate: int = 1
) -> Step:
    """The stage's step (`training.step.build_step`): (state, batch, fixed, key) -> (state, metrics)."""
    differentiate = functools.partial(_differentiate, components, options)
    update = functools.partial(_update, options)
    return step.build_step(differentiate, update, axis_name=axis_name, accumulate=accumulate)
