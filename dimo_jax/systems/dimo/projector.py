"""From a sentence's embedding to a motion's latent code (paper Sec. 3.4: a lightweight MLP behind a frozen BERT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array


class MlpProjector(nn.Module):
    """Dense layers with GELU between them."""

    features: int
    width: int
    depth: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x [..., E] -> [..., features]."""
        for layer in range(self.depth):
            x = nn.gelu(nn.Dense(self.width, name=f"layer_{layer}")(x))
        return nn.Dense(self.features, name="last")(x)


def mlp(*, features: int, width: int = 128, depth: int = 1) -> nn.Module:
    """The paper's projector: an MLP; its sizes are ours, the paper names none.

    A component for `config.text.projector`: any function that takes `features` and returns a flax module with
    `__call__(x [..., E]) -> [..., features]` can stand in its place.

    Args:
      features: D, the length of a latent code.
      width: of the hidden layers.
      depth: number of hidden layers.
    """
    return MlpProjector(features=features, width=width, depth=depth)


def linear(*, features: int) -> nn.Module:
    """The projector of the authors' code: one linear layer. `features` as in `mlp`."""
    return nn.Dense(features)


class Scaling(flax.struct.PyTreeNode):
    """Moves embeddings and codes to the scale at which a projector works: mean 0, size about 1."""

    input_mean: Array  # [E]
    input_scale: Array  # []
    code_mean: Array  # [D]
    code_scale: Array  # []


class SentenceInputs(flax.struct.PyTreeNode):
    """The sentences of all motions as a projector sees them; motions may have different numbers of them."""

    inputs: Array  # [M,S,E], see `scale_inputs`; zeros where a motion has fewer than S
    weights: Array  # [M,S], of each motion summing to 1, 0 where there is no sentence (or the motion has none)


class Projector(flax.struct.PyTreeNode):
    """A trained projector: several networks, whose mean counts."""

    members: Any  # variables of the module with a leading axis, one network each
    scaling: Scaling


def build_projector(spec: Mapping[str, Any], *, num_features: int) -> nn.Module:
    """The module of `config.text.projector` for codes of length `num_features`.

    Raises:
      UserError: a slot that cannot be resolved.
    """
    module: nn.Module = resolve(spec, key="text.projector")(features=num_features)
    return module


@jax.jit
def unit(embeddings: Array) -> Array:
    """Embeddings [..., E] scaled to length 1, so that their products are cosines; zeros stay zeros."""
    return embeddings / jnp.maximum(jnp.sqrt(jnp.sum(embeddings**2, axis=-1, keepdims=True)), 1e-12)


def find_scaling(embeddings: Array, codes: Array) -> Scaling:
    """The scaling that training sentences and codes ask for.

    Args:
      embeddings: [S,E] of all training sentences.
      codes: [M,D] of all training motions.
    """
    inputs, eps = unit(embeddings), 1e-6
    return Scaling(
        input_mean=jnp.mean(inputs, axis=0),
        input_scale=jnp.maximum(jnp.sqrt(jnp.mean(jnp.var(inputs, axis=0))), eps),
        code_mean=jnp.mean(codes, axis=0),
        # One scale for all dimensions: those in which motions hardly differ must not weigh like the others.
        code_scale=jnp.maximum(jnp.sqrt(jnp.mean(jnp.var(codes, axis=0))), eps),
    )


def scale_inputs(scaling: Scaling, embeddings: Array) -> Array:
    """Embeddings [..., E] as the networks see them."""
    return (unit(embeddings) - scaling.input_mean) / scaling.input_scale


def stack_sentences(embeddings: Sequence[np.ndarray], motions: Sequence[int], *, num_motions: int) -> SentenceInputs:
    """The sentences that train a projector together with the latents.

    Args:
      embeddings: per motion of `motions` [s,E], at least one row each.
      motions: their indices among all `num_motions`.
      num_motions: M, with those that have no sentences.
    """
    flat = jnp.asarray(np.concatenate(embeddings))
    scaling = find_scaling(flat, jnp.zeros((1, 1)))
    most = max(len(rows) for rows in embeddings)
    inputs = np.zeros((num_motions, most, flat.shape[1]), np.float32)
    weights = np.zeros((num_motions, most), np.float32)
    for motion, rows in zip(motions, embeddings, strict=True):
        inputs[motion, : len(rows)] = scale_inputs(scaling, jnp.asarray(rows))
        weights[motion, : len(rows)] = 1 / len(rows)
    return SentenceInputs(inputs=jnp.asarray(inputs), weights=jnp.asarray(weights))


def project(module: nn.Module, projector: Projector, embeddings: Array) -> Array:
    """Latent codes of sentences: embeddings [..., E] -> z [..., D], the mean over the projector's networks."""
    inputs = scale_inputs(projector.scaling, embeddings)
    outputs = jax.vmap(lambda variables: module.apply(variables, inputs))(projector.members)
    return jnp.mean(outputs, axis=0) * projector.scaling.code_scale + projector.scaling.code_mean  # type: ignore[arg-type]
