"""Trains a system step by step, in memory: what `loop.fit` drives, and what a notebook does."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
from absl import logging

from dimo_jax.core.types import Batch
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.device_frames import flatten_frames
from dimo_jax.data.sampler import DEPTH, Sampler, Share, batch_sizes, prefetch
from dimo_jax.training import memory, parallel
from dimo_jax.training.data_wait import MAX_AHEAD
from dimo_jax.training.schedules import resolution_at
from dimo_jax.training.system import Capacity, Metrics, Stage, System
from dimo_jax.training.tracker import Tracker


@dataclasses.dataclass
class _Phase:
    """Steps of one stage at one resolution: one compiled step, but for buffers that grow."""

    resolution: int
    until: int
    poses: Sampler | None  # without images, which do not matter for room; None where steps see no pictures
    buffers: Capacity
    train: Callable[..., Any]
    is_compiled: bool = False


class Trainer:
    """Draws batches and takes steps of a system on the devices of this process.

    ```
    trainer = Trainer(config, system, dataset)
    state = trainer.init()
    while trainer.count < trainer.num_steps:
        state, metrics = trainer.step(state, trainer.next_batch())
    ```

    The state is on the devices, replicated where there are several; `trainer.on_host(state)` is one copy of it. A
    step consumes the state that it is given.
    """

    def __init__(
        self, config: Mapping[str, Any], system: System, dataset: Dataset, layout: parallel.Layout | None = None
    ) -> None:
        """Args:
        config: `seed`, `batch`, `num_devices`, `log_every`, `data.held_out_every` and `data.device_gib` count here.
        system: what trains.
        dataset: what it trains on.
        layout: how batches are dealt out to devices; None: as the config and the machine allow. Where a step would
          not fit into their memory, it has more parts.

        Raises:
          UserError: the batch cannot be dealt out to the devices.
        """
        self.config, self.system, self.dataset = config, system, dataset
        self.layout = self._first_layout = layout or parallel.choose_layout(config)
        self._limit = memory.find_limit(config, self.layout)
        self.tracker = Tracker()
        self.count = 0
        self.lost = 0  # pairs that found no room, as of the last look
        self.pause: Callable[[], AbstractContextManager[Any]] = nullcontext  # entered around what is no step's time
        self._key = jax.random.key(config["seed"] + 1)
        on_device = dataset.frames.nbytes <= config["data"].get("device_gib", 0.0) * 2**30
        self._frames = parallel.replicate(flatten_frames(dataset), self.layout) if on_device else None
        self._batches: Iterator[Any] | None = None
        self._phase: _Phase | None = None
        self._pairs: int | None = None
        self._enter_stage()

    @property
    def num_steps(self) -> int:
        """Of all stages."""
        return self.system.stages[-1].last_step

    def init(self, seed: int | None = None) -> Any:
        """The state at step 0, from `seed` or the config's, and a trainer that stands there."""
        return self.resume(self.system.init(jax.random.key(self.config["seed"] if seed is None else seed)))

    def resume(self, state: Any, notes: Mapping[str, Any] | None = None) -> Any:
        """Goes on from a state of one device and what `notes` said beside it; returns it on the devices."""
        self.close()
        self.count = int(state.step)
        self._enter_stage()
        if notes:
            self.tracker.load(notes)
            self._pairs = notes.get("pairs")
            self._repeat_cut(notes.get("parts"))
            self._learn(self.system.from_notes(notes))
        return parallel.replicate(state, self.layout)

    def notes(self) -> dict[str, Any]:
        """What must be known beside a state to go on from it as if nothing had happened.

        Raises:
          LossNotFinite: a loss since the last look is NaN or infinite.
        """
        self.tracker.look()
        begun = self._phase is not None and self.count < self._phase.until
        pairs = self._phase.buffers.pairs if begun and self._phase is not None else None
        parts = math.prod(self.layout.grid) if begun and self.layout != self._first_layout else None
        notes = {**self.tracker.notes(), "pairs": pairs, "parts": parts, **self.system.to_notes(self._host_fixed)}
        if not self.stage.is_whole and self.count < self.stage.last_step:
            notes.pop("score", None)
        return notes

    def next_batch(self) -> Any:
        """The batch of the next step, on the devices; drawn ahead by a thread. None where nothing draws one."""
        if self._batches is None and not self.system.sees_pictures:
            source = self.system.source(self.layout)
            if source is None:
                return None
            place = functools.partial(parallel.place, layout=self.layout)
            self._batches = prefetch(source, self.count, transfer=place)
        if self._batches is None:
            resolution, _ = self._span(self.count)
            share = Share(self._sampler(resolution), self.layout.grid, self.layout.own_parts)
            self._batches = prefetch(share, self.count, transfer=parallel.build_transfer(self.layout, self._frames))
        return next(self._batches)

    def step(self, state: Any, batch: Any) -> tuple[Any, Metrics]:
        """Takes a step, and does what the system has to do between steps; at the end of a stage, begins the next.

        Every `log_every` steps, and where a phase ends, it looks at what steps have reported.

        Raises:
          LossNotFinite: a loss since the last look is NaN or infinite.
        """
        if self._phase is None:
            self._phase = self._begin_phase(state)
        phase = self._phase
        with nullcontext() if phase.is_compiled else self.pause():  # the first call compiles
            if not phase.is_compiled:
                batch = self._fit(phase, state, batch)
            state, metrics = phase.train(state, batch, self._fixed, self._key)
        phase.is_compiled = True
        self.count += 1
        self.tracker.add(self.count, metrics)
        state = self._between(state)
        if self.looks:
            self._look(state, phase)
        if self.count >= phase.until:
            self.close()
            if self.count >= self.stage.last_step:
                state = self._end_stage(state)
        return state, metrics

    @property
    def looks(self) -> bool:
        """Whether the step just taken was one after which reports are looked at."""
        ends = self._phase is not None and self.count >= self._phase.until
        return self.count % self.config["log_every"] == 0 or ends or self._phase is None

    def on_host(self, tree: Any) -> Any:
        """One device's copy of a state or of metrics."""
        return parallel.unreplicate(tree, self.layout)

    def check_equal(self, state: Any) -> None:
        """Raises UserError where devices hold different states."""
        parallel.check_equal(state, self.layout, step=self.count)

    def batch_of(self, step: int) -> Batch | None:
        """What the step that was the `step`-th saw, as NumPy arrays."""
        if not self.system.sees_pictures:
            return None
        return dataclasses.replace(self._sampler(self._span(step - 1)[0]), as_indices=False).sample(step - 1)

    def close(self) -> None:
        """Stops drawing batches; the next step begins a phase."""
        self._drop_batches()
        self._phase = None
        self.layout = self._first_layout

    @property
    def resolution(self) -> int:
        """Image height of the next step."""
        return self._span(self.count)[0]

    def _drop_batches(self) -> None:
        if self._batches is not None:
            self._batches.close()  # type: ignore[attr-defined]
        self._batches = None

    def _enter_stage(self) -> None:
        stages = self.system.stages
        self.stage: Stage = next((stage for stage in stages if self.count < stage.last_step), stages[-1])
        self._host_fixed = dict(self.system.fixed(self.stage))
        self._fixed = parallel.replicate(self._host_fixed, self.layout)
        self._reason = "resuming" if self.count > self.stage.first_step else "new stage"

    def _learn(self, found: Mapping[str, Any]) -> None:
        self._host_fixed |= found
        self._fixed = {**self._fixed, **{name: parallel.replicate(x, self.layout) for name, x in found.items()}}

    def _span(self, step: int) -> tuple[int, int]:
        """Resolution from `step` on, never above the data's, and the step at which it changes."""
        first, phases = self.stage.first_step, self.stage.phases
        limit = self.dataset.cameras.height
        resolution = min(resolution_at(phases, step - first), limit)
        changes = [first + begin for begin, size in phases if first + begin > step and min(size, limit) != resolution]
        return resolution, min([*changes, self.stage.last_step])

    def _sampler(self, resolution: int) -> Sampler:
        return Sampler(
            self.dataset,
            **batch_sizes(self.config),
            resolution=resolution,
            held_out_every=self.config["data"]["held_out_every"],
            seed=self.config["seed"],
            as_indices=self._frames is not None,
        )

    def _begin_phase(self, state: Any) -> _Phase:
        resolution, until = self._span(self.count)
        if not self.system.sees_pictures:
            train = self._compile(Capacity(None), resolution, self._reason)
            self.tracker.begin_phase(1 + list(self.system.stages).index(self.stage), resolution)
            return _Phase(resolution, until, None, Capacity(None), train)
        poses = dataclasses.replace(self._sampler(resolution), as_indices=True)
        # Measured where the phase began, and grown since: measured anew, an overflow would fall on other steps.
        pairs, self._pairs = self._pairs, None
        buffers = Capacity(pairs) if pairs else self.system.measure(
            self.stage, self.on_host(state), jax.device_put(poses.sample(self.count))
        )  # fmt: skip
        train = self._compile(buffers, resolution, self._reason)
        self._reason = "new resolution"
        self.tracker.begin_phase(1 + list(self.system.stages).index(self.stage), resolution)
        return _Phase(resolution, until, poses, buffers, train)

    def _compile(self, buffers: Capacity, resolution: int, reason: str) -> Callable[..., Any]:
        size = f"{resolution} px" if resolution else "no pictures"
        shape = size + (f", {buffers.pairs} pairs an image" if buffers.pairs is not None else "")
        logging.info("%s: compiling the step for %s (%s)", self.stage.name, shape, reason)
        return parallel.parallelize(functools.partial(self.system.build_step, self.stage, buffers), self.layout)

    @property
    def _sizes(self) -> list[int]:
        return [int(self.config["batch"][name]) for name in ("motions", "views", "frames")]

    def _repeat_cut(self, parts: int | None) -> None:
        """Cuts batches as the run did that is gone on with, whatever devices it had: another cut rounds differently."""
        if parts and self._limit is not None:
            accumulate = parts // (self.layout.num_devices * self.layout.num_processes)
            if accumulate > self.layout.accumulate:
                self.layout = parallel.refine(self.layout, self._sizes, least=accumulate) or self.layout

    def _fit(self, phase: _Phase, state: Any, batch: Any) -> Any:
        """Compiles the step of a phase, in as many parts as the memory of the devices asks for; returns their batch.

        jax keeps what is compiled here for the call that follows.
        """
        if self._limit is None or batch is None:
            return batch
        batches = {self.layout: batch}

        def measure(layout: parallel.Layout) -> memory.Need:
            if layout != self.layout:
                self._drop_batches()
                self.layout = layout
                batches[layout] = self.next_batch()
                phase.train = self._compile(phase.buffers, phase.resolution, f"in {layout.accumulate} parts")
            step = phase.train.lower(state, batches[layout], self._fixed, self._key)  # type: ignore[attr-defined]
            return memory.need_of(step.compile())

        what = f"a step of {self.stage.name} at {phase.resolution} px"
        ahead = (MAX_AHEAD + DEPTH) * memory.bytes_on_device(batch)  # of steps under way, and drawn by the thread
        kept = memory.bytes_on_device(self._frames)
        layout, need = memory.choose_parts(
            measure, self.layout, self._sizes, self._limit, what=what, beside=ahead + kept
        )
        parts = "1 part" if layout.accumulate == 1 else f"{layout.accumulate} parts, one after the other,"
        gib = (need.total + ahead + kept) / memory.GIB
        logging.info("%s: in %s needs %.3g of %.3g GiB", what, parts, gib, self._limit / memory.GIB)
        return batches[layout]

    def _between(self, state: Any) -> Any:
        action = self.system.between(self.stage, self.count)
        if action is not None:
            key = jax.random.fold_in(self._key, self.count)
            state = parallel.replicate(action(self.on_host(state), key), self.layout)
        learn = self.system.observe(self.stage, self.count)
        if learn is not None and self._phase is not None:
            start = time.perf_counter()
            with self.pause():
                self._learn(learn(self.on_host(state), self._phase.buffers))
            logging.info("looked at the state after step %d for %.1f s", self.count, time.perf_counter() - start)
        return state

    def _look(self, state: Any, phase: _Phase) -> None:
        self.tracker.look()
        self.lost = self.tracker.take_lost()
        if not self.lost or phase.poses is None:
            return
        logging.warning("step %d: %d Gaussian-tile pairs found no room since the last look", self.count, self.lost)
        seen = jax.device_put(phase.poses.sample(self.count - 1))
        phase.buffers = phase.buffers.grow(self.system.measure(self.stage, self.on_host(state), seen).pairs or 0)
        phase.train, phase.is_compiled = self._compile(phase.buffers, phase.resolution, "more capacity"), False

    def _end_stage(self, state: Any) -> Any:
        ended = self.system.end(self.stage, self.on_host(state))
        if self.count < self.num_steps:
            self._enter_stage()
        return parallel.replicate(ended, self.layout)
