"""DIMO as the engine sees it: what `training.system.System` asks, from a config and the sizes of its data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, Batch
from dimo_jax.data.dataset import Dataset, motions_in, train_frames
from dimo_jax.skinning.weights import control_radii
from dimo_jax.systems.dimo import capacity, checks, free_poses, stages, turns
from dimo_jax.systems.dimo.fixed_inputs import load_fixed
from dimo_jax.systems.dimo.free_poses import FreeState
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.dimo.sentences import read_joint_sentences
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import StepOptions, build_step
from dimo_jax.training.schedules import due
from dimo_jax.training.system import Capacity, Stage, Step


class Dimo:
    """A motion space of one object, in two stages (paper Sec. 3.3), and a third where the config asks for one."""

    sees_pictures = True

    def __init__(self, config: ConfigDict, dataset: Dataset) -> None:
        """Args:
        config: of the run.
        dataset: what it trains on; of its sentences all that train are read with `config.text.joint`.

        Raises:
          UserError: a component that cannot be resolved; a motion without words, where they train.
        """
        self.config, self.dataset = config, dataset
        joint = config.get("text", {}).get("joint", False)
        self._sentences = read_joint_sentences(config, dataset) if joint else None
        self.components = build_components(config)
        self._stages = stages.build_stages(config)
        self.stages = tuple(stage.span for stage in self._stages)
        self._sizes = dict(num_motions=dataset.num_motions, num_frames=dataset.num_frames)
        if self._sentences is not None:
            self._sizes["num_text_features"] = self._sentences.inputs.shape[-1]
        self._prune = jax.jit(functools.partial(stages.prune_gaussians, config=config))
        self._control_density = jax.jit(
            functools.partial(stages.control_density, config=config), static_argnames=("grows", "thins")
        )
        refresh = functools.partial(
            stages.refresh, components=self.components, times=stages.frame_times(dataset.num_frames)
        )
        self._refresh = jax.jit(refresh, static_argnames="points_are_controls")

    check = staticmethod(checks.check)

    def facts(self) -> dict[str, int]:
        """The length of a sentence's embedding, where a projector is trained with the latents; else 0."""
        return dict(num_text_features=self._sizes.get("num_text_features", 0))

    def options(self, stage: Stage) -> StepOptions:
        """Static choices of a stage."""
        return self._own(stage).options

    def init(self, key: Array) -> TrainState:
        """The first stage's first state; without a first stage, the second's."""
        # Compiled as a whole: one by one, its operations take seconds to compile.
        begin = jax.jit(lambda key: stages.begin_first(self.config, self.components, **self._sizes, key=key))
        state: TrainState = begin(key)
        if self.stages[0].last_step == 0:
            logging.info("no first stage: %d key points from its first points", self.config.num_key_points)
            state = self._begin_second(state)
        return state

    def template(self, step: int) -> TrainState:
        """See `training.system.System`."""
        return stages.template(self.config, self.components, step=step, **self._sizes)

    def fixed(self, stage: Stage) -> dict[str, Any]:
        """Perceptual networks, sentences, and the turns that are known."""
        terms = self.options(stage).terms
        searches = turns.searched_after(terms, stage.first_step) is not None
        known = turns.no_turns(self.dataset.num_motions, self.dataset.num_frames) if searches else None
        return load_fixed(terms, self._sentences, known)

    def measure(self, stage: Stage, state: TrainState, batch: Batch) -> Capacity:
        """See `training.system.System`."""
        return capacity.measure(state, self.components, self.options(stage), batch)

    def build_step(self, stage: Stage, buffers: Capacity, *, axis_name: str | None, accumulate: int) -> Step:
        """See `training.system.System`."""
        options = capacity.with_buffers(self.options(stage), buffers)
        build = build_step if stage.is_whole else free_poses.build_step
        return build(self.components, options, axis_name=axis_name, accumulate=accumulate)

    def between(self, stage: Stage, step: int) -> Callable[[TrainState, Array], TrainState] | None:
        """Density control, pruning, a fresh motion graph."""
        if not stage.is_whole:  # the third
            return None
        own = self._own(stage)
        config, local, points_are_controls = own.config, step - stage.first_step, own.options.points_are_controls
        actions: list[Callable[[TrainState, Array], TrainState]] = []
        if points_are_controls:
            grows = due(local, every=config.densify_every, start=config.densify_from, until=config.densify_until)
            thins = due(local, every=config.anneal_every, start=1, until=config.num_steps)
            if grows or thins:
                actions.append(lambda state, key: self._control_density(state, key=key, grows=grows, thins=thins))
        elif due(local, every=config.prune_every, start=1, until=config.prune_until):
            actions.append(lambda state, key: self._prune(state))
        if actions or due(local, every=config.refresh_every, start=1):
            actions.append(lambda state, key: self._refresh(state, points_are_controls=points_are_controls))
        if not actions:
            return None
        return lambda state, key: functools.reduce(lambda current, action: action(current, key), actions, state)

    def observe(self, stage: Stage, step: int) -> Callable[[TrainState, Capacity], dict[str, Any]] | None:
        """The search for turns of the whole body, where the stage looks at them."""
        options = self.options(stage)
        if step != turns.searched_after(options.terms, stage.first_step):
            return None
        find = resolve(self.config.turns, key="turns")
        held_out_every = self.config.data.held_out_every
        return lambda state, buffers: dict(
            turns=find(state, capacity.with_buffers(options, buffers), self.dataset, held_out_every=held_out_every)
        )

    def to_notes(self, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The turns that were found."""
        return dict(turns=turns.to_notes(fixed["turns"]) if "turns" in fixed else None)

    def from_notes(self, notes: Mapping[str, Any]) -> dict[str, Any]:
        """The turns that were found."""
        return dict(turns=turns.from_notes(notes["turns"])) if notes.get("turns") else {}

    def end(self, stage: Stage, state: TrainState) -> TrainState:
        """After the first stage: key points chosen, Gaussians placed around them; the third has free poses."""
        if stage == self.stages[0]:
            stages.report_first_stage(state, self.config)
            return self._begin_second(state)
        if isinstance(state, FreeState):
            return self._end_third(state)
        return state if stage == self.stages[-1] else self._begin_third(state)

    def histograms(self, state: TrainState) -> dict[str, np.ndarray]:
        """What density control and skinning look at."""
        gaussians, alive = state.params.gaussians, np.asarray(state.alive)
        return dict(
            opacity=np.asarray(jax.nn.sigmoid(gaussians.logit_opacities))[alive],
            scale=np.exp(np.asarray(gaussians.log_scales)[alive]),
            radius=np.asarray(
                control_radii(state.params.key_points.log_radii, power=float(self.config.get("radius_power", 2.0)))
            ),
        )

    def _begin_second(self, state: TrainState) -> TrainState:
        """Compiled as a whole; at step 0 that of a run without motion pre-training."""
        begin = functools.partial(
            stages.begin_second, config=self.config, components=self.components, num_frames=self.dataset.num_frames
        )
        second: TrainState = jax.jit(begin)(
            state, jax.random.fold_in(jax.random.key(self.config.seed + 1), int(state.step))
        )
        return second

    def _begin_third(self, state: TrainState) -> TrainState:
        begin = functools.partial(
            stages.begin_third, config=self.config, components=self.components, num_frames=self.dataset.num_frames
        )
        third: TrainState = jax.jit(begin)(state)
        return third

    def _end_third(self, state: FreeState) -> TrainState:
        """Compiled as a whole; says how far the decoder came."""
        end = functools.partial(
            stages.end_third,
            config=self.config,
            components=self.components,
            motions=jnp.asarray(motions_in(self.dataset, "train")),
            frames=jnp.asarray(train_frames(self.dataset, self.config.data.held_out_every)),
        )
        logging.info("stage3: fitting the decoder to the poses that pictures have moved")
        ended, losses = jax.jit(end)(state, jax.random.fold_in(jax.random.key(self.config.seed + 1), int(state.step)))
        off = np.sqrt(np.asarray(losses)[[0, -1]])
        logging.info("stage3: the decoder was %.3g off at first, and is %.3g (world units)", *off)
        fitted: TrainState = ended
        return fitted

    def _own(self, stage: Stage) -> stages.DimoStage:
        return self._stages[self.stages.index(stage)]
