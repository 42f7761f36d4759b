"""Schedules: functions of the step within a stage."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from dimo_jax.core.errors import UserError


def log_linear(
    *, initial: float, final: float, num_steps: int, start: int = 0, warmup_steps: int = 0
) -> optax.Schedule:
    """`initial` until step `start`, then straight in the logarithm to `final` in `num_steps`, then `final`.

    The decay of 3DGS's and the authors' learning rates. Equal values, 0 among them, make a constant. Over the first
    `warmup_steps` the value grows linearly from nearly 0: Adam's first steps are of full length in every weight, and
    a decoder may throw a whole motion out of the pictures, from where no gradient leads back.

    Raises:
      UserError: values that differ and are not both positive.
    """
    if initial == final and not warmup_steps:
        return optax.constant_schedule(initial)
    if initial <= 0 or final <= 0:
        raise UserError(f"log_linear schedule: found initial {initial} and final {final}, expected positive values")

    def schedule(step: optax.Numeric) -> optax.Numeric:
        share = jnp.clip((step - start) / max(num_steps, 1), 0.0, 1.0)
        warm = jnp.clip((step + 1) / max(warmup_steps, 1), 0.0, 1.0)
        return warm * jnp.exp((1 - share) * jnp.log(initial) + share * jnp.log(final))

    return schedule


def resolution_at(phases: Sequence[tuple[int, int]], step: int) -> int:
    """Pixels at `step`: phases ((first step, resolution), ...) in ascending order, the first starting at 0."""
    return [resolution for first, resolution in phases if first <= step][-1]


def due(step: int, *, every: int, start: int = 0, until: int | None = None) -> bool:
    """Whether something that happens every so many steps (0: never), from `start` to `until`, happens after `step`."""
    return every > 0 and step % every == 0 and step >= start and (until is None or step <= until)
