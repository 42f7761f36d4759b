"""Fits a clip that training never saw: its code alone, all else frozen (paper Sec. 4.3, without pictures).

Errors of bodies are squares of what a pose vector moves, and pose vectors nearly linear in a code, so damped steps of
Gauss and Newton need a dozen where Adam is far from done after hundreds (docs/rigs.md has the figures).
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.rigs.bodies import compare_places
from dimo_jax.systems.rig.model import Puppet, Truth
from dimo_jax.systems.rig.state import RigParams

NUM_STEPS = 14
PRIOR = 1e-8  # weight of a code's squared length beside squared distances in sizes
_INSTANTS = 24  # of a clip, at which it is met
_DAMPING, _EASIER, _HARDER, _MOST_DAMPING = 1e-7, 0.2, 8.0, 1.0
_SETTLED = 1e-3  # of the loss: a step that gains less is the last


def fit_codes(
    puppet: Puppet, module: nn.Module, params: RigParams, truth: Truth, starts: Array, *, num_steps: int = NUM_STEPS
) -> Array:
    """Codes [M,D] whose motions are nearest to clips, from the nearest of the codes `starts` [N,D] on.

    Args:
      puppet: the rig.
      module: the decoder.
      params: of a trained run.
      truth: M clips of the same rig.
      starts: codes of training clips, or others.
      num_steps: of Levenberg and Marquardt, at most.
    """
    near = _choose(params, truth, starts, puppet=_Key(puppet), module=module)
    return _meet(params, truth, near, puppet=_Key(puppet), module=module, num_steps=num_steps)


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
def _meet(params: RigParams, truth: Truth, near: Array, *, puppet: _Key, module: nn.Module, num_steps: int) -> Array:
    """Codes [M,D] from those near by [M,D] on, one clip after another."""
    rig, count = puppet.puppet, truth.times.shape[1]
    some = np.linspace(0, count - 1, min(_INSTANTS, count)).round().astype(int)
    roots = jnp.sqrt(rig.bodies.shares)[:, None, None]

    def see(vector: Array) -> Array:
        return (rig.place(vector) * roots).reshape(-1)

    def meet(given: tuple[Array, Truth]) -> Array:
        start, clip = given
        times, seen = clip.times[some], (clip.bodies[some] * roots).reshape(len(some), -1)

        def decode(z: Array) -> Array:
            return module.apply(params.decoder, z, times, clip.loops)  # type: ignore[return-value]

        def measure(z: Array) -> Array:
            misses = jax.vmap(see)(decode(z)) - seen
            return jnp.square(misses).sum() / len(some) + PRIOR * jnp.square(z).sum()

        def linearize(z: Array) -> tuple[Array, Array]:
            vectors, slopes = decode(z), jax.jacfwd(decode)(z)  # [T,C], [T,C,D]
            bends, misses = jax.vmap(jax.jacfwd(see))(vectors), seen - jax.vmap(see)(vectors)
            squares = jnp.einsum("tbc,tbe->tce", bends, bends)
            curvature = jnp.einsum("tcd,tcf->df", slopes, jnp.einsum("tce,tef->tcf", squares, slopes)) / len(some)
            pull = jnp.einsum("tcd,tc->d", slopes, jnp.einsum("tbc,tb->tc", bends, misses)) / len(some)
            return curvature, pull - PRIOR * z

        def step(carry: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
            z, loss, damping, done, number = carry
            curvature, pull = linearize(z)
            damped = curvature + (PRIOR + damping) * jnp.eye(len(z))
            tried = z + jax.scipy.linalg.solve(damped, pull, assume_a="pos")
            found = measure(tried)
            better = found < loss  # false of NaN
            settled = better & (loss - found < _SETTLED * loss)
            damping = jnp.where(better, _EASIER, _HARDER) * damping
            done = settled | (damping > _MOST_DAMPING)
            return jnp.where(better, tried, z), jnp.where(better, found, loss), damping, done, number + 1

        begin = (start, measure(start), jnp.asarray(_DAMPING), jnp.asarray(False), jnp.asarray(0))
        fitted: Array = jax.lax.while_loop(lambda carry: ~carry[3] & (carry[4] < num_steps), step, begin)[0]
        return fitted

    return jax.lax.map(meet, (near, truth))
