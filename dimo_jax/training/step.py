"""One training step of any system: gradients of the parts of a batch, their sum, the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from dimo_jax.core.types import Array, Batch
from dimo_jax.training import parallel
from dimo_jax.training.system import Metrics, Step


class Part(NamedTuple):
    """What a part of a batch adds to a step: averaged over the parts, or summed."""

    means: Any
    sums: Any


Differentiate = Callable[[Any, Batch, Mapping[str, Any], Array], tuple[Part, Array]]
Update = Callable[[Any, Part, Array], tuple[Any, Metrics]]


def build_step(differentiate: Differentiate, update: Update, *, axis_name: str | None, accumulate: int) -> Step:
    """The step as a pure function (state, batch, fixed, key) -> (state, metrics).

    Runs unmapped (`axis_name` None) or under `jax.pmap`, where parts are averaged and summed over the named axis. The
    key is folded by the state's step.

    Args:
      differentiate: (state, part of a batch, fixed, key) -> its share of the step, and its preview.
      update: (state, the whole batch's means and sums, preview) -> the next state, and metrics.
      axis_name: of the mapped devices.
      accumulate: with more than 1, every array of the batch has a leading axis over so many parts of equal size, which
        are computed one after the other: the memory of one part, the update of all.
    """

    def step(state: Any, batch: Batch, fixed: Mapping[str, Any], key: Array) -> tuple[Any, Metrics]:
        key = jax.random.fold_in(key, state.step)

        def one(part: Batch) -> tuple[Part, Array]:
            # The barriers, here and below, keep the compiler from weaving the parts, their sum and the update into
            # each other, which it would do in another way, and so round differently, for every way to deal out parts.
            inputs = jax.lax.optimization_barrier((state, part, fixed, key))
            own = differentiate(*inputs)
            return jax.lax.optimization_barrier(own)

        if accumulate > 1:
            parts, previews = jax.lax.map(one, batch)
        else:
            parts, previews = jax.tree.map(lambda x: x[None], one(batch))
        num_parts = accumulate * (1 if axis_name is None else jax.lax.axis_size(axis_name))
        total = jax.lax.optimization_barrier(parallel.sum_parts(parts, axis_name))
        return update(state, Part(jax.tree.map(lambda x: x / num_parts, total.means), total.sums), previews[0])

    return step
