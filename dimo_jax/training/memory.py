"""Whether a step fits into the memory of a device, and into how many parts its batch is cut so that it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dimo_jax.core.errors import UserError
from dimo_jax.training.parallel import Layout, refine

GIB, MIB = 2**30, 2**20
# Of what a device lets jax take: the rest is lost between pieces, for a step's temporaries are one piece.
SHARE = 0.9
_REFUSED = ("RESOURCE_EXHAUSTED", "Ran out of memory")


@dataclass(frozen=True)
class Need:
    """Bytes that a compiled program takes of one device."""

    arguments: int
    temporaries: int
    results: int  # beside those that take the place of donated arguments
    code: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.arguments + self.temporaries + self.results + self.code


def need_of(compiled: Any) -> Need:
    """What a program takes, by its compiler's own analysis."""
    found = compiled.memory_analysis()
    return Need(
        arguments=found.argument_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        results=found.output_size_in_bytes - found.alias_size_in_bytes,
        code=found.generated_code_size_in_bytes,
    )


def find_limit(config: Mapping[str, Any], layout: Layout) -> int | None:
    """Bytes of each device that a step may take, the same for all processes of a run; None where nobody knows.

    That is `config.batch.memory_gib`, or where it is 0 most of what the devices themselves name, which CPUs do not.
    """
    chosen = float(config["batch"].get("memory_gib", 0.0))
    if chosen:
        return int(chosen * GIB)
    own = _limit_here(layout)
    if layout.num_processes > 1:
        # Processes that cut their batches differently would wait for each other for ever.
        own = int(np.min(multihost_utils.process_allgather(np.int32(own // MIB)))) * MIB
    return own or None


def _limit_here(layout: Layout) -> int:
    """What this process's smallest device names; 0 where one names nothing."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()[: layout.num_devices]]
    return int(SHARE * min(int(each.get("bytes_limit", 0)) for each in stats))


def bytes_on_device(tree: Any) -> int:
    """What arrays take of this process's first device."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)


def choose_parts(
    measure: Callable[[Layout], Need],
    layout: Layout,
    sizes: Sequence[int],
    limit: int,
    *,
    what: str,
    beside: int = 0,
) -> tuple[Layout, Need]:
    """The layout with the fewest parts, at least those of `layout`, of which a step fits.

    Where a step does not fit, its temporaries say how many parts it takes if they shrink as parts do, so that few
    programs are compiled.

    Args:
      measure: compiles the step of a layout and says what it takes.
      layout: to begin with.
      sizes: of the batch: motions, views, frames.
      limit: bytes that there are.
      what: names the step, for the error.
      beside: bytes that the run keeps on the device besides.

    Raises:
      UserError: it does not fit in the smallest parts that the batch can be cut into either.
    """
    while True:
        need, refused = _try(measure, layout)
        if need is not None and need.total + beside <= limit:
            return layout, need
        finer = refine(layout, sizes, least=_guess(need, layout, limit - beside))
        if finer is None:
            found = refused if need is None else f"{(need.total + beside) / GIB:.3g} GiB of each device"
            raise UserError(
                f"config.batch: {what} needs {found} in {layout.accumulate} parts, the most that a batch of "
                f"{' x '.join(map(str, sizes))} (motions, views, frames) has here, expected at most {limit / GIB:.3g} "
                "GiB (a smaller resolution or fewer Gaussians need less; config.batch.memory_gib sets another limit)"
            )
        layout = finer


def _try(measure: Callable[[Layout], Need], layout: Layout) -> tuple[Need | None, str]:
    """What the step takes, or None and the words with which its compiler refuses it for its size."""
    try:
        return measure(layout), ""
    except jax.errors.JaxRuntimeError as error:
        line = refusal(error)
        if line is None:
            raise
        return None, f"more than there is ({line})"


def refusal(error: BaseException) -> str | None:
    """The line with which a compiler says that a program is too large; None where it says something else."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line[:200] for line in lines if any(word in line for word in _REFUSED)), None)


def _guess(need: Need | None, layout: Layout, limit: int) -> int:
    """Parts that should suffice."""
    if need is None:
        return 2 * layout.accumulate
    room = limit - (need.total - need.temporaries)
    # Where not even the arguments fit, the finest cut shows it.
    return math.ceil(layout.accumulate * need.temporaries / room) if room > 0 else 2**31
