"""Adam with one learning rate per group of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, Params

GAUSSIANS = ("means", "log_scales", "quats", "logit_opacities", "sh")
GROUPS = ("latents", "decoder", "positions", "log_radii", *GAUSSIANS)
ADAM_B2 = 0.999
POSES = ("translations", "rotations")  # of key points, where they learn by themselves
OPTIONAL_GROUPS = ("projector", "light")  # rate 0 where none is given


class GroupState(NamedTuple):
    """Steps taken, for the schedules."""

    steps: Array


def label(params: Params) -> Params:
    """Names the group of every leaf: a tree like `params`, its leaves of `GROUPS`, `OPTIONAL_GROUPS` and `POSES`."""

    def name(path: tuple[Any, ...], _: Array) -> str:
        names = [str(getattr(entry, "name", "")) for entry in path]
        return names[0] if names[0] in (*GROUPS, *OPTIONAL_GROUPS, *POSES) else names[1]

    return jax.tree_util.tree_map_with_path(name, params)


def scale_by_groups(schedules: Mapping[str, optax.Schedule]) -> optax.GradientTransformation:
    """Multiplies the updates of each group by minus its schedule's value."""

    def init(params: Params) -> GroupState:
        del params
        return GroupState(steps=jnp.zeros([], jnp.int32))

    def update(updates: Params, state: GroupState, params: Params | None = None) -> tuple[Params, GroupState]:
        del params
        rates = {group: schedule(state.steps) for group, schedule in schedules.items()}
        scaled = jax.tree.map(lambda update, group: -rates[group] * update, updates, label(updates))
        return scaled, GroupState(steps=state.steps + 1)

    return optax.GradientTransformation(init, update)


def build_optimizer(
    rates: Mapping[str, Any], *, key: str, groups: Sequence[str] = GROUPS, eps: float = 1e-15, b2: float = ADAM_B2
) -> optax.GradientTransformation:
    """Adam (eps 1e-15 as in 3DGS and the authors' code) with a schedule per group.

    Args:
      rates: for each of `groups` (and `OPTIONAL_GROUPS`) a number or a schedule component dict(fn=..., ...).
      key: config key of `rates`, for errors.
      groups: of the parameters; those of a system without motion are `GAUSSIANS`.
      eps, b2: of Adam.

    Returns:
      A transformation whose state is (Adam's state with moments shaped like the parameters, `GroupState`), so that
      density control can move the moments together with the points.
    """
    missing = set(groups) - set(rates)
    if missing:
        raise UserError(f"config.{key}: no learning rate for {sorted(missing)[0]!r}, expected one for each of {groups}")
    schedules = {}
    for group in (*groups, *OPTIONAL_GROUPS):
        rate = rates.get(group, 0.0)
        is_number = isinstance(rate, int | float)
        schedules[group] = optax.constant_schedule(rate) if is_number else resolve(rate, key=f"{key}.{group}")()
    return optax.chain(optax.scale_by_adam(b2=b2, eps=eps), scale_by_groups(schedules))


def freeze(optimizer: optax.GradientTransformation, chosen: Any) -> optax.GradientTransformation:
    """An optimizer that moves the arrays that `chosen`, a tree of bools, names, and keeps no state of the rest.

    In one program with the gradients, those that nothing asks for are not computed.
    """
    labels = jax.tree.map(lambda moves: "train" if moves else "freeze", chosen)
    return optax.multi_transform({"train": optimizer, "freeze": optax.set_to_zero()}, labels)
