"""What the engine asks of a thing that trains; `systems/` fulfils it. The engine knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import flax.struct
from absl import logging

from dimo_jax.core.types import Array, Batch
from dimo_jax.data.sampler import Batches
from dimo_jax.training.parallel import Layout


class Metrics(flax.struct.PyTreeNode):
    """Scalars of one step; they stay on the device until somebody logs them."""

    loss: Array
    terms: dict[str, Array]
    psnr: Array  # of the batch's images, over the whole frame
    overflow: Array  # Gaussian-tile pairs that found no room
    preview: Array  # [2,H,W,3] truth and rendering of the batch's first image


@dataclass(frozen=True)
class Stage:
    """A span of steps with one set of parameters, losses and rates."""

    name: str
    first_step: int  # of the whole run
    last_step: int
    phases: Sequence[tuple[int, int]]  # (step within the stage, image height from there on)
    is_whole: bool = True  # its states are models; else only that with which it ends, and no other may be the best


@dataclass(frozen=True)
class Capacity:
    """Gaussian-tile pairs per image that the render buffers hold; None where the backend needs no static buffers."""

    pairs: int | None

    def grow(self, needed: int) -> Capacity:
        """At least half as much again, and enough for `needed` pairs an image."""
        if self.pairs is None:
            return self
        grown = max(self.pairs + self.pairs // 2, needed)
        logging.info("render buffers grow from %d to %d pairs an image; the step recompiles", self.pairs, grown)
        return replace(self, pairs=grown)


class State(Protocol):
    """What a step takes and returns: a pytree of arrays whose shapes are static within a stage."""

    @property
    def step(self) -> Array:
        """[] int32, steps taken in all stages."""
        ...

    @property
    def params(self) -> Any:
        """What the optimizer moves."""
        ...

    @property
    def optimizer(self) -> Any:
        """State of the optax optimizer."""
        ...


Step = Callable[[Any, Batch, Mapping[str, Any], Array], tuple[Any, Metrics]]


class System(Protocol):
    """A model with its losses and its training schedule.

    A subclass has defaults for what it does without: facts, what it observes, and another state at the end of a stage.

    States are the system's own pytrees (`State`). All methods are called on the host, with states of one device.
    What `config.system` names is called with a config and a dataset and returns one; its attribute `check` takes a
    config alone and raises UserError for what is wrong in it.
    """

    sees_pictures: bool = True  # False: its steps get what `source` draws, or None, and see what is in `fixed`

    @property
    def stages(self) -> Sequence[Stage]:
        """One after the other, without gaps."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What the shapes of its states depend on beside the config and the dataset's sizes, as JSON has it."""
        return {}

    def init(self, key: Array) -> Any:
        """The state at step 0."""
        ...

    def template(self, step: int) -> Any:
        """Shapes and types of the state after `step` steps, without computing it: what a checkpoint must hold."""
        ...

    def fixed(self, stage: Stage) -> Mapping[str, Any]:
        """Arrays that the stage's step uses and does not move."""
        ...

    def source(self, layout: Layout) -> Batches | None:
        """What draws the batches of a system that sees no pictures of motions; None: nothing does.

        `sample(step)` gives a pytree of arrays with a leading axis over `layout.own_parts`.
        """
        return None

    def measure(self, stage: Stage, state: Any, batch: Batch) -> Capacity:
        """Capacity to spare in the render buffers for the images of `batch` as the model now stands."""
        ...

    def build_step(self, stage: Stage, buffers: Capacity, *, axis_name: str | None, accumulate: int) -> Step:
        """The step as a pure function (state, batch, fixed, key) -> (state, metrics); see `step.build_step`."""
        ...

    def between(self, stage: Stage, step: int) -> Callable[[Any, Array], Any] | None:
        """What happens to the state (state, key) -> state after `step` steps of the run; None: nothing."""
        ...

    def observe(self, stage: Stage, step: int) -> Callable[[Any, Capacity], Mapping[str, Any]] | None:
        """What is to be learnt from (state, buffers) after `step`: new values for entries of `fixed`; None: nothing."""
        return None

    def to_notes(self, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint must say, as JSON has it, of the entries that `observe` changes."""
        return {}

    def from_notes(self, notes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The entries of `fixed` that a checkpoint's notes hold."""
        return {}

    def end(self, stage: Stage, state: Any) -> Any:
        """The state that the next stage begins with; after the last stage, what the run ends with."""
        return state

    def histograms(self, state: Any) -> Mapping[str, Any]:
        """Arrays of a state whose distributions are worth watching, by name."""
        ...
