"""DIMO's training step: render a batch, compare, update. A pure function of state and batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dimo_jax.core.types import Array, Batch, Camera, JointParams, Latents, Params, Rendering, Turns
from dimo_jax.losses.latent import ProjectedSentences
from dimo_jax.losses.total import Term, combine, evaluate
from dimo_jax.skinning.weights import weigh_edges
from dimo_jax.systems.dimo.model import Components, Moved, Neighbors, decode
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.terms import LossInputs
from dimo_jax.training import density, step
from dimo_jax.training.gaussians import mask_dead
from dimo_jax.training.images import compare, render_probed, report
from dimo_jax.training.step import Part
from dimo_jax.training.system import Metrics

Move = Callable[[Components, Params, Neighbors, Array, Array], Moved]
MoveBatch = Callable[[Components, Params, Neighbors, Array, Batch], Moved]


@dataclass(frozen=True)
class StepOptions:
    """Static choices of a stage."""

    move: Move
    terms: tuple[Term, ...]
    optimizer: optax.GradientTransformation
    tie_scales: Callable[[Array, Array], Array]
    first_step: int  # of the stage, in steps of the whole run
    points_are_controls: bool  # first stage: the Gaussians themselves are the control points
    background: tuple[float, float, float]
    implementation: str | None
    capacity: int | None
    dilation: float  # of pixels, see `render`
    radius_power: float  # r_k of Eq. 1 is a length to this power
    text_noise: float = 0.0  # added to the sentences, whose own deviation is 1


def render_batch(gaussians: Any, cameras: Camera, probe: Array, options: StepOptions) -> Rendering:
    """Gaussians [M,F,N,...] seen by cameras [M,V,...]: a Rendering with leading axes [M,V,F].

    `probe` [M,V,F,N,2] is added to the pixel positions; its gradient is what density control looks at.
    """
    one = functools.partial(
        render_probed,
        background=jnp.asarray(options.background),
        implementation=options.implementation,
        capacity=options.capacity,
        dilation=options.dilation,
    )
    over_frames = jax.vmap(one, in_axes=(0, None, 0))
    over_views = jax.vmap(over_frames, in_axes=(None, 0, 0))
    return jax.vmap(over_views)(gaussians, cameras, probe)


def visible_params(params: Params, alive: Array, options: StepOptions) -> Params:
    """The parameters as they are rendered: scales tied as the stage ties them, dead slots transparent."""
    tied = options.tie_scales(params.gaussians.log_scales, alive)
    return params.replace(gaussians=mask_dead(params.gaussians.replace(log_scales=tied), alive))


def _control_points(params: Params, options: StepOptions) -> tuple[Array, Array]:
    if options.points_are_controls:
        return params.gaussians.means, options.radius_power * jnp.mean(params.gaussians.log_scales, axis=-1)
    return params.key_points.positions, params.key_points.log_radii


def _project_sentences(
    params: Params, batch: Batch, fixed: Mapping[str, Any], key: Array, components: Components, options: StepOptions
) -> ProjectedSentences | None:
    """What the projector makes of the sentences of a batch's motions; None where it is not trained with the latents."""
    if not isinstance(params, JointParams) or options.points_are_controls or "sentences" not in fixed:
        return None
    assert components.projector is not None
    known = jnp.any(fixed["sentences"].weights > 0, axis=1)
    sentences = jax.tree.map(lambda x: x[batch.motions], fixed["sentences"])
    keys = jax.vmap(lambda motion: jax.random.fold_in(jax.random.fold_in(key, motion), 1))(batch.motions)
    noise = jax.vmap(lambda k: jax.random.normal(k, sentences.inputs.shape[1:]))(keys)
    seen = sentences.inputs + options.text_noise * noise
    return ProjectedSentences(
        outputs=components.projector.apply(params.projector, seen),  # type: ignore[arg-type]
        weights=sentences.weights,
        motions=batch.motions,
        codes=params.latents.mu,
        known=known,
    )


def _turns(batch: Batch, frames: Array, fixed: Mapping[str, Any]) -> Turns | None:
    """Those of a batch's motions at its `frames` [M,F]; None where they are not searched for."""
    if "turns" not in fixed:
        return None
    known: Turns = fixed["turns"]
    at = batch.motions[:, None], frames
    return Turns(rotations=known.rotations[at], shifts=known.shifts[at], found=known.found[batch.motions])


def _at_random_times(
    components: Components, params: Params, canonical: Array, z: Array, keys: Array, options: StepOptions
) -> Array | None:
    """Control points [M,R,P,3] at as many random times in 0..1 as a term asks for; None where none does.

    The times are drawn by step and motion, so that all parts of a batch that share a motion see the same. Canonical
    positions carry no gradient to their sum with the translations (the authors' way).
    """
    count = max((int(term.options.get("num_times") or 0) for term in options.terms), default=0)
    if not count:
        return None

    def one_motion(code: Array, key: Array) -> Array:
        times = jax.random.uniform(jax.random.fold_in(key, 2), (count,))
        translations = jax.vmap(lambda time: decode(components, params, code, canonical, time)[0])(times)
        return jax.lax.stop_gradient(canonical) + translations

    return jax.vmap(one_motion)(z, keys)


def _move_by_codes(
    components: Components, params: Params, neighbors: Neighbors, z: Array, batch: Batch, *, move: Move
) -> Moved:
    """Motions of codes z [M,D] at the times of a batch: leading axes [M,F]."""

    def at_times(near: Neighbors, code: Array, times: Array) -> Moved:
        return jax.vmap(lambda time: move(components, params, near, code, time))(times)

    return jax.vmap(at_times)(neighbors, z, batch.times)


def compute_loss(
    params: Params,
    probe: Array,
    state: TrainState,
    batch: Batch,
    fixed: Mapping[str, Any],
    key: Array,
    components: Components,
    options: StepOptions,
    *,
    move: MoveBatch | None = None,
) -> tuple[Array, Metrics]:
    """The objective of one part of a batch, and what is reported of it.

    Args:
      params: what moves in the stage, or what stands for it.
      probe: [M,V,F,N,2], see `render_batch`.
      state, batch, fixed, key: as a step gets them; of the state's `params` nothing is used.
      components, options: the model and the stage.
      move: another way than `options.move` from a batch's motions and times to Gaussians.
    """
    latents = Latents(mu=params.latents.mu[batch.motions], log_sigma=params.latents.log_sigma[batch.motions])
    keys = jax.vmap(lambda motion: jax.random.fold_in(key, motion))(batch.motions)
    z = jax.vmap(components.draw)(latents.mu, latents.log_sigma, keys)  # one draw per motion and step
    neighbors = jax.tree.map(lambda x: x[batch.motions], state.neighbors)
    shaped = visible_params(params, state.alive, options)
    move = move or functools.partial(_move_by_codes, move=options.move)
    moved = move(components, shaped, neighbors, z, batch)
    posed = moved.gaussians
    if batch.shown.shape[1] < batch.times.shape[1]:
        posed = jax.vmap(lambda x, shown: jax.tree.map(lambda leaf: leaf[shown], x))(posed, batch.shown)
    rendering = render_batch(posed, batch.cameras, probe, options)

    canonical, log_radii = _control_points(shaped, options)
    edges = neighbors.controls
    control_alive = state.alive if options.points_are_controls else jnp.ones(canonical.shape[0], bool)
    edge_weights = jax.vmap(lambda e: weigh_edges(components.skinning, canonical, log_radii, e, control_alive))(edges)
    frames = jnp.round(batch.times * state.reference.shape[1]).astype(jnp.int32)
    reference = state.reference[batch.motions[:, None], frames]

    opacities = jax.nn.sigmoid(shaped.gaussians.logit_opacities)
    inputs = LossInputs(
        **compare(rendering, batch, jnp.asarray(options.background), opacities, fixed),
        controls=moved.controls,
        rotations=moved.rotations,
        canonical=canonical,
        control_alive=control_alive,
        edges=edges,
        edge_weights=edge_weights,
        reference=reference,
        latents=latents,
        random_controls=_at_random_times(components, shaped, canonical, z, keys, options),
        turns=_turns(batch, frames, fixed),
        sentences=_project_sentences(shaped, batch, fixed, key, components, options),
    )
    total, values = evaluate(options.terms, inputs, state.step - options.first_step)
    return total, report(inputs, total, values, jnp.sum(rendering.overflow))


def _differentiate(
    components: Components,
    options: StepOptions,
    state: TrainState,
    batch: Batch,
    fixed: Mapping[str, Any],
    key: Array,
) -> tuple[Part, Array]:
    """One part of a batch, and its preview.

    Its means are gradients, what the probe felt [N] (first stage only), terms and PSNR; its sums the images that
    felt each Gaussian [N] (first stage only), and overflow.
    """
    probe = jnp.zeros((*batch.images.shape[:3], state.alive.shape[0], 2))
    loss = jax.value_and_grad(compute_loss, argnums=(0, 1) if options.points_are_controls else 0, has_aux=True)
    (_, metrics), gradients = loss(state.params, probe, state, batch, fixed, key, components, options)
    felt = images = None
    if options.points_are_controls:
        gradients, probe_gradients = gradients
        seen = density.init_stats(state.alive.shape[0])
        seen = density.accumulate(seen, probe_gradients, (batch.cameras.height, batch.cameras.width))
        felt, images = seen.gradients, seen.images
    means = (gradients, felt, metrics.terms, metrics.psnr)
    return Part(means=means, sums=(images, metrics.overflow)), metrics.preview


def _update(options: StepOptions, state: TrainState, total: Part, preview: Array) -> tuple[TrainState, Metrics]:
    gradients, felt, terms, psnr = total.means
    images, overflow = total.sums
    loss = combine(options.terms, terms, state.step - options.first_step)
    seen = state.density
    if options.points_are_controls:
        seen = seen.replace(gradients=seen.gradients + felt, images=seen.images + images)
    updates, optimizer = options.optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    after = state.replace(step=state.step + 1, params=params, optimizer=optimizer, density=seen)
    return after, Metrics(loss=loss, terms=terms, psnr=psnr, overflow=overflow, preview=preview)


def build_step(
    components: Components, options: StepOptions, *, axis_name: str | None = None, accumulate: int = 1
) -> Callable[[TrainState, Batch, Mapping[str, Any], Array], tuple[TrainState, Metrics]]:
    """DIMO's step (`training.step.build_step`): (state, batch, fixed, key) -> (state, metrics).

    Random numbers are folded by step and motion, so that a motion's draw does not depend on the device it falls on.

    Args:
      components, options: the model and the stage.
      axis_name, accumulate: see there.
    """
    differentiate = functools.partial(_differentiate, components, options)
    update = functools.partial(_update, options)
    return step.build_step(differentiate, update, axis_name=axis_name, accumulate=accumulate)
