"""The best static model of a run's data: what a motion space must beat."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Gaussians
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.sampler import Sampler, Share, batch_sizes, prefetch
from dimo_jax.losses.total import Term
from dimo_jax.systems.dimo import capacity, stages, terms
from dimo_jax.systems.dimo.fixed_inputs import load_fixed
from dimo_jax.systems.dimo.model import Components, stay
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import StepOptions, build_step, visible_params
from dimo_jax.training import parallel
from dimo_jax.training.optimizer import build_optimizer
from dimo_jax.training.tracker import Tracker

# First rates: far above those that the second stage ends with, since a pose of all motions at once lies far off.
RATES = dict(means=1e-3, log_scales=5e-3, quats=5e-3, logit_opacities=5e-2, sh=1e-2)
LOG_LINEAR = "dimo_jax.training.schedules:log_linear"
STILL = ("latents", "decoder", "positions", "log_radii")
# Terms that see neither the pictures nor the Gaussians, and so have no say where nothing moves.
MOTION_TERMS = (terms.arap, terms.arap_rigid, terms.chamfer, terms.rotations, terms.turn, terms.kl, terms.text)


def train_static(config: ConfigDict, components: Components, dataset: Dataset, state: TrainState) -> Gaussians:
    """Trains the Gaussians of a trained model on, without deformation, for `config.evaluation.baseline_steps`.

    They have all steps of the model behind them, see batches of the same size under the same losses of the pictures, in
    as many parts as the run computed them in, one after the other on one device, and end with the second stage's rates.

    Returns:
      The Gaussians as they are rendered, dead ones transparent; `state` is left as it is.

    Raises:
      LossNotFinite: the loss of a step is NaN or infinite.
    """
    options = static_options(config)
    state = jax.tree.map(jnp.copy, state)
    state = state.replace(optimizer=options.optimizer.init(state.params))
    own = parallel.choose_layout(config)
    num_parts = own.num_devices * own.num_processes * own.accumulate
    layout = parallel.Layout(accumulate=num_parts, grid=own.grid)
    seed, every = config.seed + 2, config.data.held_out_every
    sampler = Sampler(dataset, **batch_sizes(config), held_out_every=every, seed=seed)
    poses = dataclasses.replace(sampler, as_indices=True)  # without images, which need no room
    frozen = load_fixed(options.terms)
    tracker, num_steps = Tracker(), config.evaluation.baseline_steps

    def measure(step: int) -> capacity.Capacity:
        return capacity.measure(state, components, options, jax.device_put(poses.sample(step)))

    def compile_step(room: capacity.Capacity) -> Callable[..., Any]:
        build = functools.partial(build_step, components, capacity.with_room(options, room))
        return parallel.parallelize(build, layout)

    room = measure(0)
    train = compile_step(room)
    batches = prefetch(Share(sampler, layout.grid, range(num_parts)), 0, transfer=parallel.build_transfer(layout, None))
    try:
        for step in range(1, num_steps + 1):
            state, metrics = train(state, next(batches), frozen, jax.random.key(0))
            tracker.add(step, metrics)
            if step % config.log_every and step < num_steps:
                continue
            tracker.look()
            lost = tracker.take_lost()
            if lost:
                logging.warning("static baseline, step %d: %d Gaussian-tile pairs found no room", step, lost)
                room = room.grow(measure(step - 1).pairs or 0)
                train = compile_step(room)
    finally:
        batches.close()  # type: ignore[attr-defined]
    return visible_params(state.params, state.alive, options).gaussians


def static_options(config: ConfigDict) -> StepOptions:
    """The second stage's step for a model that stays where it is: its terms that see pictures or Gaussians alone."""
    options = stages.build_stages(config)[1].options
    return dataclasses.replace(
        options,
        move=stay,
        terms=tuple(term for term in options.terms if not _is_of_motion(term)),
        optimizer=build_optimizer(_rates(config), key="baseline.rates"),
    )


def _is_of_motion(term: Term) -> bool:
    return getattr(term.function, "func", term.function) in MOTION_TERMS


def _rates(config: ConfigDict) -> dict[str, Any]:
    """Each group's rate falls from `RATES` to that which the second stage ends with, where that is lower."""
    rates: dict[str, Any] = dict.fromkeys(STILL, 0.0)
    steps = config.evaluation.baseline_steps
    for group, first in RATES.items():
        spec, key = config.stage2.rates[group], f"stage2.rates.{group}"
        is_number = isinstance(spec, int | float)
        last = float(spec if is_number else resolve(spec, key=key)()(config.stage2.num_steps))
        rates[group] = dict(fn=LOG_LINEAR, initial=first, final=last if 0 < last < first else first, num_steps=steps)
    return rates
