"""The stages that a run of the generator passes, and its state in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dimo_jax.core.types import Array
from dimo_jax.training import partial
from dimo_jax.training.partial import PartialState
from dimo_jax.training.system import Stage

from .model import GeneratorParams
from .motion import init_motion
from .parts import Backbone
from .training import trained


def list_stages(options: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages that `config.atop` asks for."""
    stages, first = [], 0
    for name in options["stages"]:
        last = first + int(options["steps"][name])
        stages.append(Stage(name, first, last, ((0, 0),)))
        first = last
    return tuple(stages)


def build_optimizer(options: Mapping[str, Any], stage: Stage) -> optax.GradientTransformation:
    """Of a stage."""
    steps = stage.last_step - stage.first_step
    return partial.build_optimizer(steps, float(options["rates"][stage.name]), options["clip"])


def begin_stage(step: Array, params: GeneratorParams, stage: Stage, options: Mapping[str, Any]) -> PartialState:
    """A state at the first step of a stage."""
    return partial.begin(step, params, trained(params, stage.name), build_optimizer(options, stage))


def stage_at(options: Mapping[str, Any], step: int) -> Stage:
    """The stage of a state after `step` steps; of one at the end of a stage, the next."""
    stages = list_stages(options)
    return next((each for each in stages if step < each.last_step), stages[-1])


def make_template(options: Mapping[str, Any], backbone: Backbone, step: int) -> PartialState:
    """Shapes and types of a state after `step` steps."""

    def begin(key: Array, arrays: Any) -> PartialState:
        params = GeneratorParams(arrays, init_motion(key, backbone.config))
        return begin_stage(jnp.zeros([], jnp.int32), params, stage_at(options, step), options)

    shapes: PartialState = jax.eval_shape(begin, jax.random.key(0), backbone.shapes())
    return shapes
