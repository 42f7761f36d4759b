"""Trains the projector from captions to latent codes (paper Sec. 3.4), after the motions have been learned."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.systems.dimo.projector import Projector, find_scaling, scale_inputs


def _mix(inputs: Array, motions: Array, starts: Array, counts: Array, key: Array) -> Array:
    """Every sentence moved up to half way to a random one of the same motion: inputs [S,E] -> [S,E]."""
    choice_key, share_key = jax.random.split(key)
    chosen = jnp.floor(jax.random.uniform(choice_key, motions.shape) * counts[motions]).astype(jnp.int32)
    partner = starts[motions] + jnp.minimum(chosen, counts[motions] - 1)
    share = jax.random.uniform(share_key, (*motions.shape, 1), maxval=0.5)
    return (1 - share) * inputs + share * inputs[partner]


def _loss(outputs: Array, codes: Array, motions: Array, weights: Array, contrast: float) -> Array:
    """Mean squared error, and how well the right code is told from the others by its distance.

    Args:
      outputs: [S,D].
      codes: [M,D] scaled.
      motions: [S] int32.
      weights: [S], summing to 1.
      contrast: weight of the second part.
    """
    error = jnp.mean((outputs - codes[motions]) ** 2, axis=-1)
    distances = jnp.mean((outputs[:, None] - codes[None]) ** 2, axis=-1)
    # Codes are spaced by about 2 in these units (twice the variance of 1), so that 4 makes a clear choice.
    right = -jax.nn.log_softmax(-4.0 * distances, axis=-1)[jnp.arange(len(motions)), motions]
    return jnp.sum(weights * (error + contrast * right))


def _train(
    key: Array,
    inputs: Array,
    codes: Array,
    motions: Array,
    *,
    module: nn.Module,
    num_steps: int,
    rate: float,
    decay: float,
    noise: float,
    contrast: float,
) -> Any:
    """Variables of one network after training on scaled inputs [S,E] of motions [S] with scaled codes [M,D]."""
    num_motions = codes.shape[0]
    counts = jnp.zeros(num_motions, jnp.int32).at[motions].add(1)
    starts = jnp.cumsum(counts) - counts  # sentences stand sorted by motion
    weights = 1.0 / (counts[motions] * num_motions)
    init_key, step_key = jax.random.split(key)
    variables = module.init(init_key, inputs)
    optimizer = optax.adamw(optax.cosine_decay_schedule(rate, num_steps), weight_decay=decay)

    def step(carry: tuple, index: Array) -> tuple[tuple, None]:
        variables, state = carry
        mix_key, noise_key = jax.random.split(jax.random.fold_in(step_key, index))
        seen = _mix(inputs, motions, starts, counts, mix_key)
        seen = seen + noise * jax.random.normal(noise_key, seen.shape)

        def loss(variables: Any) -> Array:
            outputs = module.apply(variables, seen)
            return _loss(outputs, codes, motions, weights, contrast)  # type: ignore[arg-type]

        updates, state = optimizer.update(jax.grad(loss)(variables), state, variables)
        return (optax.apply_updates(variables, updates), state), None

    (variables, _), _ = jax.lax.scan(step, (variables, optimizer.init(variables)), jnp.arange(num_steps))
    return variables


# Compiled as a whole: one by one, the operations around the training take seconds to compile.
@functools.partial(
    jax.jit, static_argnames=("module", "num_members", "num_steps", "rate", "decay", "noise", "contrast")
)
def _fit(
    seed: Array, embeddings: Array, codes: Array, motions: Array, *, module: nn.Module, num_members: int, **options: Any
) -> Projector:
    scaling = find_scaling(embeddings, codes)
    inputs = scale_inputs(scaling, embeddings)
    targets = (codes - scaling.code_mean) / scaling.code_scale
    keys = jax.random.split(jax.random.key(seed), num_members)
    # One after the other: the same sums in the same order, whatever the number of networks.
    members = jax.lax.map(lambda key: _train(key, inputs, targets, motions, module=module, **options), keys)
    return Projector(members=members, scaling=scaling)


def fit_projector(
    module: nn.Module,
    embeddings: Sequence[np.ndarray],
    codes: np.ndarray,
    *,
    seed: int = 0,
    num_steps: int = 400,
    rate: float = 3e-3,
    decay: float = 1e-2,
    noise: float = 1.0,
    contrast: float = 1.0,
    num_members: int = 4,
) -> Projector:
    """Trains a projector on the sentences of M motions; the same arguments give the same one.

    Every step sees all sentences, each mixed with another of its motion and blurred, so that the projector learns
    regions, not points. Several networks from different beginnings are averaged. Both, and `contrast`, are ours; the
    paper and the authors' code only fit captions to codes.

    Args:
      module: see `dimo_jax.systems.dimo.projector.build_projector`.
      embeddings: per motion [s,E], one row a sentence; motions may have different numbers of them, at least 1.
      codes: [M,D], the latent code of every motion.
      seed: of beginnings, mixing and noise.
      num_steps: of AdamW over all sentences at once.
      rate: first learning rate; it falls to 0 along a cosine.
      decay: weight decay.
      noise: standard deviation of what is added to the inputs, whose own is 1.
      contrast: weight of telling a motion's code from those of the others.
      num_members: networks to average.

    Raises:
      UserError: numbers out of range.
    """
    for name, value, least in (("num_steps", num_steps, 1), ("num_members", num_members, 1), ("rate", rate, 0)):
        if not value >= least:
            raise UserError(f"config.text.fit.{name}: found {value!r}, expected at least {least}")
    flat = jnp.asarray(np.concatenate([np.asarray(rows, np.float32) for rows in embeddings]))
    motions = jnp.asarray(np.repeat(np.arange(len(embeddings)), [len(rows) for rows in embeddings]), jnp.int32)
    options = dict(num_steps=num_steps, rate=rate, decay=decay, noise=noise, contrast=contrast)
    fitted: Projector = _fit(seed, flat, jnp.asarray(codes), motions, module=module, num_members=num_members, **options)
    return fitted
