"""Runs both stages: batches in, checkpoints and metrics out, and a recompilation only where a shape changes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Batch, Turns
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.device_frames import flatten_frames
from dimo_jax.data.sampler import Sampler, Share, batch_sizes, prefetch
from dimo_jax.runtime.progress import Progress
from dimo_jax.systems.dimo import capacity as capacities
from dimo_jax.systems.dimo import stages, turns
from dimo_jax.systems.dimo.fixed_inputs import load_fixed
from dimo_jax.systems.dimo.model import Components, build_components
from dimo_jax.systems.dimo.projector import SentenceInputs
from dimo_jax.systems.dimo.stages import Stage
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import build_step
from dimo_jax.training import parallel
from dimo_jax.training.data_wait import MAX_AHEAD, DataWait
from dimo_jax.training.save_policy import SavePolicy, Store, never
from dimo_jax.training.schedules import resolution_at
from dimo_jax.training.system import Metrics
from dimo_jax.training.tracker import LossNotFinite, Tracker


class Watcher(Protocol):
    """Who wants to know how training goes (metrics file, TensorBoard); given by the app."""

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Scalars of one step."""
        ...

    def images(self, step: int, stage: str, state: TrainState, preview: np.ndarray) -> None:
        """Pictures of one step: `preview` [2,H,W,3] in 0..1 is the truth and the rendering of one image."""
        ...

    def resumed(self, step: int) -> None:
        """Training begins (0) or goes on after `step`; what an earlier process recorded of later steps is void."""
        ...


@dataclass(frozen=True)
class Trained:
    """What training ends with."""

    components: Components
    state: TrainState
    seconds: dict[str, float]  # per stage, of this process


def fit(
    config: ConfigDict,
    dataset: Dataset,
    checkpoints: Store,
    watcher: Watcher,
    *,
    stop: Callable[[], str] = never,
    sentences: SentenceInputs | None = None,
) -> Trained:
    """Trains, or goes on where the last checkpoint stands.

    Args:
      config: of the run.
      dataset: what it trains on.
      checkpoints: where states are kept.
      watcher: who wants to know.
      stop: asked after every step for a reason to save and stop ("SIGTERM"), or "".
      sentences: needed with `config.text.joint`.

    Raises:
      UserError: the config does not fit the data.
      LossNotFinite: a loss or parameter is NaN or infinite; its `batch` is what the bad step saw.
      WriteFailed: a checkpoint could not be written.
      Stopped: `stop` gave a reason; the state is saved.
    """
    components = build_components(config)
    seconds = {"stage1": 0.0, "stage2": 0.0}
    sizes = dict(num_motions=dataset.num_motions, num_frames=dataset.num_frames)
    if sentences is not None:
        sizes["num_text_features"] = sentences.inputs.shape[-1]
    tracker = Tracker()
    keeper = SavePolicy(
        checkpoints,
        tracker,
        every=config.checkpoint_every,
        minutes=config.checkpoint_minutes,
        agree_every=config.log_every,
        stop=stop,
    )
    notes: Mapping[str, Any] = {}
    restored = checkpoints.restore_latest(lambda step: stages.template(config, components, step=step, **sizes))
    watcher.resumed(0 if restored is None else restored[0])
    if restored is None:
        # Compiled as a whole: one by one, its operations take seconds to compile.
        begin = jax.jit(lambda key: stages.begin_first(config, components, **sizes, key=key))
        state = begin(jax.random.key(config.seed))
        if config.stage1.num_steps == 0:
            logging.info("no first stage: %d key points from its first points", config.num_key_points)
            state = _begin_second(config, components, state, step=0, num_frames=dataset.num_frames)
    else:
        logging.info("resuming after step %d", restored[0])
        state, notes = restored[1], checkpoints.notes(restored[0])
        tracker.load(notes)
    for stage in stages.build_stages(config):
        if int(state.step) >= stage.last_step:
            continue
        start = time.perf_counter()
        runner = StageRunner(config, dataset, components, stage, keeper, tracker, watcher, sentences)
        try:
            state = runner.run(state, notes)
        except LossNotFinite as error:
            error.batch = runner.batch_of(error.step)
            raise
        notes = {}
        seconds[stage.name] = time.perf_counter() - start
    checkpoints.wait()
    return Trained(components, state, seconds)


def _begin_second(
    config: ConfigDict, components: Components, state: TrainState, *, step: int, num_frames: int
) -> TrainState:
    """The second stage's first state, compiled as a whole; at step 0 that of a run without motion pre-training."""
    begin = functools.partial(stages.begin_second, config=config, components=components, num_frames=num_frames)
    return jax.jit(begin)(state, jax.random.fold_in(jax.random.key(config.seed + 1), step))


class StageRunner:
    """The loop of one stage."""

    def __init__(
        self,
        config: ConfigDict,
        dataset: Dataset,
        components: Components,
        stage: Stage,
        keeper: SavePolicy,
        tracker: Tracker,
        watcher: Watcher,
        sentences: SentenceInputs | None = None,
    ) -> None:
        self.config, self.dataset, self.components = config, dataset, components
        self.stage, self.keeper, self.tracker, self.watcher = stage, keeper, tracker, watcher
        self.layout = parallel.choose_layout(config)
        self.waiting = DataWait()
        on_device = dataset.frames.nbytes <= config.data.get("device_gib", 0.0) * 2**30
        self.frames = parallel.replicate(flatten_frames(dataset), self.layout) if on_device else None
        self.key = jax.random.key(config.seed + 1)
        self.times = stages.frame_times(dataset.num_frames)
        self.searches_after = turns.searched_after(stage.options.terms, stage.first_step)
        searched = self.searches_after is not None
        self.turns = turns.no_turns(dataset.num_motions, dataset.num_frames) if searched else None
        self.frozen = parallel.replicate(load_fixed(stage.options.terms, sentences, self.turns), self.layout)
        points_are_controls = stage.options.points_are_controls
        self.refresh = jax.jit(
            functools.partial(
                stages.refresh, components=components, times=self.times, points_are_controls=points_are_controls
            )
        )
        self.control_density = jax.jit(
            functools.partial(stages.control_density, config=config), static_argnames=("grows", "thins")
        )
        self.prune = jax.jit(functools.partial(stages.prune_gaussians, config=config))

    def run(self, state: TrainState, notes: Mapping[str, Any]) -> TrainState:
        """From the state's step to the end of the stage; after the first stage, the second's first state.

        `notes` are those of the checkpoint that the state comes from: "pairs", the room of the render buffers within a
        phase, and "turns", what was found.
        """
        pairs = notes.get("pairs")
        if self.turns is not None and notes.get("turns"):
            self._remember(turns.from_notes(notes["turns"]))
        stage, config = self.stage, self.config
        step = int(state.step)
        reason = "resuming" if step > stage.first_step else "new stage"
        total = config.stage1.num_steps + config.stage2.num_steps
        # In a log the watcher's line a minute stands in place of the bar.
        with Progress(
            total, stage.name, unit="step", initial=step, delay=0.0, leave=True, lines=False, ahead=MAX_AHEAD
        ) as progress:
            while step < stage.last_step:
                resolution, until = self._phase(step)
                state = self._run_phase(state, step, until, resolution, progress, pairs, reason=reason)
                step, pairs, reason = until, None, "new resolution"
        logging.info("%s: %s", stage.name, self.waiting.describe())
        if stage.options.points_are_controls:
            stages.report_first_stage(state, config)
            state = _begin_second(config, self.components, state, step=step, num_frames=self.dataset.num_frames)
        self.keeper.is_due(step)  # asks for signals; what ends a stage is saved in any case
        self.keeper.save(step, state)
        return state

    def _find_turns(self, state: TrainState, room: capacities.Capacity) -> Turns:
        options = capacities.with_room(self.stage.options, room)
        find = resolve(self.config.turns, key="turns")
        start = time.perf_counter()
        found: Turns = find(state, options, self.dataset, held_out_every=self.config.data.held_out_every)
        logging.info("searched for turns of the whole body in %.1f s", time.perf_counter() - start)
        return found

    def _remember(self, found: Turns) -> None:
        """What the term `turn` looks at from now on."""
        self.turns = found
        self.frozen = {**self.frozen, "turns": parallel.replicate(found, self.layout)}

    def batch_of(self, step: int) -> Batch:
        """What the step that was the `step`-th saw, on the host."""
        return dataclasses.replace(self._sampler(self._phase(step - 1)[0]), as_indices=False).sample(step - 1)

    def _sampler(self, resolution: int) -> Sampler:
        config = self.config
        return Sampler(
            self.dataset,
            **batch_sizes(config),
            resolution=resolution,
            held_out_every=config.data.held_out_every,
            seed=config.seed,
            as_indices=self.frames is not None,
        )

    def _phase(self, step: int) -> tuple[int, int]:
        """Resolution from `step` on, never above the data's, and the step at which it changes."""
        first, phases = self.stage.first_step, self.stage.config["phases"]
        limit = self.dataset.cameras.height
        resolution = min(resolution_at(phases, step - first), limit)
        changes = [first + begin for begin, size in phases if first + begin > step and min(size, limit) != resolution]
        return resolution, min([*changes, self.stage.last_step])

    def _run_phase(
        self,
        state: TrainState,
        step: int,
        until: int,
        resolution: int,
        progress: Progress,
        pairs: int | None,
        *,
        reason: str,
    ) -> TrainState:
        config, stage, devices = self.config, self.stage, self.layout
        sampler = self._sampler(resolution)
        # Measured where the phase began, and grown since: measured anew, an overflow would fall on other steps.
        poses = dataclasses.replace(sampler, as_indices=True)  # without images, which do not matter for that
        room = capacities.Capacity(pairs) if pairs else capacities.measure(
            state, self.components, stage.options, jax.device_put(poses.sample(step))
        )  # fmt: skip
        train, is_new = self._compile(room, resolution, reason), True
        tracker = self.tracker
        tracker.begin_phase(1 if stage.options.points_are_controls else 2, resolution)
        state = parallel.replicate(state, devices)
        share = Share(sampler, devices.grid, devices.own_parts)
        batches = prefetch(share, step, transfer=parallel.build_transfer(devices, self.frames))
        try:
            for batch in self.waiting.over(batches):
                with progress.pause() if is_new else contextlib.nullcontext():  # the first call compiles
                    state, metrics = train(state, batch, self.frozen, self.key)
                is_new = False
                self.waiting.dispatched(metrics.loss)
                step += 1
                tracker.add(step, metrics)
                progress.update()
                state = self._between(state, step)
                if step == self.searches_after:
                    with progress.pause():
                        self._remember(self._find_turns(parallel.unreplicate(state, devices), room))
                if step % config.log_every == 0 or step == until:
                    tracker.look()
                    lost = tracker.take_lost()
                    self._log(step, resolution, metrics, lost, progress)
                    if lost:
                        logging.warning("step %d: %d Gaussian-tile pairs found no room since the last look", step, lost)
                        seen = jax.device_put(poses.sample(step - 1))
                        room = room.grow(capacities.measure(
                            parallel.unreplicate(state, devices), self.components, stage.options, seen
                        ).pairs or 0)  # fmt: skip
                        train, is_new = self._compile(room, resolution, "more capacity"), True
                if config.image_every and step % config.image_every == 0:
                    preview = jax.device_get(parallel.unreplicate(metrics.preview, devices))
                    self.watcher.images(step, stage.name, parallel.unreplicate(state, devices), preview)
                if step < stage.last_step and self.keeper.is_due(step):
                    parallel.check_equal(state, devices, step=step)
                    here = parallel.unreplicate(state, devices)
                    found = turns.to_notes(self.turns) if self.turns is not None else None
                    self.keeper.save(step, here, pairs=room.pairs if step < until else None, turns=found)
                if step >= until:
                    break
        finally:
            batches.close()  # type: ignore[attr-defined]
        return parallel.unreplicate(state, devices)

    def _between(self, state: TrainState, step: int) -> TrainState:
        """What happens between two steps: density control, pruning, a fresh motion graph."""
        stage, config = self.stage, self.stage.config
        local = step - stage.first_step
        devices = self.layout
        actions: list[Callable[[TrainState], TrainState]] = []
        if stage.options.points_are_controls:
            grows = stages.due(local, every=config.densify_every, start=config.densify_from, until=config.densify_until)
            thins = stages.due(local, every=config.anneal_every, start=1, until=config.num_steps)
            if grows or thins:
                key = jax.random.fold_in(self.key, step)
                actions.append(functools.partial(self.control_density, key=key, grows=grows, thins=thins))
        elif stages.due(local, every=config.prune_every, start=1, until=config.prune_until):
            actions.append(self.prune)
        if actions or stages.due(local, every=config.refresh_every, start=1):
            actions.append(self.refresh)
        if not actions:
            return state
        single = parallel.unreplicate(state, devices)
        for action in actions:
            single = action(single)
        return parallel.replicate(single, devices)

    def _compile(self, room: capacities.Capacity, resolution: int, reason: str) -> Callable[..., Any]:
        shape = f"{resolution} px" + (f", {room.pairs} pairs an image" if room.pairs is not None else "")
        logging.info("%s: compiling the step for %s (%s)", self.stage.name, shape, reason)
        options = capacities.with_room(self.stage.options, room)
        return parallel.parallelize(functools.partial(build_step, self.components, options), self.layout)

    def _log(self, step: int, resolution: int, metrics: Metrics, lost: int, progress: Progress) -> None:
        values = jax.device_get(parallel.unreplicate(metrics, self.layout))
        scalars = {"loss": float(values.loss), "psnr": float(values.psnr), "resolution": resolution, "overflow": lost}
        scalars["data_wait"] = self.waiting.take_share()  # of the device's time
        scalars["compile_seconds"] = progress.pace.take_paused()  # and of the search for turns
        scalars |= {f"loss/{name}": float(value) for name, value in values.terms.items()}
        progress.tell(loss=f"{scalars['loss']:.4g}", psnr=f"{scalars['psnr']:.2f}")
        self.watcher.scalars(step, self.stage.name, scalars)
