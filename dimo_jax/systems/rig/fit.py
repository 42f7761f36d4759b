"""Fits a clip that training never saw: its code alone, all else frozen (paper Sec. 4.3, without pictures)."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dimo_jax.core.types import Array
from dimo_jax.rigs.bodies import compare_places, compare_turns
from dimo_jax.systems.rig.model import Puppet, Truth
from dimo_jax.systems.rig.state import RigParams
from dimo_jax.training.schedules import log_linear

NUM_STEPS, RATE = 400, 0.05
_PRIOR = 1e-7  # weight of a code's squared length beside squared distances in sizes


def fit_codes(
    puppet: Puppet, module: nn.Module, params: RigParams, truth: Truth, starts: Array, *, num_steps: int = NUM_STEPS
) -> Array:
    """Codes [M,D] whose motions are nearest to clips, by Adam from the nearest of the codes `starts` [N,D] on.

    Args:
      puppet: the rig.
      module: the decoder.
      params: of a trained run.
      truth: M clips of the same rig.
      starts: codes of training clips, or others.
      num_steps: of the descent.
    """
    near = _choose(params, truth, starts, puppet=_Key(puppet), module=module)
    return _descend(params, truth, near, puppet=_Key(puppet), module=module, num_steps=num_steps)


class _Key:
    """A puppet as a static argument, which holds arrays and is told apart by identity."""

    def __init__(self, puppet: Puppet) -> None:
        self.puppet = puppet

    def __hash__(self) -> int:
        return id(self.puppet)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.puppet is self.puppet


@functools.partial(jax.jit, static_argnames=("puppet", "module"))
def _choose(params: RigParams, truth: Truth, starts: Array, *, puppet: _Key, module: nn.Module) -> Array:
    """Of the codes `starts` [N,D] the one whose motion is nearest to each of M clips: [M,D]."""
    some = np.linspace(0, truth.times.shape[1] - 1, min(8, truth.times.shape[1])).round().astype(int)
    rig = puppet.puppet

    def choose(clip: Truth) -> Array:
        def miss(z: Array) -> Array:
            found = rig.place(module.apply(params.decoder, z, clip.times[some], clip.loops))  # type: ignore[arg-type]
            return compare_places(rig.bodies, found, clip.bodies[some]).mean()

        return starts[jnp.argmin(jax.lax.map(miss, starts))]

    return jax.lax.map(choose, truth)


@functools.partial(jax.jit, static_argnames=("puppet", "module", "num_steps"))
def _descend(params: RigParams, truth: Truth, near: Array, *, puppet: _Key, module: nn.Module, num_steps: int) -> Array:
    rig = puppet.puppet
    optimizer = optax.adam(log_linear(initial=RATE, final=0.02 * RATE, num_steps=num_steps))

    def loss(codes: Array) -> Array:
        vectors = jax.vmap(lambda z, times, loop: module.apply(params.decoder, z, times, loop))(
            codes, truth.times, truth.loops
        )
        found = rig.place(vectors)  # type: ignore[arg-type]
        off = compare_places(rig.bodies, found, truth.bodies) + compare_turns(rig.bodies, found, truth.bodies)
        return jnp.sum(off.mean(axis=-1) + _PRIOR * jnp.square(codes).sum(axis=-1))

    def step(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], None]:
        codes, moments = carry
        updates, moments = optimizer.update(jax.grad(loss)(codes), moments, codes)
        return (optax.apply_updates(codes, updates), moments), None

    (codes, _), _ = jax.lax.scan(step, (near, optimizer.init(near)), None, length=num_steps)
    return codes
