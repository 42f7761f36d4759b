"""The best static model of a run's data: what a motion space must beat."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Gaussians
from dimo_jax.data.dataset import Dataset
from dimo_jax.losses.terms import load_networks
from dimo_jax.losses.total import ImageInputs, Term, build_terms
from dimo_jax.skinning.posing import rest
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import visible_params
from dimo_jax.systems.static.system import Static
from dimo_jax.training import parallel
from dimo_jax.training.trainer import Trainer

# First rates: far above those that the second stage ends with, since a pose of all motions at once lies far off.
RATES = dict(means=1e-3, log_scales=5e-3, quats=5e-3, logit_opacities=5e-2, sh=1e-2)
LOG_LINEAR = "dimo_jax.training.schedules:log_linear"
SIDE = 64  # pixels of the pictures that terms are tried on; every term takes them


def train_static(config: ConfigDict, dataset: Dataset, state: TrainState) -> Gaussians:
    """Trains the Gaussians of a trained model on, without deformation, for `config.evaluation.baseline_steps`.

    They have all steps of the model behind them, see batches of the same size under the same losses of the pictures, in
    as many parts as the run computed them in, one after the other on one device, and end with the second stage's rates.

    Returns:
      The Gaussians as they are rendered, dead ones transparent; `state` is left as it is.

    Raises:
      LossNotFinite: the loss of a step is NaN or infinite.
    """
    own = parallel.choose_layout(config)
    num_parts = own.num_devices * own.num_processes * own.accumulate
    still = static_config(config)
    options = stages.build_stages(config)[1].options
    start = rest(visible_params(state.params, state.alive, options).gaussians, state.params.light), state.alive
    layout = parallel.Layout(accumulate=num_parts, grid=own.grid)
    trainer = Trainer(still, Static(still, dataset, start), dataset, layout)
    reached = trainer.init()
    try:
        while trainer.count < trainer.num_steps:
            reached, _ = trainer.step(reached, trainer.next_batch())
    finally:
        trainer.close()
    visible: Gaussians = jax.device_get(trainer.on_host(reached).visible)
    return visible


def static_config(config: ConfigDict) -> ConfigDict:
    """The config of a static model of a run's data: the second stage's terms that see pictures or Gaussians alone."""
    still = ConfigDict(config.to_dict())
    still.seed = config.seed + 2
    still.data.device_gib = 0.0  # the run's own frames may lie there yet
    still.static = dict(
        num_steps=config.evaluation.baseline_steps,
        phases=((0, dataset_size(config)),),
        densify_every=0,
        densify_from=0,
        densify_until=0,
        rates=_rates(config),
        losses=_picture_losses(config),
    )
    return still


def dataset_size(config: ConfigDict) -> int:
    """The largest resolution of the run's second stage; data that are smaller are not enlarged."""
    return max(size for _, size in config.stage2.phases)


def _picture_losses(config: ConfigDict) -> dict[str, Any]:
    """As they stand when the second stage has ended."""
    counted = {term.name for term in build_terms(config.stage2.losses, key="stage2.losses") if _sees_pictures(term)}
    specs = {name: config.stage2.losses[name].to_dict() for name in sorted(counted)}
    return {name: spec | dict(start=0) for name, spec in specs.items() if spec.get("stop") is None}


def _sees_pictures(term: Term) -> bool:
    """Whether a term, which may be a user's own, makes do with what a still has: it is traced on pictures alone."""
    networks = load_networks((term,))

    def trace() -> jax.Array:
        images = jnp.zeros((2, SIDE, SIDE, 3))
        flat = images[..., 0]
        truth = dict(true_rgb=images, true_alpha=flat, novel=jnp.zeros(2, bool))
        seen = dict(rgb=images, alpha=flat, depth=flat, normal=images, opacities=jnp.zeros(1))
        return term.function(ImageInputs(**seen, **truth, fixed=networks))

    try:
        jax.eval_shape(trace)
    except AttributeError as error:
        if isinstance(error.obj, ImageInputs):
            return False
        raise
    return True


def _rates(config: ConfigDict) -> dict[str, Any]:
    """Each group's rate falls from `RATES` to that which the second stage ends with, where that is lower."""
    rates, steps = {}, config.evaluation.baseline_steps
    for group, first in RATES.items():
        spec, key = config.stage2.rates[group], f"stage2.rates.{group}"
        is_number = isinstance(spec, int | float)
        last = float(spec if is_number else resolve(spec, key=key)()(config.stage2.num_steps))
        rates[group] = dict(fn=LOG_LINEAR, initial=first, final=last if 0 < last < first else first, num_steps=steps)
    return rates
